// What is wrong with how a page is drawn: lines of text, none if nothing is. Read by test_pages.py.
const wrong = [], wide = document.documentElement.scrollWidth;
if (wide > innerWidth) wrong.push(`the page is ${wide} wide in a window of ${innerWidth}`);
const name = (plot) => plot.closest("figure")?.querySelector("figcaption")?.textContent ?? "a plot";
for (const plot of document.querySelectorAll(".plot")) {
  if (!plot.offsetParent) continue;
  const box = plot.getBoundingClientRect();
  if (!plot.querySelector(".trace, .point, .heatmaplayer image, canvas, .shapelayer path, .contourlayer path")) wrong.push(`${name(plot)}: nothing is drawn`);
  for (const text of plot.querySelectorAll(".xtick text, .ytick text, .xtitle, .ytitle, .x2title, .y2title")) {
    const own = text.getBoundingClientRect();
    if (own.width && (own.left < box.left - 1 || own.right > box.right + 1 || own.top < box.top - 1 || own.bottom > box.bottom + 1))
      wrong.push(`${name(plot)}: "${text.textContent}" lies ${Math.round(Math.max(box.left - own.left, own.right - box.right, box.top - own.top, own.bottom - box.bottom))} px outside`);
  }
  for (const [key, axis] of Object.entries(plot._fullLayout ?? {})) {
    if (!/^[xy]axis\d*$/.test(key) || axis.visible === false) continue;
    const ticks = [...plot.querySelectorAll(`.${key[0]}tick text`)].filter((tick) => tick.textContent.trim());
    if (axis.type === "log" && /R²|r2/.test(name(plot) + (axis.title?.text ?? ""))) wrong.push(`${name(plot)}: R² on a logarithmic axis`);
    if (/loss/i.test(name(plot) + (axis.title?.text ?? "")) && key === "yaxis" && !ticks.length) wrong.push(`${name(plot)}: a loss axis without a number`);
  }
}
for (const image of document.querySelectorAll("img")) if (!image.naturalWidth) wrong.push(`an image without pixels: ${image.alt}`);
if (!document.querySelector(".verdict")?.textContent.trim()) wrong.push("no verdict");
return wrong;
