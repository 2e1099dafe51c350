// The two charts over rounds and the heat map. Colours come from the style sheet, so that they follow light and dark.

import { percent, size } from "./format.js";

const HEIGHT = 240;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// One chart in one element: made when it first gets data, made again when the colours change.
export class Chart {
  constructor(element, describe) {
    this.element = element;
    this.describe = describe;
    Object.assign(this, { plot: null, data: null, marks: [], beside: null });
    new ResizeObserver(() => this.plot && this.plot.setSize({ width: element.clientWidth, height: HEIGHT })).observe(element);
  }

  // `data` is columns over rounds, `marks` are rounds with a line of their own, `beside` names a run to compare with.
  show(data, marks, beside) {
    const same = this.beside === beside;
    Object.assign(this, { data, marks, beside });
    if (this.plot && same) this.plot.setData(data);
    else this.again();
    this.rest();
  }

  again() {
    if (!this.data) return;
    if (this.plot) this.plot.destroy();
    const { series, axes, scales } = this.describe(this.beside);
    const options = {
      width: this.element.clientWidth || 400, height: HEIGHT, series: [{ label: "round", value: (u, v) => (v === null ? "" : v) }, ...series],
      scales: { x: { time: false, range: (u, low, high) => [low, Math.max(high, low + 1)] }, ...scales },
      axes: [axis({ size: 30, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000] }), ...axes.map(axis)],
      cursor: { points: { size: 7 }, drag: { x: false, y: false } }, legend: { live: true },
      hooks: { draw: [(u) => this.drawMarks(u)], setCursor: [(u) => u.cursor.idx === null && this.rest()] },
    };
    this.plot = new uPlot(options, this.data, this.element);
  }

  // With no pointer on it, the legend shows the last round.
  rest() {
    if (this.plot && this.data[0].length) this.plot.setLegend({ idx: this.data[0].length - 1 }, false);
  }

  drawMarks(u) {
    const context = u.ctx;
    context.save();
    context.strokeStyle = colour("grey");
    context.globalAlpha = 0.45;
    context.setLineDash([2, 4]);
    for (const mark of this.marks) {
      const x = Math.round(u.valToPos(mark, "x", true));
      context.beginPath();
      context.moveTo(x, u.bbox.top);
      context.lineTo(x, u.bbox.top + u.bbox.height);
      context.stroke();
    }
    context.restore();
  }
}

function axis(more) {
  return {
    stroke: colour("soft"), font: "12px system-ui", grid: { stroke: colour("line"), width: 1 }, ticks: { show: false },
    size: 48, gap: 6, ...more,
  };
}

const line = (label, name, more) => ({ label, stroke: colour(name), width: 2, points: { show: false }, spanGaps: true, ...more });

export function learning(beside) {
  const series = [
    line("accuracy", "teal", { scale: "share", value: (u, v) => percent(v) }),
    line("loss", "amber", { scale: "loss", width: 1.5, value: (u, v) => (v === null ? "–" : v.toFixed(3)) }),
  ];
  if (beside) series.push(line(`accuracy of ${beside}`, "grey", { scale: "share", width: 1.5, dash: [5, 4], value: (u, v) => percent(v) }));
  return {
    series, scales: { share: { range: (u, low, high) => (low === null ? [0, 1] : [Math.max(0, low - 0.03), Math.min(1, high + 0.02)]) }, loss: {} },
    axes: [{ scale: "share", values: (u, ticks) => ticks.map((v) => `${+(100 * v).toFixed(1)} %`), size: 54 }, { scale: "loss", side: 1, grid: { show: false } }],
  };
}

export function bytes(beside) {
  const value = (u, v) => size(v);
  const series = [
    line("up", "indigo", { scale: "bytes", value }), line("down", "teal", { scale: "bytes", value }),
    line("dense, each way", "grey", { scale: "bytes", width: 1.5, dash: [5, 4], value }),
  ];
  if (beside) series.push(line(`up in ${beside}`, "grey", { scale: "bytes", width: 1, value }));
  const powers = (u, ticks) => ticks.map((v) => (v && Math.abs(Math.log10(v) - Math.round(Math.log10(v))) < 1e-6 ? v : null));
  return {
    series, scales: { bytes: { distr: 3 } },
    axes: [{ scale: "bytes", filter: powers, grid: { stroke: colour("line"), width: 1, filter: powers }, values: (u, ticks) => ticks.map((v) => (v ? size(v).replace(/\.0+ /, " ") : "")), size: 60 }],
  };
}

// One strip for each layer: a cell a round, as dark as the layer is dense.
export function heat(element, layers, rows, planned) {
  const width = Math.max(planned, rows.length, 1), strips = [];
  const shares = new Map(layers.map((layer) => [layer.name, new Array(width).fill(null)]));
  const last = new Map(layers.map((layer) => [layer.name, 1]));
  for (const row of rows) {
    for (const layer of row.layers) last.set(layer.name, layer.size ? layer.alive / layer.size : 1);
    for (const layer of layers) if (row.round <= width) shares.get(layer.name)[row.round - 1] = last.get(layer.name);
  }
  if (element.dataset.layers !== layers.map((layer) => layer.name).join()) {
    element.dataset.layers = layers.map((layer) => layer.name).join();
    element.replaceChildren();
    for (const layer of layers) {
      const name = document.createElement("span"), strip = document.createElement("canvas"), share = document.createElement("em");
      name.textContent = name.title = layer.name;
      strip.height = 1;
      strip.addEventListener("mousemove", (event) => {
        const index = Math.floor((event.offsetX / strip.clientWidth) * strip.width);
        const found = strip.shares[index];
        strip.title = found === null || found === undefined ? "" : `round ${index + 1}: ${percent(found)} of ${layer.size.toLocaleString("en")}`;
      });
      element.append(name, strip, share);
    }
    const axisRow = document.createElement("div");
    axisRow.className = "axis";
    axisRow.append(document.createElement("i"), document.createElement("i"));
    element.append(document.createElement("span"), axisRow, document.createElement("em"));
  }
  element.querySelectorAll("canvas").forEach((strip, n) => strips.push([strip, layers[n]]));
  const height = Math.max(14, Math.min(132, Math.floor(280 / layers.length) - 5));
  const cell = colour("cell").replaceAll(" ", ",");
  for (const [strip, layer] of strips) {
    strip.width = width;
    strip.style.height = `${height}px`;
    strip.shares = shares.get(layer.name);
    const context = strip.getContext("2d");
    strip.shares.forEach((share, n) => {
      if (share === null) return;
      // The square root tells 2 % from 5 % as well as 50 % from 70 %.
      context.fillStyle = `rgba(${cell},${share > 0 ? 0.06 + 0.94 * Math.sqrt(share) : 0})`;
      context.fillRect(n, 0, 1, 1);
    });
    strip.nextElementSibling.textContent = percent(rows.length ? last.get(layer.name) : 1);
  }
  const [first, end] = element.querySelectorAll(".axis i");
  first.textContent = "round 1";
  end.textContent = String(width);
}
