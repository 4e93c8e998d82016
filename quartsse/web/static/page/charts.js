/** The charts: all sentiment per quarter of an hour, and one ticker's mean score; each with its table. */

import { choose, chosen } from "./address.js";
import { $, count, dataTable, disclosure, press, score, setText, shortTime, time } from "./format.js";

const { uPlot } = globalThis;

const QUARTER = 15 * 60 * 1000;

/** The spans of the history chart: which buckets, how long each is, and what the whole is called. */
const SPANS = {
  live: { of: (board) => board.arrivals(), step: 10 * 1000, name: "Arrived in the last 15 min, by 10 s" },
  6: { of: (board) => board.history.slice(-24), step: QUARTER, name: "Last 6 h, by quarter" },
  all: { of: (board) => board.history, step: QUARTER, name: "Whole window, by quarter" },
};
const LABELS = ["positive", "neutral", "negative"];

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** An axis in the page's colours; uPlot draws on a canvas, which CSS does not reach. */
const axis = (more) => ({
  stroke: colour("muted"),
  font: "12px system-ui, sans-serif",
  grid: { stroke: colour("grid"), width: 1 },
  ticks: { show: false },
  ...more,
});

const timeAxis = () =>
  axis({ grid: { show: false }, space: 70, size: 30, values: (_, ticks) => ticks.map((at) => shortTime(at * 1000)) });

/** A uPlot that follows its box's width, the theme, and the pointer. */
class Chart {
  #box;
  #options;
  #plot = null;
  #data = null;

  constructor(box, options) {
    this.#box = box;
    this.#options = options;
    new ResizeObserver(() => this.#fit()).observe(box);
    document.addEventListener("themechange", () => this.#rebuild());
  }

  show(data) {
    this.#data = data;
    if (!this.#plot) this.#rebuild();
    else this.#plot.setData(data);
  }

  #size() {
    return { width: Math.max(120, this.#box.clientWidth), height: Math.max(100, this.#box.clientHeight) };
  }

  #fit() {
    if (!this.#box.clientWidth) return;
    if (this.#plot) this.#plot.setSize(this.#size());
    else if (this.#data) this.#rebuild();
  }

  #rebuild() {
    if (!this.#data || !this.#box.clientWidth) return;
    this.#plot?.destroy();
    this.#plot = new uPlot({ ...this.#size(), ...this.#options() }, this.#data, this.#box);
  }
}

export class HistoryChart {
  #board;
  #chart;
  #span = SPANS.all;
  #index = null;

  constructor(board) {
    this.#board = board;
    this.#chart = new Chart($("history-chart"), () => this.#options());
    disclosure($("history-table-toggle"), $("history-table"), () => this.#drawTable());
    const spans = document.querySelectorAll("[data-span]");
    for (const button of spans) {
      button.addEventListener("click", () => {
        choose("span", button.dataset.span === "all" ? "" : button.dataset.span);
        this.#choose(spans, button);
        this.draw();
      });
      if (button.dataset.span === chosen("span")) this.#choose(spans, button);
    }
  }

  #choose(spans, button) {
    this.#span = SPANS[button.dataset.span];
    this.#index = null;
    press(spans, button);
  }

  /** The live span moves with the clock, whether or not something arrives. */
  tick() {
    if (this.#span === SPANS.live) this.draw();
  }

  draw() {
    const shown = this.#span.of(this.#board);
    if (shown.length === 0) return;
    const sums = (...labels) => shown.map((bucket) => labels.reduce((sum, label) => sum + bucket[label], 0));
    // Painted from the back: the whole bar, then what lies below it.
    const bars = [sums(...LABELS), sums("positive", "neutral"), sums("positive")];
    this.#chart.show([shown.map((bucket) => bucket.at / 1000), ...bars]);
    this.#read(this.#index);
    setText("history-summary", summary(shown, this.#span.name));
    if (!$("history-table").hidden) this.#drawTable();
  }

  #options() {
    const paths = uPlot.paths.bars({ size: [0.78, 40], align: 1, radius: 0 });
    const bar = (name) => ({ label: name, fill: colour(name), width: 0, paths, points: { show: false } });
    return {
      legend: { show: false },
      padding: [8, 18, 0, 0],
      cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
      scales: {
        x: { range: (_, low, high) => [low, high + this.#span.step / 1000] },
        y: { range: (_, low, high) => [0, Math.max(4, high)] },
      },
      axes: [timeAxis(), axis({ size: 38, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000] })],
      series: [{}, bar("negative"), bar("neutral"), bar("positive")],
      hooks: { setCursor: [(plot) => this.#read(plot.cursor.idx)] },
    };
  }

  /** Says what is under the pointer, or what the whole span comes to. */
  #read(index) {
    this.#index = index ?? null;
    const shown = this.#span.of(this.#board);
    const bucket = shown[index];
    const buckets = bucket ? [bucket] : shown;
    const sum = (label) => count(buckets.reduce((total, one) => total + one[label], 0));
    const clock = this.#span === SPANS.live ? time : shortTime;
    const when = bucket ? `${clock(bucket.at)} – ${clock(bucket.at + this.#span.step)}` : this.#span.name;
    readout(
      $("history-readout"),
      when,
      LABELS.map((label) => [label, `${sum(label)} ${label}`]),
    );
  }

  #drawTable() {
    const clock = this.#span === SPANS.live ? time : shortTime;
    const rows = this.#span
      .of(this.#board)
      .toReversed()
      .map((bucket) => [clock(bucket.at), ...LABELS.map((label) => count(bucket[label]))]);
    $("history-table").replaceChildren(dataTable(["From", "Positive", "Neutral", "Negative"], rows));
  }
}

export class TickerChart {
  #board;
  #chart;
  #closed;
  #ticker = null;

  constructor(board, closed) {
    this.#board = board;
    this.#closed = closed;
    this.#chart = new Chart($("detail-chart"), () => this.#options());
    disclosure($("detail-table-toggle"), $("detail-table"), () => this.#drawTable());
    $("detail-close").addEventListener("click", () => this.#closed());
  }

  select(ticker) {
    this.#ticker = ticker;
    $("detail").hidden = ticker === null;
    if (ticker !== null) this.draw();
  }

  draw() {
    if (this.#ticker === null || this.#board.history.length === 0) return;
    const cells = this.#cells();
    setText("detail-title", `${this.#ticker}, mean score per quarter of an hour`);
    this.#chart.show([cells.map((cell) => cell.at / 1000), cells.map((cell) => cell.mean)]);
    this.#read(null);
    const known = cells.filter((cell) => cell.count > 0);
    setText("detail-summary", `${known.length} of ${cells.length} quarters have items for ${this.#ticker}.`);
    if (!$("detail-table").hidden) this.#drawTable();
  }

  #cells() {
    return this.#board.history.map(({ at, tickers }) => {
      const cell = tickers?.[this.#ticker];
      return { at, count: cell?.count ?? 0, mean: cell?.count ? cell.mean_score : null };
    });
  }

  #options() {
    const point = { show: true, size: 5, fill: colour("accent"), stroke: colour("accent") };
    const line = { label: "mean score", stroke: colour("accent"), width: 1.75, spanGaps: true, points: point };
    return {
      legend: { show: false },
      padding: [8, 18, 0, 0],
      cursor: { y: false, drag: { x: false, y: false } },
      scales: { y: { range: [-1.05, 1.05] } },
      axes: [timeAxis(), axis({ size: 38, splits: () => [-1, 0, 1], values: () => ["−1", "0", "+1"] })],
      series: [{}, line],
      hooks: { setCursor: [(plot) => this.#read(plot.cursor.idx)] },
    };
  }

  #read(index) {
    const cells = this.#cells();
    const cell = cells[index] ?? cells.findLast((one) => one.count > 0);
    if (!cell) return readout($("detail-readout"), "No items in the window", []);
    const items = cell.count === 1 ? "1 item" : `${count(cell.count)} items`;
    return readout($("detail-readout"), `${shortTime(cell.at)}: ${score(cell.mean)}, ${items}`, []);
  }

  #drawTable() {
    const rows = this.#cells()
      .filter((cell) => cell.count > 0)
      .toReversed()
      .map((cell) => [shortTime(cell.at), score(cell.mean), count(cell.count)]);
    $("detail-table").replaceChildren(dataTable(["From", "Mean score", "Items"], rows));
  }
}

function readout(target, when, parts) {
  const spans = parts.map(([name, text]) => {
    const span = document.createElement("span");
    span.className = `key ${name}`;
    span.textContent = text;
    return span;
  });
  const first = document.createElement("span");
  first.textContent = when;
  target.replaceChildren(first, ...spans);
}

function summary(history, name) {
  const sum = (label) => history.reduce((total, bucket) => total + bucket[label], 0);
  const size = (bucket) => bucket.positive + bucket.neutral + bucket.negative;
  const busiest = history.reduce((best, bucket) => (size(bucket) > size(best) ? bucket : best));
  const parts = LABELS.map((label) => `${count(sum(label))} ${label}`).join(", ");
  return `${name}: ${parts}. The busiest began at ${shortTime(busiest.at)} with ${size(busiest)} items.`;
}
