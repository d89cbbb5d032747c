"use strict";
// What every page shares: figures in the colours of the page, the choice of a target, copy buttons.
(() => {
  // What draws the figures is packed in the page: once it is unpacked, `coset.drawing` gives way to it.
  async function unpack(holder) {
    const bytes = Uint8Array.from(atob(holder.textContent), (character) => character.charCodeAt(0));
    const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(unpacked).text();
    document.head.append(script);
    holder.remove();
  }
  const packed = document.getElementById("plotly");
  const drawing = packed ? unpack(packed) : Promise.resolve();
  window.coset = { drawing };

  const figures = JSON.parse(document.getElementById("figures").textContent);
  const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function theme() {
    const axis = { gridcolor: token("--line"), zerolinecolor: token("--line"), linecolor: token("--line"), automargin: true, title: { standoff: 8, font: { size: 12.5 } } };
    return {
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: token("--sans"), size: 12.5, color: token("--ink-2") },
        hoverlabel: { bgcolor: token("--panel"), bordercolor: token("--line-strong"), font: { color: token("--ink"), family: token("--sans") } },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: token("--line-strong"), activecolor: token("--accent") },
        xaxis: axis,
        yaxis: axis,
      },
    };
  }

  function layoutOf(figure) {
    return {
      height: 300,
      margin: { l: 48, r: 12, t: 30, b: 44 },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)" },
      ...figure.layout,
      template: theme(),
    };
  }

  function drawPlot(element) {
    const figure = figures[element.dataset.figure];
    if (!figure || element.dataset.drawn) return;
    element.dataset.drawn = "true";
    const layout = layoutOf(figure);
    element.style.minHeight = `${layout.height}px`;
    const name = element.getAttribute("aria-label").replace(/[^\w-]+/g, "-").toLowerCase();
    Plotly.newPlot(element, figure.data, layout, {
      responsive: true,
      displaylogo: false,
      displayModeBar: "hover",
      modeBarButtons: [["toImage", "resetScale2d"]],
      toImageButtonOptions: { format: "svg", filename: name },
    });
  }

  const plots = () => [...document.querySelectorAll(".plot[data-figure]")];
  function drawVisible() {
    plots().filter((element) => !element.closest("[hidden]")).forEach(drawPlot);
  }
  function retheme() {
    plots().filter((element) => element.dataset.drawn).forEach((element) => Plotly.relayout(element, { template: theme() }));
  }

  const choice = document.getElementById("target");
  choice?.addEventListener("change", () => {
    document.querySelectorAll(".by-target").forEach((part) => { part.hidden = part.dataset.target !== choice.value; });
    drawing.then(drawVisible);
    document.dispatchEvent(new CustomEvent("target", { detail: Number(choice.value) }));
  });

  document.querySelectorAll("button.copy").forEach((button) => {
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch {
        // Some browsers refuse the clipboard to a file: leave the text selected, ready for the keyboard.
        getSelection().selectAllChildren(source);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  });

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", retheme);
  addEventListener("beforeprint", () => { document.documentElement.classList.add("printing"); retheme(); });
  addEventListener("afterprint", () => { document.documentElement.classList.remove("printing"); retheme(); });
  drawing.then(drawVisible, () => {
    const told = "This browser cannot unpack the figures: open the page in one of 2023 or later. Numbers and tables are whole.";
    plots().forEach((element) => { element.textContent = told; element.classList.add("note"); });
  });
})();
