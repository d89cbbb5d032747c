"use strict";
// A complex in space, coloured by what a subcomplex network attends to: all copies, or one of them.
(() => {
  const records = JSON.parse(document.getElementById("cells-data")?.textContent ?? "[]");
  const viewer = document.getElementById("cells-viewer");
  if (!viewer || !records.length) return;

  const NAMES = ["vertex", "edge", "face"], PLURALS = ["vertices", "edges", "faces"];
  const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const html = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const options = (names) => names.map((name, i) => html("option", { value: i }, name));
  const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;

  const state = { record: 0, marked: null };
  const complex = html("select", {}, ...options(records.map((r) => r.note ? `${r.id} (${r.note})` : r.id)));
  const copy = html("select");
  const plot = html("div", { class: "cells-plot", role: "img", "aria-label": "The complex, to be turned" });
  const told = html("p", { class: "told", "aria-live": "polite" });
  const labelled = (text, control, style = "") => html("label", { class: style }, text, control);
  const copyLabel = labelled("Copy", copy, "whole");
  const complexLabel = labelled("Complex", complex, "whole");
  complexLabel.hidden = records.length < 2;
  viewer.append(html("div", { class: "controls" }, complexLabel, copyLabel), plot, told);

  const record = () => records[state.record];
  const counts = () => [record().positions.length, record().edges.length, record().faces.length];
  const cellsOf = (rank) => rank === 0 ? record().positions.map((_, v) => [v]) : rank === 1 ? record().edges : record().faces;
  const cellName = (rank, i) => {
    if (rank === 0) return `${record().symbols[i] || "vertex "}${i}`;
    return `${NAMES[rank]} ${cellsOf(rank)[i].join("–")}`;
  };
  const middle = (cell) => [0, 1, 2].map((axis) => cell.reduce((sum, v) => sum + record().positions[v][axis], 0) / (cell.length || 1));

  const known = () => record().weights.length > 0 && record().weights[0].length > 0;
  const shares = (sums) => {
    const total = sums.reduce((a, b) => a + b, 0) || 1;
    return sums.map((sum) => sum / total);
  };

  // Shares of the copies, largest first; and of the cells that are looked at, in one copy or in all.
  function shareOfCopies() {
    return shares(record().weights[0].map((_, s) => record().weights.reduce((sum, row) => sum + row[s], 0)));
  }
  function shareOfCells() {
    const sums = record().weights.map((row) => state.marked === null ? row.reduce((a, b) => a + b, 0) : row[state.marked]);
    return shares(sums);
  }

  function fill() {
    const { ranks } = record();
    copyLabel.hidden = !known();
    copy.replaceChildren();
    if (!known()) return;
    const weighed = shareOfCopies();
    const order = weighed.map((_, s) => s).sort((a, b) => weighed[b] - weighed[a]);
    copy.append(html("option", { value: "" }, "all copies"));
    for (const s of order) copy.append(html("option", { value: s }, `${cellName(ranks[1], s)} marked: ${percent(weighed[s])}`));
    copy.value = state.marked ?? "";
  }

  function colours() {
    return { scale: [[0, token("--panel")], [0.15, token("--line-strong")], [1, token("--accent")]], line: token("--line-strong"), ink: token("--ink"), mark: token("--bad") || "#c0392b" };
  }

  // Cells of one rank, with a value each (null: plain).
  function vertices(values, paint) {
    const { positions } = record();
    const [x, y, z] = [0, 1, 2].map((axis) => positions.map((p) => p[axis]));
    const marker = values
      ? { size: 7, color: values, cmin: 0, cmax: Math.max(...values) || 1, colorscale: paint.scale, line: { color: paint.line, width: 1 } }
      : { size: 3, color: paint.line };
    const text = positions.map((_, v) => values ? `${cellName(0, v)}: ${percent(values[v])}` : cellName(0, v));
    return { type: "scatter3d", mode: "markers", x, y, z, marker, text, hoverinfo: "text", showlegend: false };
  }
  function edges(values, paint) {
    const x = [], y = [], z = [], color = [], text = [];
    record().edges.forEach((edge, i) => {
      if (edge.length !== 2) return;
      for (const v of edge) {
        const p = record().positions[v];
        x.push(p[0]); y.push(p[1]); z.push(p[2]);
        color.push(values ? values[i] : 0);
        text.push(values ? `${cellName(1, i)}: ${percent(values[i])}` : cellName(1, i));
      }
      x.push(null); y.push(null); z.push(null); color.push(0); text.push("");
    });
    const line = values
      ? { width: 7, color, cmin: 0, cmax: Math.max(...values) || 1, colorscale: paint.scale }
      : { width: 2, color: paint.line };
    return { type: "scatter3d", mode: "lines", x, y, z, line, text, hoverinfo: values ? "text" : "skip", showlegend: false };
  }
  function faces(values, paint) {
    const [x, y, z] = [0, 1, 2].map((axis) => record().positions.map((p) => p[axis]));
    const i = [], j = [], k = [], owner = [];
    record().faces.forEach((face, f) => {
      for (let c = 1; c + 1 < face.length; c += 1) { i.push(face[0]); j.push(face[c]); k.push(face[c + 1]); owner.push(f); }
    });
    // Plain faces have an intensity too: Plotly forgets to take one back.
    const look = { intensity: owner.map((f) => values ? values[f] : 0), intensitymode: "cell", cmin: 0, cmax: values ? Math.max(...values) || 1 : 1, showscale: false };
    const colorscale = values ? paint.scale : [[0, paint.line], [1, paint.line]];
    return { type: "mesh3d", x, y, z, i, j, k, ...look, colorscale, opacity: values ? 0.9 : 0.35, flatshading: true, hoverinfo: "skip", lighting: { ambient: 0.85, diffuse: 0.25, specular: 0.02 }, showlegend: false };
  }
  // A dot in the middle of every cell that can be marked: what a click takes hold of.
  function handles(rank, weighed, paint) {
    const centres = cellsOf(rank).map(middle);
    const [x, y, z] = [0, 1, 2].map((axis) => centres.map((p) => p[axis]));
    const chosen = centres.map((_, s) => s === state.marked);
    return {
      type: "scatter3d", mode: "markers", name: "handles", x, y, z, customdata: centres.map((_, s) => s), hoverinfo: "text", showlegend: false,
      text: weighed.map((share, s) => `the copy with ${cellName(rank, s)} marked: ${percent(share)}`),
      marker: { size: chosen.map((c) => c ? 12 : 5), color: chosen.map((c) => c ? paint.mark : paint.ink), opacity: 0.8, symbol: "diamond" },
    };
  }

  function traces(paint) {
    const { ranks } = record();
    if (!known()) return [faces(null, paint), edges(null, paint), vertices(null, paint)];
    const copies = shareOfCopies(), cells = shareOfCells();
    const shown = [null, null, null];
    // All copies: marked cells by the weight of their copies. One copy: the cells by what it makes of them.
    if (state.marked === null) shown[ranks[1]] = copies; else shown[ranks[0]] = cells;
    return [faces(shown[2], paint), edges(shown[1], paint), vertices(shown[0], paint), handles(ranks[1], copies, paint)];
  }

  function say() {
    const { ranks } = record();
    const size = counts().map((n, rank) => `${n} ${n === 1 ? NAMES[rank] : PLURALS[rank]}`).join(", ");
    if (!known()) { told.textContent = `${size}.`; return; }
    const top = (values, rank) => values.map((share, i) => [share, i]).sort((a, b) => b[0] - a[0]).slice(0, 3)
      .map(([share, i]) => `${cellName(rank, i)} ${percent(share)}`).join(", ");
    told.textContent = state.marked === null
      ? `${size}. Of the prediction, these copies weigh most: ${top(shareOfCopies(), ranks[1])}.`
      : `The copy with ${cellName(ranks[1], state.marked)} marked weighs ${percent(shareOfCopies()[state.marked])}. In it, these ${PLURALS[ranks[0]]} weigh most: ${top(shareOfCells(), ranks[0])}.`;
  }

  let wired = false;
  function draw() {
    const paint = colours();
    const axis = { visible: false, showspikes: false };
    const layout = {
      height: 520, margin: { l: 0, r: 0, t: 0, b: 0 }, paper_bgcolor: "rgba(0,0,0,0)", uirevision: state.record,
      scene: { xaxis: axis, yaxis: axis, zaxis: axis, aspectmode: "data", dragmode: "orbit" },
      hoverlabel: { bgcolor: token("--panel"), bordercolor: token("--line-strong"), font: { color: token("--ink"), family: token("--sans") } },
    };
    Plotly.react(plot, traces(paint), layout, { responsive: true, displaylogo: false, displayModeBar: false }).then(() => {
      if (wired) return;
      wired = true;
      plot.on("plotly_click", (event) => {
        const point = event.points.find((p) => p.data.name === "handles");
        if (point) choose(point.customdata === state.marked ? null : point.customdata);
      });
    });
    say();
  }
  function choose(marked) {
    state.marked = marked;
    copy.value = marked ?? "";
    draw();
  }

  complex.addEventListener("change", () => { state.record = Number(complex.value); state.marked = null; fill(); draw(); });
  copy.addEventListener("change", () => choose(copy.value === "" ? null : Number(copy.value)));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => window.coset.drawing.then(draw));
  fill();
  window.coset.drawing.then(draw);
})();
