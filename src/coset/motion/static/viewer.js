"use strict";
const D = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const KINDS = { u1: Uint8Array, i2: Int16Array, i4: Int32Array, f4: Float32Array };
const A = Object.fromEntries(Object.entries(D.arrays).map(([name, a]) => [name, new KINDS[a.kind](Uint8Array.from(atob(a.data), (c) => c.charCodeAt(0)).buffer)]));
const P = A.gamma.length, N = D.rotations.length, K = D.coefficients[0].length - 1;
for (const [name, value] of D.facts) {
  const row = $("facts").insertRow();
  row.insertCell().textContent = name;
  row.insertCell().textContent = value;
}
const slider = $("frame");
slider.max = N - 1;
const state = { frame: 0, playing: false, yaw: 0.35, pitch: 0.25, zoom: 1, pan: [0, 0], colour: D.coloured ? "picture" : "motion" };
$("colour").value = state.colour;
if (!D.coloured) $("colour").parentElement.hidden = true;
if (A.drawn.length < P) $("part").textContent = `${A.drawn.length.toLocaleString("en")} of ${P.toLocaleString("en")} points are drawn here.`;

const visible = (p, n) => { const bit = p * N + n; return (A.visible[bit >> 3] >> (7 - (bit & 7))) & 1; };
// Places of a frame: X = B_1 + sum over k >= 2 of c_k B_k.
function placesAt(n) {
  const places = A.static.slice();
  for (let m = 0; m < A.clouded.length; m++) for (let d = 0; d < 3; d++) {
    let sum = 0;
    for (let k = 0; k < K; k++) sum += D.coefficients[n][k + 1] * A.clouds[(m * K + k) * 3 + d];
    places[3 * A.clouded[m] + d] += A.units[m] * sum;
  }
  return places;
}
const memory = new Map();
function places(n) {
  if (!memory.has(n)) {
    if (memory.size > 40) memory.delete(memory.keys().next().value);
    memory.set(n, placesAt(n));
  }
  return memory.get(n);
}
const at = (n, p) => places(n).subarray(3 * p, 3 * p + 3);
const median = (values) => { const s = Float64Array.from(values).sort(); return s.length ? s[s.length >> 1] : 0; };
const ids = Array.from({ length: P }, (_, p) => p);
const centre = [0, 1, 2].map((d) => median(ids.map((p) => A.static[3 * p + d])));
const radius = median(ids.map((p) => Math.hypot(...centre.map((c, d) => A.static[3 * p + d] - c)))) || 1;

// From so far away that the cameras are seen, too.
const outermost = Math.max(...D.positions.map((t) => Math.hypot(...t.map((v, d) => v - centre[d]))));
state.zoom = 4 * radius / Math.max(4 * radius, 1.5 * outermost);

const levels = Float64Array.from(A.gamma).sort(), low = Math.log(levels[Math.floor(P * 0.05)]), high = Math.log(levels[Math.floor(P * 0.98)]);
const share = ids.map((p) => Math.min(1, Math.max(0, (Math.log(A.gamma[p]) - low) / Math.max(high - low, 1e-9))));
const hue = (s) => [215 - 205 * s, 0.85, 0.45 + 0.08 * s];
const rgb = (h, s, l) => [0, 8, 4].map((n) => { const k = (n + h / 30) % 12; return Math.round(255 * (l - s * Math.min(l, 1 - l) * Math.max(-1, Math.min(k - 3, 9 - k, 1)))); });
const motionColours = Uint8Array.from(share.flatMap((s) => rgb(...hue(s))));
const coloursNow = () => state.colour === "motion" ? motionColours : A.colours;

// Colours of the style sheet, as numbers: the page may be light or dark.
const ruler = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
function tone(name) {
  ruler.fillStyle = getComputedStyle(document.body).getPropertyValue(name);
  ruler.fillRect(0, 0, 1, 1);
  return [...ruler.getImageData(0, 0, 1, 1).data.subarray(0, 3)].map((v) => v / 255);
}
let tones = {};
const takeTones = () => { tones = { stage: tone("--line"), ink: tone("--ink"), soft: tone("--ink-2"), accent: tone("--accent") }; };
takeTones();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { takeTones(); kept = {}; draw(); });

const canvas = $("world");
const paint = paintsWithGL(canvas) ?? paintsFlat(canvas);
const pictures_ = D.pictures.map((source, n) => {
  const image = new Image();
  image.onload = () => { if (n === state.frame) draw(); };
  image.src = source;
  return image;
});

function sized(target, height) {
  const ratio = window.devicePixelRatio || 1, width = target.clientWidth;
  const w = Math.round(width * ratio), h = Math.round((height || target.clientHeight) * ratio);
  if (target.width !== w || target.height !== h) { target.width = w; target.height = h; }
  return [width, h / ratio, ratio];
}

function eye() {
  const [width, height, ratio] = sized(canvas);
  const cy = Math.cos(state.yaw), sy = Math.sin(state.yaw), cp = Math.cos(state.pitch), sp = Math.sin(state.pitch);
  return {
    turn: [cy, 0, sy, sp * sy, cp, -sp * cy, -cp * sy, sp, cp * cy], centre, distance: 4 * radius / state.zoom, focal: Math.min(width, height) * 1.1,
    near: 0.05 * radius, pan: state.pan, size: [width, height], ratio, grow: Math.max(1, state.zoom), stage: tones.stage, ink: tones.ink,
  };
}

function corners(n, size) {
  const R = D.rotations[n], t = D.positions[n], a = size * D.size[0] / (2 * D.intrinsics[0]), b = size * D.size[1] / (2 * D.intrinsics[0]);
  return [[-a, -b], [a, -b], [a, b], [-a, b]].map(([x, y]) => [0, 1, 2].map((d) => t[d] + R[d][0] * x + R[d][1] * y + R[d][2] * size));
}

// Trails of very many points would hide them: of more, some have one.
const TRAIL = 12, TRAILS = 400;
const moving = ids.filter((p) => A.moving[p]), movers = moving.filter((_, i) => i % Math.ceil(moving.length / TRAILS) === 0);
function segmentsOf(n) {
  const stride = Math.max(1, Math.round(N / 12)), from = Math.max(0, n - TRAIL);
  const most = N + 8 * (Math.ceil(N / stride) + 1) + movers.length * (n - from);
  const ends = new Float32Array(6 * most), colours = new Float32Array(4 * most), widths = new Float32Array(most);
  let count = 0;
  const add = (a, b, colour, alpha, width) => {
    ends.set(a, 6 * count); ends.set(b, 6 * count + 3); colours.set(colour, 4 * count);
    colours[4 * count + 3] = alpha;
    widths[count++] = width;
  };
  if ($("cameras").checked) {
    for (let m = 1; m < N; m++) add(D.positions[m - 1], D.positions[m], m <= n ? tones.accent : tones.soft, m <= n ? 0.9 : 0.5, m <= n ? 2 : 1.2);
    const frustum = (m, size, ...look) => {
      const c = corners(m, size);
      for (let i = 0; i < 4; i++) { add(c[i], c[(i + 1) % 4], ...look); add(c[i], D.positions[m], ...look); }
    };
    for (let m = 0; m < N; m += stride) frustum(m, 0.12 * radius, tones.soft, 0.5, 1);
    frustum(n, 0.35 * radius, tones.accent, 1, 2);
  }
  if ($("trails").checked) {
    const shown = coloursNow();
    for (let m = from + 1; m <= n; m++) {
      const before = places(m - 1), after = places(m), alpha = 0.15 + 0.6 * (m - from) / (n - from);
      for (const p of movers) {
        for (let d = 0; d < 3; d++) {
          ends[6 * count + d] = before[3 * p + d];
          ends[6 * count + 3 + d] = after[3 * p + d];
          colours[4 * count + d] = shown[3 * p + d] / 255;
        }
        colours[4 * count + 3] = alpha;
        widths[count++] = 1.4;
      }
    }
  }
  return { ends: ends.subarray(0, 6 * count), colours: colours.subarray(0, 4 * count), widths: widths.subarray(0, count) };
}

// What is drawn of a frame is made when the frame or a choice changes, not when the view turns.
let kept = {};
function scene() {
  const n = state.frame, key = [n, state.colour, $("cameras").checked, $("trails").checked].join();
  if (kept.key !== key) {
    const looks = new Float32Array(3 * P);
    for (let p = 0; p < P; p++) { looks[3 * p] = A.radius[p]; looks[3 * p + 1] = A.moving[p]; looks[3 * p + 2] = visible(p, n); }
    kept = { key, places: places(n), colours: coloursNow(), looks, segments: segmentsOf(n) };
  }
  const image = pictures_[n], c = corners(n, 0.35 * radius);
  kept.image = $("cameras").checked && image && image.complete && image.naturalWidth ? image : null;
  kept.quad = Float32Array.from([c[0], c[1], c[3], c[2]].flat());
  return kept;
}

function drawAxes(turn) {
  const lines = [["x", "#d6333a"], ["y", "#1c9a4b"], ["z", "#3a6ff0"]].map(([name, colour], i) => {
    const [x, y, z] = [turn[i], turn[3 + i], turn[6 + i]];
    return [z, `<path d="M0 0L${(26 * x).toFixed(1)} ${(26 * y).toFixed(1)}" stroke="${colour}"/><text x="${(36 * x).toFixed(1)}" y="${(36 * y).toFixed(1)}" fill="${colour}">${name}</text>`];
  });
  $("axes").innerHTML = lines.sort((a, b) => b[0] - a[0]).map((entry) => entry[1]).join("");
}

function drawWorld() {
  const from = eye();
  $("motion-scale").style.display = state.colour === "motion" ? "" : "none";
  paint(scene(), from);
  drawAxes(from.turn);
  canvas.dataset.drawn = P;
}

const SHADES = 24;
function drawPicture() {
  const target = $("picture"), n = state.frame;
  // As wide as its column, but never higher than the window has room for: portrait films stay whole.
  const tall = Math.min(0.68 * window.innerHeight, 640, target.parentElement.clientWidth * D.size[1] / D.size[0]);
  target.style.width = `${tall * D.size[0] / D.size[1]}px`;
  target.style.height = `${tall}px`;
  const [width, height, ratio] = sized(target, tall), g = target.getContext("2d");
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, width, height);
  const scale = width / D.size[0], image = pictures_[n];
  if (image && image.complete && image.naturalWidth) g.drawImage(image, 0, 0, width, height);
  const R = D.rotations[n], t = D.positions[n], f = D.intrinsics[0] * D.focal[n], here = places(n);
  // One path for all points of about the same colour: a stroke each would take most of the time.
  const paths = Array.from({ length: SHADES }, () => new Path2D());
  let crosses = 0;
  A.drawn.forEach((p, row) => {
    if (!visible(p, n)) return;
    const i = 2 * (A.offsets[row] + n - A.first[row]), x = (A.tracks[i] / 16 + 0.5) * scale, y = (A.tracks[i + 1] / 16 + 0.5) * scale;
    const path = paths[Math.min(SHADES - 1, Math.floor(SHADES * share[p]))];
    path.moveTo(x + 3.2, y);
    path.arc(x, y, 3.2, 0, 7);
    const X = [0, 1, 2].map((d) => here[3 * p + d] - t[d]);
    const Y = [0, 1, 2].map((j) => R[0][j] * X[0] + R[1][j] * X[1] + R[2][j] * X[2]);
    const z = Math.max(Y[2], 0.01), bend = f * (1 + D.radial * (Y[0] * Y[0] + Y[1] * Y[1]) / (z * z));
    const u = (bend * Y[0] / z + D.intrinsics[1] + 0.5) * scale, v = (bend * Y[1] / z + D.intrinsics[2] + 0.5) * scale;
    path.moveTo(u - 2.5, v - 2.5); path.lineTo(u + 2.5, v + 2.5); path.moveTo(u - 2.5, v + 2.5); path.lineTo(u + 2.5, v - 2.5);
    crosses++;
  });
  g.lineWidth = 1.3;
  paths.forEach((path, i) => { g.strokeStyle = `rgb(${rgb(...hue((i + 0.5) / SHADES)).join(" ")})`; g.stroke(path); });
  target.dataset.drawn = crosses;
}

function draw() {
  slider.value = state.frame;
  $("number").textContent = `${state.frame + 1} of ${N}`;
  drawWorld();
  drawPicture();
}

let last = 0;
function tick(now) {
  if (!state.playing) return;
  const pause = state.frame + 1 < N ? D.times[state.frame + 1] - D.times[state.frame] : 1 / D.rate;
  if (now - last > 1000 * pause) { last = now; state.frame = (state.frame + 1) % N; draw(); }
  requestAnimationFrame(tick);
}
$("play").onclick = () => {
  state.playing = !state.playing;
  $("play").textContent = state.playing ? "Pause" : "Play";
  if (state.playing) requestAnimationFrame(tick);
};
slider.oninput = () => { state.frame = Number(slider.value); draw(); };
$("colour").onchange = (e) => { state.colour = e.target.value; draw(); };
for (const id of ["trails", "cameras"]) $(id).onchange = draw;
$("through").onclick = () => {
  const R = D.rotations[state.frame], t = D.positions[state.frame];
  const forward = [R[0][2], R[1][2], R[2][2]];
  state.yaw = Math.atan2(-forward[0], forward[2]);
  state.pitch = Math.asin(Math.max(-1, Math.min(1, forward[1])));
  state.zoom = 4 * radius / Math.max(Math.hypot(...t.map((v, d) => v - centre[d])), 0.1 * radius);
  state.pan = [0, 0];
  draw();
};

function save(link, name, kind, text) {
  URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([text], { type: kind }));
  link.download = name;
}
$("save-ply").onclick = (e) => {
  const head = ["ply", "format ascii 1.0", `element vertex ${P}`, ..."xyz".split("").map((d) => `property float ${d}`),
    ...["red", "green", "blue"].map((c) => `property uchar ${c}`), "end_header"];
  const rows = ids.map((p) => [...Array.from(at(state.frame, p), (v) => v.toFixed(6)), ...A.colours.subarray(3 * p, 3 * p + 3)].join(" "));
  save(e.currentTarget, `points-${state.frame + 1}.ply`, "text/plain", [...head, ...rows, ""].join("\n"));
};
$("save-path").onclick = (e) => {
  const rows = D.positions.map((t, n) => [n, D.times[n], ...t, ...D.rotations[n].flat()].join(","));
  const names = "frame,seconds,x,y,z," + [1, 2, 3].flatMap((i) => [1, 2, 3].map((j) => `r${i}${j}`)).join(",");
  save(e.currentTarget, "camera-path.csv", "text/csv", [names, ...rows, ""].join("\n"));
};
$("save-view").onclick = (e) => { e.currentTarget.href = canvas.toDataURL(); e.currentTarget.download = `view-${state.frame + 1}.png`; };

// A film of one turn of the view, the frames going on meanwhile.
const TURN = 72, SIDE = 480, HUNDREDTHS = 6; // pictures, pixels of the longer side, time of a picture
let recording = null;
async function record(pictures = TURN) {
  const mine = recording = {}, before = { yaw: state.yaw, frame: state.frame }, taken = [];
  const scale = Math.min(1, SIDE / Math.max(canvas.width, canvas.height));
  const copy = document.createElement("canvas");
  copy.width = Math.round(scale * canvas.width);
  copy.height = Math.round(scale * canvas.height);
  const g = copy.getContext("2d", { willReadFrequently: true });
  for (let i = 0; i < pictures && recording === mine; i++) {
    state.yaw = before.yaw + 2 * Math.PI * i / pictures;
    state.frame = Math.floor(before.frame + i * Math.max(1, N / pictures)) % N;
    $("record").textContent = `Stop (${Math.round(100 * i / pictures)} %)`;
    if (pictures_[state.frame]) await pictures_[state.frame].decode().catch(() => null);
    draw();
    g.drawImage(canvas, 0, 0, copy.width, copy.height);
    taken.push(g.getImageData(0, 0, copy.width, copy.height).data);
    await new Promise((go) => setTimeout(go));
  }
  Object.assign(state, before);
  draw();
  $("record").textContent = "Make a film of a turn (GIF)";
  if (recording !== mine) return;
  recording = null;
  const link = $("recorded");
  save(link, "turn.gif", "image/gif", gifOf(taken, copy.width, copy.height, HUNDREDTHS));
  link.textContent = "turn.gif";
  link.hidden = false;
}
$("record").onclick = () => { if (recording) recording = null; else record(); };

const fingers = new Map();
canvas.onpointerdown = (e) => { canvas.setPointerCapture(e.pointerId); fingers.set(e.pointerId, [e.clientX, e.clientY]); };
canvas.onpointerup = canvas.onpointercancel = (e) => { fingers.delete(e.pointerId); };
const apart = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };
canvas.onpointermove = (e) => {
  const was = fingers.get(e.pointerId);
  if (!was) return;
  const before = fingers.size === 2 ? apart() : 0, dx = e.clientX - was[0], dy = e.clientY - was[1];
  fingers.set(e.pointerId, [e.clientX, e.clientY]);
  if (fingers.size === 2) { zoomBy(apart() / Math.max(before, 1)); return; }
  if (e.shiftKey) state.pan = [state.pan[0] + dx, state.pan[1] + dy];
  else { state.yaw -= dx * 0.008; state.pitch = Math.max(-1.5, Math.min(1.5, state.pitch - dy * 0.008)); }
  drawWorld();
};
function zoomBy(factor) { state.zoom = Math.max(0.02, Math.min(20, state.zoom * factor)); drawWorld(); }
canvas.addEventListener("wheel", (e) => { e.preventDefault(); zoomBy(Math.exp(-e.deltaY * 0.001)); }, { passive: false });
canvas.onkeydown = (e) => {
  const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] }[e.key];
  if (!step && e.key !== "+" && e.key !== "-") return;
  e.preventDefault();
  if (!step) { zoomBy(e.key === "+" ? 1.1 : 1 / 1.1); return; }
  state.yaw += step[0];
  state.pitch = Math.max(-1.5, Math.min(1.5, state.pitch + step[1]));
  drawWorld();
};
window.onresize = draw;
draw();
document.body.dataset.ready = "yes";
