// Controls that change nothing when they are used: their names. Read by test_pages.py as an asynchronous script.
const finish = arguments[0];
const shown = () => [
  document.body.innerText,
  ...[...document.querySelectorAll(".plot")].map((plot) => JSON.stringify((plot.data ?? []).map((t) => [t.visible, t.opacity, t.marker?.color, t.intensity, t.x?.length]))),
  ...[...document.querySelectorAll("svg [fill-opacity], svg [opacity], svg [stroke-width]")].map((e) => e.outerHTML.length + (e.getAttribute("stroke-width") ?? "")),
  ...[...document.querySelectorAll("main svg")].slice(0, 60).map((e) => e.outerHTML),
  ...[...document.querySelectorAll("canvas")].map((canvas) => canvas.toDataURL()),
].join("\n");
const settled = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 120))));
const use = {
  SELECT: (e) => { e.selectedIndex = (e.selectedIndex + 1) % e.options.length; },
  checkbox: (e) => { e.checked = !e.checked; },
  range: (e) => { e.value = Number(e.value) === Number(e.max) ? e.min : e.max; },
  search: (e) => { e.value = "no row holds this"; },
};
(async () => {
  const idle = [];
  for (const control of document.querySelectorAll("select, input, main button:not(.copy)")) {
    if (!control.offsetParent || control.disabled || control.closest(".modebar, th")) continue;
    const before = shown();
    let same = true;
    // Rows may be in the order of a column already: a second click turns it round. Of a list one choice may look as another.
    for (let tries = 0; same && tries < Math.max(2, control.options?.length ?? 0); tries++) {
      if (control.tagName === "BUTTON") control.click();
      else {
        (use[control.type] ?? use[control.tagName])(control);
        control.dispatchEvent(new Event("input", { bubbles: true }));
        control.dispatchEvent(new Event("change", { bubbles: true }));
      }
      await settled();
      same = shown() === before;
    }
    if (control.id === "play") control.click(); // or the frames go on while others are tried
    if (same) idle.push(control.id || control.closest("label")?.textContent || control.textContent);
    if (control.type === "search") { control.value = ""; control.dispatchEvent(new Event("input", { bubbles: true })); await settled(); }
  }
  finish(idle);
})();
