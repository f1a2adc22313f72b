"use strict";
(() => {
  const superscript = (n) => String(n).replace(/[-0-9]/g, (c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]);
  const power = (v) => {
    const n = Math.log10(v);
    if (Math.abs(n - Math.round(n)) > 1e-9) return "";
    return n > -2.5 && n < 3.5 ? String(Number(v.toPrecision(1))) : "10" + superscript(Math.round(n));
  };
  const value = (v) => (v == null ? "–" : Math.abs(v) >= 1e5 || (v !== 0 && Math.abs(v) < 1e-3) ? v.toExponential(2) : String(Number(v.toPrecision(4))));
  const colours = JSON.parse(document.getElementById("colours").textContent);

  const axis = (label, log, ink, rule, size) => ({
    label, size, labelSize: 22, labelGap: 2, gap: 6, stroke: ink,
    font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif",
    grid: { stroke: rule, width: 1, ...(log ? { filter: (_, splits) => splits.map((v) => (power(v) ? v : null)) } : {}) }, ticks: { show: false }, border: { show: true, stroke: rule, width: 1 },
    ...(log ? { values: (_, splits) => splits.map((v) => (v == null ? "" : power(v))) } : {}),
  });

  const options = (chart, width) => {
    const style = getComputedStyle(document.documentElement);
    const [ink, rule] = ["--soft", "--rule"].map((name) => style.getPropertyValue(name).trim());
    const light = !matchMedia("(prefers-color-scheme: dark)").matches;
    const scale = (log) => ({ time: false, distr: log ? 3 : 1 });
    return {
      width, height: Math.round(Math.min(340, Math.max(230, width * 0.5))), padding: [8, 12, 0, 0],
      scales: { x: scale(chart.log[0]), y: scale(chart.log[1]) },
      axes: [axis(chart.labels[0], chart.log[0], ink, rule, 34), axis(chart.labels[1], chart.log[1], ink, rule, 52)],
      hooks: { draw: [dots(chart)] },
      cursor: { drag: { x: false, y: false }, points: { size: 7 } },
      series: [
        { label: chart.labels[0], value: (_, v) => value(v) },
        ...chart.names.map((label, i) => ({
          label, width: 2, spanGaps: true, value: (_, v) => value(v),
          stroke: light ? colours[i % colours.length] : `color-mix(in srgb, ${colours[i % colours.length]} 62%, white)`,
          points: { show: chart.columns[i + 1].filter((v) => v != null).length <= 40, size: 5 },
        })),
      ],
    };
  };

  const dots = (chart) => (u) => {
    chart.marked.forEach((at, i) => {
      const index = at == null ? -1 : chart.columns[0].indexOf(at);
      const y = index < 0 ? null : chart.columns[i + 1][index];
      if (y == null) return;
      u.ctx.beginPath();
      u.ctx.arc(u.valToPos(at, "x", true), u.valToPos(y, "y", true), 6 * devicePixelRatio, 0, 2 * Math.PI);
      u.ctx.fillStyle = u.series[i + 1].stroke();
      u.ctx.fill();
    });
  };

  const draw = (box) => {
    const chart = JSON.parse(box.querySelector("script").textContent);
    const place = box.querySelector(".canvas");
    let plot = null;
    const again = () => {
      plot?.destroy();
      plot = new uPlot(options(chart, place.clientWidth || 600), chart.columns, place);
    };
    again();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
    let width = place.clientWidth;
    new ResizeObserver(() => {
      if (place.clientWidth && place.clientWidth !== width) { width = place.clientWidth; again(); }
    }).observe(place);
  };

  document.documentElement.classList.add("scripted");
  document.querySelectorAll(".chart").forEach(draw);
})();
