/** What the page knows: totals, tickers and history, put together from snapshot and events. */

import { kindOf } from "./format.js";

const QUARTER = 15 * 60 * 1000;
const LIVE_STEP = 10 * 1000;
const LIVE_STEPS = 90; // a quarter of an hour of arrivals
const REMEMBERED = 5000;
const MOST_TICKERS = 1000;
const BY_TAG_LIMIT = 200; // `by_tag` is whole as long as it is shorter than this

/**
 * Holds numbers, no elements; whoever draws is told what changed.
 *
 * The snapshot's history is the truth. Between two snapshots live updates are added to it, so that the chart moves at
 * once: an update does not say which item it belongs to, so an item with two tickers is recognised by its values.
 */
export class Board {
  metrics = null;
  tickers = new Map();
  history = [];
  #arrivals = [];
  #items = new Map();
  #counted = new Set();
  #changed;

  constructor(changed) {
    this.#changed = changed;
  }

  applyMetrics(metrics) {
    this.metrics = metrics;
    const tags = Object.entries(metrics.by_tag ?? {});
    for (const [ticker, count] of tags) this.#row(ticker).count = count;
    if (tags.length < BY_TAG_LIMIT) this.#forgetAllBut(new Set(tags.map(([ticker]) => ticker)));
    this.#changed("totals", "tickers");
  }

  /** A `news` update is one that happened now; others are the current state told again. */
  applyUpdate(update, { id = "", news = false } = {}) {
    const row = this.#row(update.ticker);
    row.touched = Date.now();
    if (update.count !== undefined) row.count = update.count;
    if (update.mean_score !== undefined) row.mean = update.mean_score;
    const at = Date.parse(update.timestamp);
    if (row.at === null || !(at < row.at)) {
      Object.assign(row, { score: update.score, label: update.label, source: update.source, at });
      row.confidence = update.confidence;
    }
    if (news) {
      row.flash = true;
      this.#addToHistory(update, at, id);
    }
    this.#changed("tickers");
  }

  /** `asked` is when the snapshot was asked for: what an event said since then is newer. */
  applySnapshot(snapshot, asked) {
    this.history = (snapshot.history ?? []).map((bucket) => ({ ...bucket, at: Date.parse(bucket.start) }));
    this.#counted.clear();
    if (snapshot.metrics && !this.metrics) this.applyMetrics(snapshot.metrics);
    for (const update of snapshot.sentiment_updates ?? []) {
      const row = this.#row(update.ticker);
      if (row.touched > asked) continue;
      row.at = null;
      this.applyUpdate(update);
    }
    this.#changed("history", "tickers", "totals");
  }

  /** Whether the chart adds up to the totals; items that leave or change unseen make it differ for a while. */
  get isInStep() {
    if (!this.metrics || this.history.length === 0) return true;
    const sum = (label) => this.history.reduce((total, bucket) => total + bucket[label], 0);
    return ["positive", "neutral", "negative"].every((label) => sum(label) === this.metrics[label]);
  }

  /** What has arrived at this page, by the time of its arrival: the last quarter of an hour, empty steps and all. */
  arrivals(now = Date.now()) {
    const last = Math.floor(now / LIVE_STEP) * LIVE_STEP;
    const first = last - (LIVE_STEPS - 1) * LIVE_STEP;
    this.#arrivals = this.#arrivals.filter((step) => step.at >= first);
    const known = new Map(this.#arrivals.map((step) => [step.at, step]));
    return Array.from({ length: LIVE_STEPS }, (_, index) => {
      const at = first + index * LIVE_STEP;
      return known.get(at) ?? { at, positive: 0, neutral: 0, negative: 0 };
    });
  }

  #row(ticker) {
    if (!this.tickers.has(ticker)) {
      if (this.tickers.size >= MOST_TICKERS) this.#forgetOldest();
      const empty = { count: null, mean: null, score: null, label: null, confidence: null, source: null, at: null };
      this.tickers.set(ticker, { ticker, ...empty, touched: 0, flash: false });
    }
    return this.tickers.get(ticker);
  }

  /** Where `by_tag` is cut short, nothing says which tickers have gone: the one not heard of for longest goes. */
  #forgetOldest() {
    let oldest = null;
    for (const row of this.tickers.values()) if (!oldest || row.touched < oldest.touched) oldest = row;
    this.tickers.delete(oldest.ticker);
  }

  #forgetAllBut(present) {
    for (const ticker of this.tickers.keys()) if (!present.has(ticker)) this.tickers.delete(ticker);
  }

  #addToHistory(update, at, id) {
    const key = id.split(".", 1)[0].split("-", 1)[0];
    const before = this.#items.get(key);
    this.#remember(key, update);
    const bucket = this.#bucket(at);
    if (this.#isAnItemsFirst(update, before)) this.#count(bucket, update, before);
    if (bucket) this.#weigh(bucket, update, before);
    this.#changed("history");
  }

  #bucket(at) {
    const start = Math.floor(at / QUARTER) * QUARTER;
    if (this.history.length === 0 || Number.isNaN(at)) return undefined;
    let last = this.history.at(-1);
    while (last.at < start && start - last.at <= 24 * 60 * 60 * 1000) {
      const next = last.at + QUARTER;
      last = { start: new Date(next).toISOString(), at: next, positive: 0, neutral: 0, negative: 0, tickers: {} };
      this.history.push(last);
      this.history.shift();
    }
    return this.history.find((bucket) => bucket.at === start);
  }

  #isAnItemsFirst({ timestamp, source, label, score, confidence }, before) {
    const item = [timestamp, source, before?.label, label, score, confidence].join("|");
    if (this.#counted.has(item)) return false;
    this.#counted.add(item);
    if (this.#counted.size > REMEMBERED) this.#counted.delete(this.#counted.values().next().value);
    return true;
  }

  #count(bucket, { label }, before) {
    if (kindOf(label) !== label) return;
    this.#arrival()[label] += 1;
    if (!bucket) return;
    if (before && bucket[before.label] > 0) bucket[before.label] -= 1;
    bucket[label] += 1;
  }

  #arrival() {
    const at = Math.floor(Date.now() / LIVE_STEP) * LIVE_STEP;
    if (this.#arrivals.at(-1)?.at !== at) this.#arrivals.push({ at, positive: 0, neutral: 0, negative: 0 });
    if (this.#arrivals.length > LIVE_STEPS) this.#arrivals.shift();
    return this.#arrivals.at(-1);
  }

  #weigh(bucket, { ticker, score }, before) {
    const cell = (bucket.tickers[ticker] ??= { count: 0, mean_score: 0 });
    if (before && cell.count > 0) {
      cell.mean_score += (score - before.score) / cell.count;
      return;
    }
    cell.mean_score = (cell.mean_score * cell.count + score) / (cell.count + 1);
    cell.count += 1;
  }

  #remember(key, { label, score }) {
    this.#items.delete(key);
    this.#items.set(key, { label, score });
    if (this.#items.size > REMEMBERED) this.#items.delete(this.#items.keys().next().value);
  }
}
