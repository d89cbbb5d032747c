"use strict";
// The table of predictions: search, sort, pages.
(() => {
  const PAGE = 25;
  const { make, compare, sortButton } = window.coset;
  const significant = (value) => {
    if (value === null || value === undefined) return "–";
    const text = Math.abs(value) >= 1e6 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
    return text.replace("-", "−");
  };

  const holder = document.getElementById("prediction-table");
  const data = JSON.parse(document.getElementById("table-data")?.textContent ?? "null");
  if (!holder || !data) return;
  let target = 0, page = 0, order = null, found = data.rows;

  const columns = [
    { name: "id", value: (row) => row[0], style: "text" },
    ...(data.smiles ? [{ name: "SMILES", value: (row) => row[1], style: "smiles text" }] : []),
    { name: "split", value: (row) => row[2] },
    ...(data.targets.length ? [
      { name: "true", value: (row) => row[3 + 2 * target], number: true },
      { name: "predicted", value: (row) => row[4 + 2 * target], number: true },
      { name: "error", value: (row) => row[3 + 2 * target] === null || row[4 + 2 * target] === null ? null : row[4 + 2 * target] - row[3 + 2 * target], number: true },
    ] : []),
  ];

  const search = make("input", { type: "search", placeholder: "id or SMILES", autocomplete: "off", spellcheck: "false" });
  const split = make("select", {}, make("option", { value: "" }, "all"));
  [...new Set(data.rows.map((row) => row[2]))].forEach((name) => split.append(make("option", { value: name }, name)));
  const headers = columns.map((column) => make("th", { scope: "col", ...(column.number ? { class: "number" } : {}) }, column.name));
  const body = make("tbody");
  const table = make("table", {}, make("caption"), make("thead", {}, make("tr", {}, ...headers)), body);
  const before = make("button", { type: "button" }, "Previous");
  const after = make("button", { type: "button" }, "Next");
  const told = make("span", { "aria-live": "polite" });
  holder.append(
    make("div", { class: "controls" }, make("label", { class: "whole" }, "Search", search), make("label", {}, "Split", split)),
    make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Predictions" }, table),
    make("div", { class: "pager" }, before, after, told),
  );

  function show() {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    body.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map((row) => make("tr", {}, ...columns.map((column) => {
      const value = column.value(row);
      return make("td", { class: column.number ? "number" : column.style ?? "" }, column.number ? significant(value) : value);
    }))));
    table.caption.textContent = data.targets.length > 1 ? `Target: ${data.targets[target]}` : "";
    table.caption.hidden = data.targets.length < 2;
    told.textContent = found.length ? `${found.length} rows, page ${page + 1} of ${pages}` : "nothing found";
    before.disabled = page === 0;
    after.disabled = page === pages - 1;
  }
  function select() {
    const text = search.value.trim().toLowerCase();
    found = data.rows.filter((row) => (!split.value || row[2] === split.value) && (!text || row[0].toLowerCase().includes(text) || row[1].toLowerCase().includes(text)));
    if (order) found.sort((a, b) => compare(order.column.value(a), order.column.value(b), order.direction));
    page = 0;
    show();
  }
  headers.forEach((header, i) => sortButton(header, (direction) => { order = { column: columns[i], direction }; select(); }));
  search.addEventListener("input", select);
  split.addEventListener("change", select);
  before.addEventListener("click", () => { page -= 1; show(); });
  after.addEventListener("click", () => { page += 1; show(); });
  document.addEventListener("target", (event) => { target = event.detail; select(); });
  show();
})();
