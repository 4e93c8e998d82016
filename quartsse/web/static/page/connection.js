/** The connection pill, the banner, and how fresh the data is. */

import { $, drawFigures, duration, seconds, setText } from "./format.js";

const LABELS = {
  connecting: "Connecting",
  live: "Live",
  reconnecting: "Reconnecting",
  stale: "Stale",
  full: "Server full",
  ended: "Ended by server",
  paused: "Offline",
  closed: "Stopped",
};

const ENDINGS = {
  deadline: "this stream has had its time",
  draining: "the server is shutting down or being replaced",
  lagged: "this reader was too slow; it resumes where it was",
  max_age: "this stream has reached its greatest age",
  configuration_removed: "the configuration was removed",
  unauthorized: "the permission has expired",
  unavailable: "the server cannot serve this now",
};

const FEEDS = {
  starting: "starting: reading the window",
  live: "live",
  stale: "stale: the table cannot be read",
  idle: "idle: resting until someone reads",
};

const SAMPLES = 120;
const CLOCKS = 40; // heartbeats from which the difference of the clocks is taken: twenty minutes
const ANNOUNCE_EVERY = 5000;

export class ConnectionView {
  #stream;
  #feed = null;
  #feedAge = null;
  #heardAt = null;
  #clocks = [];
  #lags = [];
  #announced = { text: "", at: 0, timer: 0 };

  constructor(stream) {
    this.#stream = stream;
    $("retry-now").addEventListener("click", () => stream.reconnect());
  }

  heard() {
    this.#heardAt = Date.now();
  }

  heartbeat({ feed, feed_age_seconds: age, connections, timestamp }) {
    this.#compareClocks(timestamp);
    this.#feed = feed ?? "live";
    this.feedAge(age);
    setText("streams", String(connections ?? "–"));
    setText("feed-state", FEEDS[this.#feed] ?? String(this.#feed));
    $("feed-state").dataset.feed = this.#feed;
  }

  feedAge(seconds) {
    if (typeof seconds === "number") this.#feedAge = { seconds, at: Date.now() };
  }

  /** The quickest heartbeat is taken to have been on the way for no time: what is left is how the clocks differ. */
  #compareClocks(timestamp) {
    const offset = Date.now() - Date.parse(timestamp);
    if (Number.isNaN(offset)) return;
    this.#clocks.push(offset);
    if (this.#clocks.length > CLOCKS) this.#clocks.shift();
    this.#measure(offset);
  }

  /** An event's time against its arrival, whatever the clocks say. */
  measure(timestamp) {
    const offset = Date.now() - Date.parse(timestamp);
    if (!Number.isNaN(offset) && this.#clocks.length) this.#measure(offset);
  }

  #measure(offset) {
    this.#lags.push(Math.max(0, offset - Math.min(...this.#clocks)));
    if (this.#lags.length > SAMPLES) this.#lags.shift();
    this.#drawLag();
  }

  /** Also called every second, for the countdown. */
  draw() {
    const { state } = this.#stream;
    const shown = this.#shown(state);
    const pill = $("connection");
    if (pill.dataset.state !== shown.name) {
      pill.dataset.state = shown.name;
      pill.querySelector("use").setAttribute("href", `#i-${ICONS[shown.name] ?? shown.name}`);
      this.#announce(`${shown.label}. ${shown.why}`);
    }
    setText("connection-label", shown.label);
    setText("connection-reason", shown.reason);
    setText("connection-age", this.#heardAt === null ? "" : `heard ${sinceThen(this.#heardAt)}`);
    document.title = shown.name === "live" ? "quartsse" : `${shown.label} · quartsse`;
    this.#drawBanner(shown, state);
    this.#drawAges();
  }

  #shown(state) {
    if (state.name === "live") return this.#fed();
    const wait = state.retryAt === null ? "trying now" : `trying again in ${this.#countdown(state)} s`;
    const name = state.name;
    const label = LABELS[name];
    if (name === "connecting") {
      return { name, label, reason: state.reason ? wait : "", why: state.reason };
    }
    if (name === "reconnecting") {
      const reason = state.retryAt === null ? "now" : `in ${this.#countdown(state)} s`;
      return { name, label, reason, why: state.reason };
    }
    if (name === "full") return { name, label, reason: wait, why: "All of its streams are taken" };
    if (name === "ended") return { name, label, reason: wait, why: ENDINGS[state.reason] ?? state.reason };
    return { name, label, reason: "", why: state.reason };
  }

  #fed() {
    const age = this.#feedAge ? this.#feedAge.seconds + (Date.now() - this.#feedAge.at) / 1000 : null;
    if (this.#feed === "stale") {
      const why = "The table cannot be read at the moment";
      return { name: "stale", label: LABELS.stale, reason: `last read ${duration(age)} ago`, why };
    }
    const reason = this.#feed && this.#feed !== "live" ? `feed is ${this.#feed}` : "";
    return { name: "live", label: LABELS.live, reason, why: reason };
  }

  #countdown({ retryAt }) {
    return Math.max(1, Math.ceil((retryAt - Date.now()) / 1000));
  }

  #drawBanner(shown, state) {
    const waited = state.name !== "connecting" || state.reason !== "";
    const visible = shown.name !== "live" && waited;
    document.body.dataset.fresh = shown.name === "live" ? "yes" : "no";
    $("banner").hidden = !visible;
    if (!visible) return;
    $("banner")
      .querySelector("use")
      .setAttribute("href", `#i-${ICONS[shown.name] ?? shown.name}`);
    const polling = state.polling
      ? " Meanwhile the numbers are polled every few seconds."
      : this.#outOfDate(shown);
    setText("banner-title", `${shown.label}.`);
    setText("banner-text", sentence(shown.why) + polling);
    $("retry-now").hidden = shown.name === "stale" || state.retryAt === null;
    if (state.polling) document.body.dataset.fresh = "yes";
  }

  /** While the stream lives and the feed does not, the table's age says it; otherwise the last event's. */
  #outOfDate({ name }) {
    if (name === "stale" || this.#heardAt === null) return " The numbers below may be out of date.";
    return ` The numbers below are as of ${sinceThen(this.#heardAt)}.`;
  }

  #drawAges() {
    const since = (at) => (Date.now() - at) / 1000;
    if (this.#heardAt !== null) setText("last-event", sinceThen(this.#heardAt));
    if (this.#feedAge === null) return;
    const { seconds: age, at } = this.#feedAge;
    // While the feed is live it is read every few seconds: what it last said stands until it says otherwise.
    const grown = this.#feed === "live" ? age : age + since(at);
    setText("feed-age", `${duration(grown)} ago`);
  }

  #drawLag() {
    const sorted = this.#lags.toSorted((one, other) => one - other);
    setText("lag", delay(this.#lags.at(-1)));
    setText("lag-median", delay(sorted[sorted.length >> 1]));
    setText("lag-most", delay(sorted.at(-1)));
    drawFigures($("lag-spark"), this.#lags, 50);
  }

  /** Tells a screen reader, at most once in five seconds and only the latest. */
  #announce(text) {
    const announced = this.#announced;
    clearTimeout(announced.timer);
    const wait = Math.max(0, announced.at + ANNOUNCE_EVERY - Date.now());
    announced.timer = setTimeout(() => {
      announced.at = Date.now();
      setText("announcer", text);
    }, wait);
  }
}

const ICONS = { closed: "ended" };

const delay = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : duration(ms / 1000));

function sinceThen(at) {
  const since = (Date.now() - at) / 1000;
  return since < 2 ? "just now" : `${seconds(since)} ago`;
}

function sentence(text) {
  if (!text) return "";
  const whole = text[0].toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}
