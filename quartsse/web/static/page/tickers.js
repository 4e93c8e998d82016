/** The table of tickers: one row each, kept and updated in place. */

import { $, ago, count, drawSpark, element, fullTime, icon, kindOf, score, setText, svg } from "./format.js";

const SORTS = {
  ticker: { of: (row) => row.ticker, first: "ascending" },
  count: { of: (row) => row.count, first: "descending" },
  mean: { of: (row) => row.mean, first: "descending" },
  score: { of: (row) => row.score, first: "descending" },
  label: { of: (row) => row.label, first: "ascending" },
  when: { of: (row) => row.at, first: "descending" },
};

export class TickerTable {
  #board;
  #filter;
  #select;
  #rows = new Map();
  #sort = { by: "count", direction: "descending" };
  #selected = null;

  constructor(board, filter, select) {
    this.#board = board;
    this.#filter = filter;
    this.#select = select;
    for (const heading of document.querySelectorAll("th[data-sort]")) {
      heading.querySelector("button").addEventListener("click", () => this.#sortBy(heading));
    }
  }

  draw() {
    const shown = [...this.#board.tickers.values()].filter((row) => this.#filter.matches(row.ticker));
    shown.sort((one, other) => this.#compare(one, other));
    const body = $("tickers");
    let next = body.firstElementChild;
    for (const row of shown) {
      const drawn = this.#rows.get(row.ticker) ?? this.#make(row.ticker);
      this.#fill(drawn, row);
      if (next === drawn.tr) next = next.nextElementSibling;
      else body.insertBefore(drawn.tr, next);
    }
    while (body.children.length > shown.length) body.lastElementChild.remove();
    this.#forgetGone();
    this.#drawCount(shown.length);
  }

  /** Sparklines change with the history only. */
  drawTrends() {
    const hours = hourly(this.#board.history);
    for (const [ticker, drawn] of this.#rows) {
      const points = hours.flatMap((tickers, index) => {
        const cell = tickers.get(ticker);
        return cell ? [[index / Math.max(1, hours.length - 1), (cell.sum / cell.count + 1) / 2]] : [];
      });
      drawSpark(drawn.trend, points, { zero: true });
    }
  }

  drawTimes() {
    const now = Date.now();
    for (const [ticker, drawn] of this.#rows) setText(drawn.when, ago(this.#board.tickers.get(ticker)?.at, now));
  }

  mark(ticker) {
    this.#rows.get(this.#selected)?.button.setAttribute("aria-pressed", "false");
    this.#selected = ticker;
    this.#rows.get(ticker)?.button.setAttribute("aria-pressed", "true");
  }

  #make(ticker) {
    const button = element("button", {
      text: ticker,
      type: "button",
      "aria-pressed": "false",
      title: "Show its history",
    });
    button.addEventListener("click", () => this.#select(this.#selected === ticker ? null : ticker));
    const drawn = {
      tr: element("tr", { "data-ticker": ticker }),
      button,
      count: element("td", { className: "number", "data-field": "count" }),
      mean: element("td", { className: "number mean", "data-field": "mean" }),
      trend: svg("svg", { class: "spark", viewBox: "0 0 80 20", preserveAspectRatio: "none", "aria-hidden": "true" }),
      score: element("td", { className: "number", "data-field": "score" }),
      label: element("td", { "data-field": "label" }),
      when: element("td", { className: "number when", "data-field": "when" }),
    };
    const trend = element("td", { className: "trend" }, drawn.trend);
    const heading = element("th", { scope: "row" }, button);
    drawn.tr.append(heading, drawn.count, drawn.mean, trend, drawn.score, drawn.label, drawn.when);
    drawn.tr.addEventListener("animationend", () => drawn.tr.removeAttribute("data-flash"));
    button.setAttribute("aria-pressed", String(ticker === this.#selected));
    this.#rows.set(ticker, drawn);
    return drawn;
  }

  #fill(drawn, row) {
    setText(drawn.count, count(row.count));
    setText(drawn.mean, score(row.mean));
    setText(drawn.score, score(row.score));
    setText(drawn.when, ago(row.at));
    drawn.when.title = fullTime(row.at);
    drawn.score.title = row.source ? `${row.source}, confidence ${row.confidence}` : "";
    if (drawn.shownLabel !== row.label) {
      drawn.shownLabel = row.label;
      const kind = kindOf(row.label);
      const badge = element(
        "span",
        { className: `badge ${kind}` },
        icon(kind),
        element("span", { text: row.label ?? "none" }),
      );
      drawn.label.replaceChildren(badge);
    }
    if (row.flash) flash(drawn.tr);
    row.flash = false;
  }

  #forgetGone() {
    for (const [ticker, drawn] of this.#rows) {
      if (this.#board.tickers.has(ticker)) continue;
      drawn.tr.remove();
      this.#rows.delete(ticker);
    }
  }

  #drawCount(shown) {
    const all = this.#board.tickers.size;
    setText("tickers-count", shown === all ? count(all) : `${count(shown)} of ${count(all)}`);
    const empty = $("tickers-empty");
    empty.hidden = shown > 0;
    if (all > 0) setText(empty, "No ticker matches the filter.");
  }

  #compare(one, other) {
    const { of } = SORTS[this.#sort.by];
    const [a, b] = [of(one), of(other)];
    if (a === b) return one.ticker < other.ticker ? -1 : 1;
    if (a === null || a === undefined) return 1; // unknown goes last, whichever way
    if (b === null || b === undefined) return -1;
    return (a < b ? -1 : 1) * (this.#sort.direction === "ascending" ? 1 : -1);
  }

  #sortBy(heading) {
    const by = heading.dataset.sort;
    const turned = this.#sort.direction === "ascending" ? "descending" : "ascending";
    this.#sort = { by, direction: this.#sort.by === by ? turned : SORTS[by].first };
    for (const other of document.querySelectorAll("th[data-sort]")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", this.#sort.direction);
    this.draw();
  }
}

/** Two animations alike: going over to the other begins anew, without a layout of its own for each row. */
function flash(row) {
  if ($("view-live").hidden) return; // it would be kept for when it is shown
  row.dataset.flash = row.dataset.flash === "tick" ? "tock" : "tick";
}

/** Four quarters at a time: what each ticker's scores came to. */
function hourly(history) {
  const hours = [];
  for (let start = 0; start < history.length; start += 4) {
    const hour = new Map();
    for (const bucket of history.slice(start, start + 4)) {
      for (const [ticker, { count: n, mean_score: mean }] of Object.entries(bucket.tickers ?? {})) {
        const cell = hour.get(ticker) ?? { count: 0, sum: 0 };
        hour.set(ticker, { count: cell.count + n, sum: cell.sum + n * mean });
      }
    }
    hours.push(hour);
  }
  return hours;
}
