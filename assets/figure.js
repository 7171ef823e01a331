// What a picture does: `showFigure` runs once for each (ui/figure.py). element, props and watch are Gradio's; `select`
// takes the cell that was clicked.
"use strict";
{
  const NARROW = 460;

  // "@helpful", "@ink/40" and "@@conflict" become the colours that theme.css gives them at this moment.
  function resolve(node, css) {
    if (Array.isArray(node)) return node.map((item) => resolve(item, css));
    if (node && typeof node === "object") {
      return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, resolve(value, css)]));
    }
    const token = typeof node === "string" && node.match(/^@(@?)([a-z0-9-]+)(?:\/(\d+))?$/);
    if (!token) return node;
    const value = css.getPropertyValue("--ms-" + token[2]).trim();
    if (!value) return node;
    if (token[1]) {
      const stops = value.split(",").map((stop) => stop.trim());
      return stops.map((stop, i) => [i / (stops.length - 1), stop]);
    }
    return token[3] ? value + Math.round(2.55 * token[3]).toString(16).padStart(2, "0") : value;
  }

  const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

  function colourAt(trace, value) {
    let share = Math.min(1, Math.max(0, (value - trace.zmin) / (trace.zmax - trace.zmin)));
    if (trace.reversescale) share = 1 - share;
    const stops = trace.colorscale;
    const i = Math.min(stops.length - 2, Math.floor(share * (stops.length - 1)));
    const [a, b] = [channels(stops[i][1]), channels(stops[i + 1][1])];
    const within = share * (stops.length - 1) - i;
    return a.map((channel, k) => channel + within * (b[k] - channel));
  }

  // Black or white, whichever contrasts more (WCAG luminance; 0.179 is where both are equal).
  function inkOn(rgb) {
    const [r, g, b] = rgb.map((c) => (c / 255 <= 0.04045 ? c / 3294.6 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000000" : "#ffffff";
  }

  // The numbers in a heat map's cells, unless the cells are too small for the longest of them.
  function cellValues(trace, layout, css) {
    const margin = layout.margin;
    const cell = (layout.width - margin.l - margin.r) / trace.x.length;
    const row = (layout.height - margin.t - margin.b) / trace.y.length;
    const longest = Math.max(...trace.text.flat().map((text) => text.length));
    if (cell < 7.3 * longest + 5 || row < 15) return [];
    const found = { x: [], y: [], text: [], color: [] };
    trace.z.forEach((line, i) =>
      line.forEach((value, j) => {
        if (value === null) return;
        found.x.push(trace.x[j]);
        found.y.push(trace.y[i]);
        found.text.push(trace.text[i][j]);
        found.color.push(inkOn(colourAt(trace, value)));
      }),
    );
    const font = { family: css.getPropertyValue("--font-mono"), size: 12, color: found.color };
    return [{ type: "scatter", mode: "text", x: found.x, y: found.y, text: found.text, textfont: font, hoverinfo: "skip" }];
  }

  function merged(layout, patch) {
    const result = { ...layout };
    for (const [key, value] of Object.entries(patch || {})) {
      const deep = value && typeof value === "object" && !Array.isArray(value);
      result[key] = deep ? { ...layout[key], ...value } : value;
    }
    return result;
  }

  function dressed(layout, css) {
    const font = { family: css.getPropertyValue("--font"), size: 12, color: "@ink2" };
    const axis = { fixedrange: true, zeroline: false, ticks: "", tickangle: 0, automargin: false, ticklabelstandoff: 4,
      gridcolor: "@grid",
      tickfont: { color: "@ink3", size: 12 } };
    const hoverlabel = { bgcolor: "@ink", bordercolor: "@ink", align: "left", font: { ...font, size: 12.5, color: "@paper" } };
    const clear = "rgba(0,0,0,0)";
    const result = { font, hoverlabel, hovermode: "closest", dragmode: false, showlegend: false, paper_bgcolor: clear,
      plot_bgcolor: clear, ...layout };
    for (const key of ["xaxis", "yaxis"]) {
      const title = { standoff: 6, font: { size: 12, color: "@ink2" }, ...(result[key] || {}).title };
      result[key] = { ...axis, ...result[key], title };
    }
    return resolve(result, css);
  }

  // One picture a frame: the first is seen before the last is drawn. On a page that is not seen the others wait.
  const waitingPictures = [];
  function drawNext() {
    try {
      waitingPictures[0]();
    } finally {
      waitingPictures.shift();
      if (waitingPictures.length) requestAnimationFrame(() => setTimeout(drawNext));
    }
  }
  function drawInTurn(draw) {
    if (waitingPictures.push(draw) === 1) setTimeout(drawNext);
  }

  window.showFigure = (element, props, watch, select) => {
    const plot = element.querySelector(".plot");
    const frame = element.querySelector("figure");
    let last = null; // the picture on screen, kept while a new one is on its way
    let text = ""; // the same as it came
    let width = 0;
    let waiting = false;

    function measureAndDraw() {
      width = plot.clientWidth; // lays the page out, so not at every move
      draw();
    }

    function draw() {
      waiting = false;
      if (props.value && props.value !== text) last = JSON.parse((text = props.value));
      if (!last || !width || !window.Plotly) return;
      const css = getComputedStyle(document.body);
      const layout = dressed({ ...merged(last.figure.layout, width < NARROW ? last.narrow : {}), width }, css);
      const data = resolve(last.figure.data, css);
      const numbers = data.filter((trace) => trace.meta === "values").flatMap((trace) => cellValues(trace, layout, css));
      frame.setAttribute("aria-label", last.label);
      window.Plotly.react(plot, [...data, ...numbers], layout, { displayModeBar: false, responsive: false });
      if (plot.dataset.ready) return;
      plot.dataset.ready = "yes";
      plot.on("plotly_click", ({ points: [point] }) => {
        if (point) select({ x: point.x, y: point.y, name: point.data.name, customdata: point.customdata });
      });
    }

    // A row of pictures that scrolls sideways must be reachable by keyboard.
    function reachable() {
      const row = element.closest(".pairs");
      if (!row) return;
      const scrolls = row.scrollWidth > row.clientWidth + 1;
      const said = { tabindex: "0", role: "group", "aria-label": "Pictures side by side; scrolls" };
      for (const [key, value] of Object.entries(said)) {
        if (scrolls) row.setAttribute(key, value);
        else row.removeAttribute(key);
      }
    }

    element.querySelector(".png").addEventListener("click", (event) => {
      event.preventDefault();
      if (!last) return;
      const filename = last.label.toLowerCase().replace(/[^a-z0-9]+/g, "-").slice(0, 60);
      window.Plotly.downloadImage(plot, { format: "png", scale: 2, width, height: last.figure.layout.height, filename });
    });
    watch("value", () => {
      if (!waiting) drawInTurn(draw);
      waiting = true;
    });
    new MutationObserver(draw).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    new ResizeObserver(() => {
      if (plot.clientWidth !== width) measureAndDraw();
      reachable();
    }).observe(plot);
    document.fonts.ready.then(measureAndDraw);
    measureAndDraw();
  };
}
