"use strict";
// Two ways to paint a scene on a canvas: WebGL, and the plain canvas where there is none. Both take
//   { places [3P], colours [3P] of 0..255, seen [P], moving [P], radius [P], segments { ends [6S], colours [4S], widths [S] }, image, quad [12] }
// and an eye { turn [9], centre, distance, focal, pan, near, stage, ink } in pixels of the page.

const SMALL = 1.5, LARGE = 4.5, MOVES = 1.6; // radii of points in pixels; how much larger those are that move

const POINTS = [`#version 300 es
uniform mat3 turn; uniform vec3 centre; uniform float distance_, focal, near, ratio, grow; uniform vec2 pan, size;
in vec3 place; in vec3 colour; in vec3 look; // look: radius, whether it moves, whether it is seen
out vec3 shade; out vec2 rim;
uniform vec3 stage;
void main() {
  vec3 q = turn * (place - centre); q.z += distance_;
  gl_Position = vec4((focal * q.x + pan.x * q.z) * 2. / size.x, -(focal * q.y + pan.y * q.z) * 2. / size.y, q.z * 1.00001 - 2. * near, q.z);
  float r = clamp(focal * look.x / max(q.z, near), ${SMALL.toFixed(1)}, ${LARGE.toFixed(1)} * grow) * mix(1., ${MOVES.toFixed(1)}, look.y);
  gl_PointSize = 2. * r * ratio;
  shade = mix(mix(stage, colour, .35), colour, look.z);
  rim = vec2(look.y, 1. / (r * ratio));
}`, `#version 300 es
precision mediump float;
in vec3 shade; in vec2 rim; out vec4 colour;
uniform vec3 ink;
void main() {
  float r = length(gl_PointCoord * 2. - 1.);
  if (r > 1.) discard;
  vec3 c = mix(shade, ink, rim.x * smoothstep(1. - 2.4 * rim.y, 1. - 1.4 * rim.y, r));
  colour = vec4(c, 1. - smoothstep(1. - rim.y, 1., r));
}`];

const LINES = [`#version 300 es
uniform mat3 turn; uniform vec3 centre; uniform float distance_, focal, near, ratio; uniform vec2 pan, size;
in vec3 a; in vec3 b; in vec4 tint; in float width;
out vec4 shade; out vec2 across_;
vec4 at(vec3 q) { return vec4((focal * q.x + pan.x * q.z) * 2. / size.x, -(focal * q.y + pan.y * q.z) * 2. / size.y, q.z * 1.00001 - 2. * near, q.z); }
void main() {
  vec3 p = turn * (a - centre), q = turn * (b - centre); p.z += distance_; q.z += distance_;
  float least = 1.01 * near;
  if (p.z < least && q.z > least) p = mix(p, q, (least - p.z) / (q.z - p.z));
  if (q.z < least && p.z > least) q = mix(q, p, (least - q.z) / (p.z - q.z));
  vec4 u = at(p), v = at(q);
  vec2 along = (v.xy / v.w - u.xy / u.w) * size; float l = length(along);
  vec2 across = l > 1e-6 ? vec2(-along.y, along.x) / l : vec2(0.);
  vec4 end = gl_VertexID < 2 ? u : v; float side = gl_VertexID % 2 == 0 ? -1. : 1.;
  float wide = width + 1. / ratio; // half a pixel more on both sides, to fade out in
  gl_Position = end + vec4(side * across * wide / size * end.w, 0., 0.);
  shade = tint;
  across_ = vec2(side * wide, width) * ratio / 2.;
}`, `#version 300 es
precision mediump float;
in vec4 shade; in vec2 across_; out vec4 colour;
void main() { colour = vec4(shade.rgb, shade.a * clamp(across_.y + .5 - abs(across_.x), 0., 1.)); }`];

const PICTURE = [`#version 300 es
uniform mat3 turn; uniform vec3 centre; uniform float distance_, focal, near; uniform vec2 pan, size;
in vec3 place; in vec2 spot; out vec2 where;
void main() {
  vec3 q = turn * (place - centre); q.z += distance_;
  gl_Position = vec4((focal * q.x + pan.x * q.z) * 2. / size.x, -(focal * q.y + pan.y * q.z) * 2. / size.y, q.z * 1.00001 - 2. * near, q.z);
  where = spot;
}`, `#version 300 es
precision mediump float;
uniform sampler2D film; in vec2 where; out vec4 colour;
void main() { colour = vec4(texture(film, where).rgb, .85); }`];

function paintsWithGL(canvas) {
  const gl = canvas.getContext("webgl2", { antialias: false, preserveDrawingBuffer: true, alpha: false });
  if (!gl) return null;
  const program = ([vertex, fragment]) => {
    const made = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(made, shader);
    }
    gl.linkProgram(made);
    if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made) + gl.getShaderInfoLog(gl.getAttachedShaders(made)[0]));
    return { made, at: (name) => gl.getUniformLocation(made, name), array: gl.createVertexArray(), buffers: {} };
  };
  const points = program(POINTS), lines = program(LINES), picture = program(PICTURE), film = gl.createTexture();
  const held = {};
  const fill = (part, name, count, data, kind, step = 0, normal = false) => {
    const key = part.made, place = gl.getAttribLocation(key, name);
    const buffer = part.buffers[name] ??= gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.DYNAMIC_DRAW);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, count, kind, normal, 0, 0);
    gl.vertexAttribDivisor(place, step);
  };
  const look = (part, eye) => {
    gl.useProgram(part.made);
    gl.bindVertexArray(part.array);
    gl.uniformMatrix3fv(part.at("turn"), true, eye.turn);
    gl.uniform3fv(part.at("centre"), eye.centre);
    for (const [name, value] of [["distance_", eye.distance], ["focal", eye.focal], ["near", eye.near], ["ratio", eye.ratio], ["grow", eye.grow]]) gl.uniform1f(part.at(name), value);
    gl.uniform2fv(part.at("pan"), eye.pan);
    gl.uniform2fv(part.at("size"), eye.size);
    gl.uniform3fv(part.at("stage"), eye.stage);
    gl.uniform3fv(part.at("ink"), eye.ink);
  };
  gl.enable(gl.DEPTH_TEST);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
  // What changed since the last picture is sent anew, nothing else.
  const fresh = (name, value) => held[name] !== value && ((held[name] = value), true);
  return (scene, eye) => {
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(...eye.stage, 1);
    gl.depthMask(true);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    look(points, eye);
    if (fresh("places", scene.places)) fill(points, "place", 3, scene.places, gl.FLOAT);
    if (fresh("colours", scene.colours)) fill(points, "colour", 3, scene.colours, gl.UNSIGNED_BYTE, 0, true);
    if (fresh("looks", scene.looks)) fill(points, "look", 3, scene.looks, gl.FLOAT);
    gl.drawArrays(gl.POINTS, 0, scene.places.length / 3);
    const { ends, colours, widths } = scene.segments;
    if (widths.length) {
      look(lines, eye);
      if (fresh("segments", scene.segments)) {
        const count = widths.length, a = new Float32Array(3 * count), b = new Float32Array(3 * count);
        for (let s = 0; s < count; s++) { a.set(ends.subarray(6 * s, 6 * s + 3), 3 * s); b.set(ends.subarray(6 * s + 3, 6 * s + 6), 3 * s); }
        fill(lines, "a", 3, a, gl.FLOAT, 1);
        fill(lines, "b", 3, b, gl.FLOAT, 1);
        fill(lines, "tint", 4, colours, gl.FLOAT, 1);
        fill(lines, "width", 1, widths, gl.FLOAT, 1);
      }
      gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, widths.length);
    }
    if (scene.image) {
      look(picture, eye);
      if (fresh("image", scene.image)) {
        gl.bindTexture(gl.TEXTURE_2D, film);
        gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, gl.RGB, gl.UNSIGNED_BYTE, scene.image);
        for (const name of ["TEXTURE_MIN_FILTER", "TEXTURE_MAG_FILTER"]) gl.texParameteri(gl.TEXTURE_2D, gl[name], gl.LINEAR);
        for (const name of ["TEXTURE_WRAP_S", "TEXTURE_WRAP_T"]) gl.texParameteri(gl.TEXTURE_2D, gl[name], gl.CLAMP_TO_EDGE);
      }
      fill(picture, "place", 3, scene.quad, gl.FLOAT);
      fill(picture, "spot", 2, new Float32Array([0, 0, 1, 0, 0, 1, 1, 1]), gl.FLOAT);
      gl.depthMask(false);
      gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    }
  };
}

function paintsFlat(canvas) {
  const g = canvas.getContext("2d");
  const css = (c, alpha = 1) => `rgb(${c.map((v) => Math.round(255 * v)).join(" ")} / ${alpha})`;
  return (scene, eye) => {
    const [width, height] = eye.size, T = eye.turn;
    const view = (x, y, z) => {
      x -= eye.centre[0]; y -= eye.centre[1]; z -= eye.centre[2];
      const depth = T[6] * x + T[7] * y + T[8] * z + eye.distance;
      if (depth < eye.near) return null;
      return [width / 2 + eye.focal * (T[0] * x + T[1] * y + T[2] * z) / depth + eye.pan[0], height / 2 + eye.focal * (T[3] * x + T[4] * y + T[5] * z) / depth + eye.pan[1], depth];
    };
    g.setTransform(eye.ratio, 0, 0, eye.ratio, 0, 0);
    g.fillStyle = css(eye.stage);
    g.fillRect(0, 0, width, height);
    const { ends, colours, widths } = scene.segments;
    for (let s = 0; s < widths.length; s++) {
      const a = view(...ends.subarray(6 * s, 6 * s + 3)), b = view(...ends.subarray(6 * s + 3, 6 * s + 6));
      if (!a || !b) continue;
      g.strokeStyle = css([...colours.subarray(4 * s, 4 * s + 3)], colours[4 * s + 3]);
      g.lineWidth = widths[s];
      g.beginPath(); g.moveTo(a[0], a[1]); g.lineTo(b[0], b[1]); g.stroke();
    }
    if (scene.image) {
      const [a, b, d] = [0, 3, 6].map((i) => view(...scene.quad.subarray(i, i + 3)));
      if (a && b && d) {
        g.save();
        g.transform(b[0] - a[0], b[1] - a[1], d[0] - a[0], d[1] - a[1], a[0], a[1]);
        g.globalAlpha = 0.85;
        g.drawImage(scene.image, 0, 0, 1, 1);
        g.restore();
      }
    }
    const drawn = [];
    for (let p = 0; 3 * p < scene.places.length; p++) { const s = view(...scene.places.subarray(3 * p, 3 * p + 3)); if (s) drawn.push([s, p]); }
    drawn.sort((a, b) => b[0][2] - a[0][2]);
    for (const [s, p] of drawn) {
      const [radius, moves, seen] = scene.looks.subarray(3 * p, 3 * p + 3);
      const r = Math.min(LARGE * eye.grow, Math.max(SMALL, eye.focal * radius / s[2])) * (moves ? MOVES : 1);
      g.fillStyle = css([...scene.colours.subarray(3 * p, 3 * p + 3)].map((v) => v / 255), seen ? 1 : 0.35);
      g.beginPath(); g.arc(s[0], s[1], r, 0, 7); g.fill();
      if (moves) { g.lineWidth = 1; g.strokeStyle = css(eye.ink); g.stroke(); }
    }
  };
}
