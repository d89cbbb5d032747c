"use strict";
// Where a subgraph network looks: two drawings of one molecule, inside the copy of the marked root and across copies.
(() => {
  const records = JSON.parse(document.getElementById("attention-data")?.textContent ?? "[]");
  const viewer = document.getElementById("attention-viewer");
  if (!viewer || !records.length) return;

  const BOND = 80, RADIUS = 11, RING = 16, GAZE = 22, MARGIN = 40, SCALE = 1000;
  const KINDS = {
    internal: ["Inside the copy", "which neighbours each atom looks at"],
    external: ["Across copies", "which copies the root’s copy looks into, by their roots"],
  };
  const SVG = "http://www.w3.org/2000/svg";
  const node = (space, tag, attributes = {}, ...children) => {
    const element = space ? document.createElementNS(space, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const html = (tag, attributes, ...children) => node(null, tag, attributes, ...children);
  const svg = (tag, attributes, ...children) => node(SVG, tag, attributes, ...children);
  const options = (names) => names.map((name, i) => html("option", { value: i }, name));
  const percent = (share) => `${Math.round(100 * share)}\u00a0%`;

  // Wide molecules lie down, so that they fill the drawing.
  function placed(record) {
    const length = (i, j) => Math.hypot(record.atoms[i].x - record.atoms[j].x, record.atoms[i].y - record.atoms[j].y);
    const lengths = record.bonds.map(([i, j]) => length(i, j)).filter((l) => l > 0).sort((a, b) => a - b);
    const scale = BOND / (lengths[lengths.length >> 1] ?? 1);
    const flip = spread(record.atoms, "y") > spread(record.atoms, "x");
    return record.atoms.map(({ x, y }) => flip ? { x: y * scale, y: x * scale } : { x: x * scale, y: -y * scale });
  }
  function spread(points, axis) {
    const values = points.map((point) => point[axis]);
    return Math.max(...values) - Math.min(...values);
  }

  // State: what is drawn. `chosen` is the looking atom of the list (null: all), `hovered` the one under the pointer.
  const state = { record: 0, layer: 0, root: 0, chosen: null, hovered: null, tint: true };
  const molecule = html("select", {}, ...options(records.map((r) => r.note ? `${r.id} (${r.note})` : r.id)));
  const layer = html("select"), root = html("select"), looking = html("select");
  const tint = html("input", { type: "checkbox", checked: "" });
  const tintLabel = html("label", { class: "check" }, tint, html("span"));
  const views = html("div", { class: "views" });
  const legend = html("p", { class: "legend" });
  const labelled = (text, control, style = "") => html("label", { class: style }, text, control);
  viewer.append(
    html("div", { class: "controls" }, labelled("Molecule", molecule, "whole"), labelled("Layer", layer), labelled("Root", root), labelled("Looking atom", looking), tintLabel),
    views, legend,
  );
  let panels = [];

  const record = () => records[state.record];
  const name = (i) => `${record().atoms[i].symbol || "node "}${i + 1}`;
  const gaze = () => state.hovered ?? state.chosen;

  function weights(kind) {
    const layers = record().layers, last = layers.length;
    const chosen = state.layer < last ? [layers[state.layer]] : layers;
    const rows = chosen.map((entry) => entry[kind]).filter(Boolean);
    // The mean over layers, if that is asked for.
    return (row, edge) => rows.reduce((sum, table) => sum + table[row][edge], 0) / (SCALE * Math.max(1, rows.length));
  }

  // How much the atom at the end of an edge looks along it: inside the copy of the root, or from the root's copy.
  function look(kind) {
    const weight = weights(kind), atoms = record().atoms.length;
    if (kind === "internal") return (edge) => weight(state.root, edge);
    return (edge) => {
      if (record().edges[edge][1] !== state.root) return 0;
      if (gaze() !== null) return weight(gaze(), edge);
      let sum = 0;
      for (let v = 0; v < atoms; v += 1) sum += weight(v, edge);
      return sum / atoms;
    };
  }

  function build() {
    const { atoms, layers, importance } = record();
    const names = atoms.map((_, i) => name(i));
    layer.replaceChildren(...options([...layers.map((_, i) => `${i + 1}`), ...(layers.length > 1 ? ["mean"] : [])]));
    state.layer = Math.min(state.layer, layers.length);
    layer.value = state.layer;
    root.replaceChildren(...options(names));
    looking.replaceChildren(html("option", { value: "" }, "all"), ...options(names));
    state.root = Math.min(state.root, atoms.length - 1);
    state.chosen = state.hovered = null;
    tintLabel.hidden = !importance.length;
    tintLabel.lastChild.textContent = `Tint by ${record().importance_name}`;
    // A list of one entry has nothing to choose.
    for (const list of [molecule, layer, root, looking]) list.parentElement.hidden = list.options.length < 2 || (list === looking && atoms.length < 2);
    const kinds = Object.keys(KINDS).filter((kind) => layers.some((entry) => entry[kind]));
    panels = kinds.map(panel);
    views.replaceChildren(...panels.map((p) => p.figure));
    update();
  }

  function panel(kind) {
    const { atoms, bonds, edges } = record();
    const place = placed(record());
    const xs = place.map((p) => p.x), ys = place.map((p) => p.y);
    const [left, top] = [Math.min(...xs) - MARGIN, Math.min(...ys) - MARGIN];
    // Small molecules are not blown up beyond a readable size.
    const width = Math.max(Math.max(...xs) + MARGIN - left, 380), height = Math.max(Math.max(...ys) + MARGIN - top, 280);
    const offset = [(Math.max(...xs) + MARGIN - left - width) / 2, (Math.max(...ys) + MARGIN - top - height) / 2];
    const picture = svg("svg", { class: kind, viewBox: `${left + offset[0]} ${top + offset[1]} ${width} ${height}`, role: "group", "aria-label": KINDS[kind][0] });
    for (const bond of bonds) picture.append(...lines(place, bond));
    const looks = edges.map(([source, target]) => source === target ? null : half(place[target], place[source]));
    const selves = edges.map(([source, target]) => source === target ? arc(place[target]) : null);
    const percents = edges.map(([source, target]) => svg("text", { class: "percent", ...beside(place[target], place[source], source === target) }));
    const discs = place.map(({ x, y }) => svg("circle", { class: "disc", cx: x, cy: y, r: RADIUS }));
    const mark = svg("circle", { class: "root-mark", r: RADIUS + 1 });
    const gazeMark = svg("circle", { class: "gaze", r: GAZE });
    const symbols = place.map(({ x, y }, i) => symbol(x, y, i));
    const hits = place.map(({ x, y }, i) => hit(x, y, i));
    picture.append(...looks.filter(Boolean), ...discs, ...selves.filter(Boolean), mark, gazeMark, ...symbols, ...percents, ...hits);
    // Letters and discs keep their size on the screen, however small the molecule is drawn.
    new ResizeObserver(([{ contentRect }]) => {
      const scale = Math.min(contentRect.width / width, contentRect.height / height) || 1;
      picture.style.setProperty("--unit", Math.min(Math.max(1 / scale, 1), 2).toFixed(3));
    }).observe(picture);
    const told = html("p", { class: "told", "aria-live": "polite" });
    const figure = html("figure", { class: "view" }, html("figcaption", {}, KINDS[kind][0], html("span", {}, KINDS[kind][1])), picture, told);
    return { kind, figure, place, looks, selves, percents, discs, mark, gazeMark, hits, told };
  }

  // Element and number; other graphs have a number only.
  function symbol(x, y, i) {
    const element = record().atoms[i].symbol;
    if (!element) return svg("text", { class: "symbol", x, y }, String(i + 1));
    return svg("text", { class: "symbol", x, y }, element, svg("tspan", { class: "ordinal" }, String(i + 1)));
  }
  // A bond as one, two or three thin lines.
  function lines(place, [i, j, order]) {
    const a = place[i], b = place[j], length = Math.hypot(b.x - a.x, b.y - a.y) || 1;
    const across = { x: (a.y - b.y) / length, y: (b.x - a.x) / length };
    return Array.from({ length: order }, (_, k) => {
      const shift = 4.8 * (k - (order - 1) / 2);
      return svg("line", { class: "bond", x1: a.x + across.x * shift, y1: a.y + across.y * shift, x2: b.x + across.x * shift, y2: b.y + across.y * shift });
    });
  }
  function half(from, to) {
    const length = Math.hypot(to.x - from.x, to.y - from.y) || 1;
    const at = (distance) => ({ x: from.x + (to.x - from.x) * distance / length, y: from.y + (to.y - from.y) * distance / length });
    const start = at(RADIUS), end = at(Math.max(length / 2, RADIUS));
    return svg("line", { class: "look", x1: start.x, y1: start.y, x2: end.x, y2: end.y });
  }
  function arc({ x, y }) {
    return svg("circle", { class: "self", cx: x, cy: y, r: RING, pathLength: 100, transform: `rotate(-90 ${x} ${y})` });
  }
  function beside(from, to, itself) {
    if (itself) return { x: from.x, y: from.y - GAZE - 8 };
    const length = Math.hypot(to.x - from.x, to.y - from.y) || 1;
    const across = { x: (from.y - to.y) / length, y: (to.x - from.x) / length };
    return { x: from.x + 0.5 * (to.x - from.x) + 13 * across.x, y: from.y + 0.5 * (to.y - from.y) + 13 * across.y };
  }
  function hit(x, y, i) {
    const circle = svg("circle", { class: "hit", cx: x, cy: y, r: 24, tabindex: 0, role: "button", "data-atom": i });
    const hover = (atom) => () => { state.hovered = atom; update(); };
    circle.addEventListener("click", () => { state.root = i; update(); });
    circle.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      state.root = i;
      update();
    });
    circle.addEventListener("pointerenter", (event) => { if (event.pointerType !== "touch") hover(i)(); });
    circle.addEventListener("pointerleave", hover(null));
    circle.addEventListener("focus", () => { if (circle.matches(":focus-visible")) hover(i)(); });
    circle.addEventListener("blur", hover(null));
    return circle;
  }

  function update() {
    root.value = state.root;
    looking.value = state.chosen ?? "";
    panels.forEach(show);
    const { importance, importance_name: what } = record();
    const keys = [html("span", {}, html("span", { class: "key root" }), `root: ${name(state.root)}`), html("span", {}, html("span", { class: "key gaze-key" }), `looking: ${gaze() === null ? "all atoms" : name(gaze())}`)];
    if (importance.length && state.tint) {
      const signed = importance.some((value) => value < 0);
      keys.push(html("span", {}, html("span", { class: `key tint${signed ? " signed" : ""}` }), `${what}, ${shown(Math.min(...importance))} to ${shown(Math.max(...importance))}`));
    }
    legend.replaceChildren(...keys, html("span", {}, "Atoms are numbered along the SMILES, from 1."));
  }
  const shown = (value) => String(Number(value.toPrecision(3))).replace("-", "−");

  function show({ kind, place, looks, selves, percents, discs, mark, gazeMark, hits, told }) {
    const { edges } = record(), share = look(kind), eye = gaze();
    const looker = kind === "internal" ? eye : state.root;
    const list = [];
    edges.forEach(([source, target], edge) => {
      const value = share(edge);
      const active = looker === null || target === looker;
      const opacity = !value ? 0 : active ? 0.35 + 0.65 * value : 0.12;
      looks[edge]?.setAttribute("stroke-width", (1 + 15 * value).toFixed(2));
      looks[edge]?.setAttribute("stroke-opacity", opacity.toFixed(3));
      selves[edge]?.setAttribute("stroke-dasharray", `${(100 * value).toFixed(1)} 200`);
      selves[edge]?.setAttribute("stroke-opacity", opacity.toFixed(3));
      const numbered = looker !== null && target === looker;
      percents[edge].textContent = numbered ? percent(value) : "";
      if (numbered) list.push([source, value]);
    });
    move(mark, place[state.root]);
    gazeMark.setAttribute("visibility", eye === null ? "hidden" : "visible");
    if (eye !== null) move(gazeMark, place[eye]);
    paint(discs);
    hits.forEach((circle, i) => {
      circle.setAttribute("aria-label", `${name(i)}: make it the root`);
      circle.setAttribute("aria-pressed", i === state.root);
    });
    told.textContent = sentence(kind, eye, list.sort((a, b) => b[1] - a[1]));
  }
  function move(circle, { x, y }) {
    circle.setAttribute("cx", x);
    circle.setAttribute("cy", y);
  }
  function paint(discs) {
    const { importance } = record();
    const most = Math.max(...importance.map(Math.abs), 1e-12);
    discs.forEach((disc, i) => {
      const share = importance.length && state.tint ? importance[i] / most : 0;
      disc.style.fill = share ? `color-mix(in srgb, var(${share < 0 ? "--bad" : "--accent"}) ${Math.round(Math.abs(share) * 75)}%, var(--panel))` : "";
    });
  }

  function sentence(kind, eye, list) {
    const at = name(state.root);
    if (kind === "internal") {
      if (eye === null) return `The copy rooted at ${at}, all atoms at once. Point at one, or choose it above, for its numbers.`;
      const where = list.map(([i, share]) => `${i === eye ? "itself" : name(i)} (${percent(share)})`);
      return `In the copy rooted at ${at}, ${name(eye)} looks at ${where.join(", ") || "nothing"}.`;
    }
    const where = list.map(([i, share]) => `${i === state.root ? "its own copy" : `the copy rooted at ${name(i)}`} (${percent(share)})`);
    const who = eye === null ? "the average atom" : name(eye);
    return `From the copy rooted at ${at}, ${who} looks into ${where.join(", ") || "nothing"}.`;
  }

  molecule.addEventListener("change", () => { state.record = Number(molecule.value); state.root = 0; build(); });
  layer.addEventListener("change", () => { state.layer = Number(layer.value); update(); });
  root.addEventListener("change", () => { state.root = Number(root.value); update(); });
  looking.addEventListener("change", () => { state.chosen = looking.value === "" ? null : Number(looking.value); update(); });
  tint.addEventListener("change", () => { state.tint = tint.checked; update(); });
  state.layer = record().layers.length - 1;
  build();
})();
