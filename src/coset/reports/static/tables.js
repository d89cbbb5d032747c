"use strict";
// Tables that sort: every one of class `sortable`; `coset` lets others sort theirs alike.
(() => {
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  // Missing values go last, whichever way the rest is sorted.
  function compare(a, b, direction) {
    const missing = (v) => v === null || v === undefined || v === "";
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
    return direction * order;
  }
  function sortButton(header, sort) {
    const button = make("button", { type: "button" });
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const direction = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      header.parentElement.querySelectorAll("[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      sort(direction);
    });
  }

  document.querySelectorAll("table.sortable").forEach((table) => {
    const body = table.tBodies[0];
    table.querySelectorAll("thead th").forEach((header, column) => {
      const key = (row) => {
        const value = row.cells[column].dataset.value;
        return value === undefined ? row.cells[column].textContent.trim() : value === "" ? null : Number(value);
      };
      sortButton(header, (direction) => body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b), direction))));
    });
  });

  // Rows that hold all the words; `-word` leaves rows out.
  document.querySelectorAll("table[data-search]").forEach((table) => {
    const field = make("input", { type: "search", placeholder: "words that rows hold; -word: do not", "aria-label": "Filter the rows" });
    const count = make("span", { class: "quiet", "aria-live": "polite" });
    table.closest(".scroll").before(make("div", { class: "controls" }, field, count));
    const filter = () => {
      const words = field.value.toLowerCase().split(/\s+/).filter((word) => word && word !== "-");
      const rows = [...table.tBodies[0].rows];
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => word.startsWith("-") ? !text.includes(word.slice(1)) : text.includes(word));
      }
      count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
    };
    field.addEventListener("input", filter);
    filter();
  });

  Object.assign(window.coset, { make, compare, sortButton });
})();
