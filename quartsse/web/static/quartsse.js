/**
 * Reads a quartsse stream and keeps reading it: the public JavaScript client, without dependencies.
 *
 *     import { connect } from "/static/quartsse.js";
 *     const stream = connect("/api/v2/stream", { tickers: ["AAPL", "MSFT"] });
 *     stream.on("sentiment_update", (update) => console.log(update.ticker, update.score));
 *     stream.on("state", ({ name, reason }) => console.log(name, reason));
 *
 * An EventSource gives up for good on any answer but 200, cannot send headers, repeats an old address (and with it an
 * old ticket), and does not notice a peer that has gone silent. This client makes up for each of these.
 */

export const EVENTS = ["heartbeat", "metrics", "sentiment_update", "configuration", "resume", "stream_end"];

const DEFAULTS = {
  tickers: undefined, // a list, text with commas, "*", or nothing for none
  mode: "auto", // "eventsource", "fetch"; "auto" takes fetch where there are headers or no EventSource
  headers: undefined, // an object, or an async function that gives one for each request; fetch mode only
  ticket: undefined, // an async function that gives a fresh ticket for each connection
  lastEventId: "", // where an earlier reader stopped
  withCredentials: false,
  minDelay: 3000, // ms; doubled by each failure, up to maxDelay, and then jittered
  maxDelay: 30000,
  silence: 75000, // ms without any event after which a connection counts as dead: two and a half heartbeats
  pollAfter: 3, // failures in a row (or a full server) after which the snapshot is polled as well; 0 for never
  pollInterval: 10000,
  snapshotUrl: undefined, // found from the stream's address
  random: Math.random,
};

const limit = () => AbortSignal.timeout(15000); // for what is no stream

const LONGEST = 16 * 2 ** 20; // characters of one event; a stream without an end of line would fill the memory
const [SHORTEST_WAIT, LONGEST_WAIT] = [50, 3600000]; // ms, whatever the server says; a timer of 2 ** 31 goes off at once
const REMEMBERED = 20000; // identities kept to recognise repeats; the oldest goes first

/** Opens a stream; it lives until `close()`. */
export function connect(url, options = {}) {
  return new Stream(url, options);
}

/** A stream that comes back by itself. Listen with `on`; `state` says where it stands and why. */
export class Stream {
  #options;
  #url;
  #listeners = new Map();
  #identities = new Map();
  #polled = new Map();
  #state = { name: "connecting", reason: "", retryAt: null, attempt: 0, polling: false };
  #lastEventId;
  #failures = 0;
  #retry = null;
  #epoch = 0;
  #hangUp = () => {};
  #timers = { retry: 0, silence: 0, poll: 0 };
  #etag = "";

  constructor(url, options = {}) {
    this.#options = { ...DEFAULTS, fetch: globalThis.fetch?.bind(globalThis), EventSource: globalThis.EventSource };
    for (const [name, value] of Object.entries(options)) if (value !== undefined) this.#options[name] = value;
    this.#url = new URL(url, globalThis.document?.baseURI);
    this.#lastEventId = this.#options.lastEventId;
    queueMicrotask(() => this.#state.name === "connecting" && this.#epoch === 0 && this.#open());
  }

  get state() {
    return this.#state;
  }

  get lastEventId() {
    return this.#lastEventId;
  }

  get mode() {
    const { mode, headers, EventSource } = this.#options;
    if (mode !== "auto") return mode;
    return headers || !EventSource ? "fetch" : "eventsource";
  }

  /**
   * Calls `listener(data, frame)` for an event of that name; "event" hears them all, repeats excepted.
   * "state", "repeat" and "snapshot" are the client's own. Returns what takes the listener off again.
   */
  on(type, listener) {
    if (!this.#listeners.has(type)) this.#listeners.set(type, new Set());
    this.#listeners.get(type).add(listener);
    return () => this.#listeners.get(type).delete(listener);
  }

  /** Connects anew at once, from the last id or from the one given ("" for none). */
  reconnect({ lastEventId = this.#lastEventId, mode = this.#options.mode } = {}) {
    this.#lastEventId = lastEventId;
    this.#options.mode = mode;
    this.#open();
  }

  /** Cuts the connection as a network would; the stream comes back by itself. */
  drop(reason = "Connection dropped") {
    if (this.#state.name !== "paused" && this.#state.name !== "closed") this.#failed({ reason });
  }

  /** Lets go of the connection until `reconnect()`. */
  pause(reason = "Paused") {
    this.#letGo();
    this.#say({ name: "paused", reason, retryAt: null, polling: false });
  }

  /** Ends the stream for good. */
  close(reason = "Closed") {
    this.#letGo();
    this.#say({ name: "closed", reason, retryAt: null, polling: false });
  }

  async #open() {
    this.#letGo({ keepPolling: true });
    const epoch = this.#epoch;
    const name = this.#state.name === "closed" || this.#state.name === "paused" ? "reconnecting" : this.#state.name;
    this.#say({ name: name === "live" ? "reconnecting" : name, retryAt: null, attempt: this.#state.attempt + 1 });
    const current = (handle) => (value) => epoch === this.#epoch && handle(value);
    const on = {
      frame: current((frame) => this.#frame(frame)),
      retry: current((ms) => (this.#retry = ms)),
      id: current((id) => id && (this.#lastEventId = id)),
      failed: current((failure) => this.#failed(failure)),
    };
    try {
      this.#listenForSilence();
      const url = this.#address(this.#url);
      if (this.#options.ticket) url.searchParams.set("ticket", await this.#options.ticket());
      const headers = await this.#headers();
      if (epoch !== this.#epoch) return;
      const open = this.mode === "fetch" ? overFetch : overEventSource;
      this.#hangUp = open(url.href, on, { ...this.#options, headers, probe: !this.#options.ticket });
    } catch (error) {
      on.failed({ reason: error?.message ?? String(error) });
    }
  }

  #address(base) {
    const url = new URL(base);
    const { tickers } = this.#options;
    if (tickers?.length) url.searchParams.set("tickers", Array.isArray(tickers) ? tickers.join(",") : tickers);
    if (this.#lastEventId) url.searchParams.set("last_event_id", this.#lastEventId);
    url.searchParams.set("on_limit", "retry");
    return url;
  }

  async #headers() {
    const { headers } = this.#options;
    return typeof headers === "function" ? headers() : headers;
  }

  #frame({ type, id, data: text }) {
    this.#listenForSilence();
    const data = parse(text);
    const frame = { type, id, data, text };
    if (type === "stream_end") return this.#ended(frame);
    this.#alive();
    if (type === "sentiment_update" && this.#isRepeat(id)) this.#emit("repeat", data, frame);
    else this.#deliver(frame);
    if (id) this.#lastEventId = id;
  }

  #deliver(frame) {
    this.#emit("event", frame.data, frame);
    if (frame.data !== undefined) this.#emit(frame.type, frame.data, frame);
  }

  /** An identity is `item-state`; the same item in the same state as last time is news to nobody. */
  #isRepeat(id) {
    const identity = id.split(".", 1)[0];
    const item = identity.split("-", 1)[0];
    if (item === identity) return false; // another server's id: it says nothing of its item
    if (this.#identities.get(item) === identity) return true;
    this.#identities.delete(item);
    this.#identities.set(item, identity);
    if (this.#identities.size > REMEMBERED) this.#identities.delete(this.#identities.keys().next().value);
    return false;
  }

  #alive() {
    if (this.#state.name === "live") return;
    this.#failures = 0;
    clearTimeout(this.#timers.poll);
    this.#timers.poll = 0;
    this.#say({ name: "live", reason: "", retryAt: null, attempt: 0, polling: false });
  }

  #ended(frame) {
    const { reason = "unknown", retry_ms: retryMs } = frame.data ?? {};
    if (frame.id) this.#lastEventId = frame.id;
    this.#deliver(frame);
    const full = reason === "connection_limit";
    this.#failed({ name: full ? "full" : "ended", reason, retryMs, quiet: this.#state.name === "live" });
  }

  #failed({ name = "reconnecting", reason, retryMs, retryAfter, status, fatal, quiet }) {
    this.#letGo({ keepPolling: true });
    // A ticket may have expired on the way; the next attempt has a fresh one.
    if (fatal && !(status === 401 && this.#options.ticket)) return this.close(reason);
    if (!quiet) this.#failures += 1;
    const wanted = Number.isFinite(retryMs) ? retryMs : this.#backoff(retryAfter);
    const delay = Math.min(Math.max(wanted, SHORTEST_WAIT), LONGEST_WAIT);
    this.#timers.retry = setTimeout(() => this.#open(), delay);
    this.#say({ name, reason, retryAt: Date.now() + delay });
    const { pollAfter } = this.#options;
    const pointless = name === "full" || this.#failures >= pollAfter;
    if (pollAfter && pointless && !this.#timers.poll) this.#poll();
  }

  #backoff(retryAfter = 0) {
    const { minDelay, maxDelay, random } = this.#options;
    const base = Math.max(this.#retry ?? minDelay, SHORTEST_WAIT);
    const ceiling = Math.min(maxDelay, base * 2 ** Math.max(0, this.#failures - 1));
    return Math.max(ceiling * (0.5 + random() / 2), retryAfter * 1000 * (1 + random() / 4));
  }

  #listenForSilence() {
    clearTimeout(this.#timers.silence);
    const { silence } = this.#options;
    const seconds = Math.round(silence / 1000);
    this.#timers.silence = setTimeout(() => this.drop(`Nothing heard for ${seconds} s`), silence);
  }

  #letGo({ keepPolling = false } = {}) {
    this.#epoch += 1;
    clearTimeout(this.#timers.retry);
    clearTimeout(this.#timers.silence);
    if (!keepPolling) {
      clearTimeout(this.#timers.poll);
      this.#timers.poll = 0;
    }
    this.#hangUp();
    this.#hangUp = () => {};
  }

  /** Asks for the snapshot while streaming does not work; stops as soon as an event arrives. */
  async #poll() {
    const { pollInterval, random } = this.#options;
    const timer = setTimeout(() => this.#poll(), pollInterval * (0.75 + random() / 2));
    this.#timers.poll = timer;
    const snapshot = await this.snapshot().catch((error) => {
      // Refused for good, as a ticket's holder is: not asked again until the stream has been live.
      if (error.fatal && this.#timers.poll === timer) clearTimeout(timer);
    });
    if (this.#timers.poll !== timer || snapshot === undefined) return;
    this.#say({ polling: true });
    if (snapshot) this.#apply(snapshot);
  }

  /** The current snapshot, or null where it has not changed since the last one asked for. */
  async snapshot() {
    const url = this.#address(this.#options.snapshotUrl ?? snapshotOf(this.#url));
    url.searchParams.delete("on_limit");
    url.searchParams.delete("last_event_id");
    const headers = { Accept: "application/json", ...(await this.#headers()) };
    if (this.#etag) headers["If-None-Match"] = this.#etag;
    const credentials = this.#options.withCredentials ? "include" : "same-origin";
    const answer = await this.#options.fetch(url.href, { headers, credentials, cache: "no-store", signal: limit() });
    if (answer.status === 304) return null;
    if (!answer.ok) throw Object.assign(new Error(statusLine(answer)), { fatal: !isPassing(answer) });
    const body = await answer.json();
    this.#etag = answer.headers.get("ETag") ?? "";
    return body;
  }

  #apply(snapshot) {
    this.#emit("snapshot", snapshot);
    const polled = (type, data) => this.#deliver({ type, id: "", data, text: JSON.stringify(data), polled: true });
    if (snapshot.configuration) polled("configuration", snapshot.configuration);
    if (snapshot.metrics) polled("metrics", snapshot.metrics);
    for (const update of snapshot.sentiment_updates ?? []) {
      const text = JSON.stringify(update);
      if (this.#polled.get(update.ticker) === text) continue;
      this.#polled.set(update.ticker, text);
      polled("sentiment_update", update);
    }
    if (snapshot.id) this.#lastEventId = snapshot.id;
  }

  #say(changes) {
    this.#state = { ...this.#state, ...changes };
    this.#emit("state", this.#state);
  }

  #emit(type, ...values) {
    for (const listener of this.#listeners.get(type) ?? []) {
      try {
        listener(...values);
      } catch (error) {
        // A listener's mistake is its own: it is reported, and the stream goes on.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}

/** Reads with the browser's EventSource, and takes over from it as soon as it stumbles. */
function overEventSource(url, on, { EventSource, withCredentials, probe, fetch }) {
  const source = new EventSource(url, { withCredentials });
  for (const type of EVENTS) {
    source.addEventListener(type, (event) => on.frame({ type, id: event.lastEventId, data: event.data }));
  }
  source.onerror = async () => {
    const refused = source.readyState === source.CLOSED;
    source.close();
    on.failed(refused && probe ? await whyRefused(url, fetch, withCredentials) : { reason: "Connection lost" });
  };
  return () => source.close();
}

/** An EventSource does not tell why it was refused: a HEAD takes no slot and does. */
async function whyRefused(url, fetch, withCredentials) {
  try {
    const credentials = withCredentials ? "include" : "same-origin";
    const answer = await fetch(url, {
      method: "HEAD",
      credentials,
      headers: { Accept: "text/event-stream" },
      signal: limit(),
    });
    return answer.ok ? { reason: "Connection refused" } : await failureOf(answer);
  } catch {
    return { reason: "Server cannot be reached" };
  }
}

/** Reads with fetch: sends headers, sees statuses, obeys Retry-After. */
function overFetch(url, on, { fetch, headers, withCredentials }) {
  const controller = new AbortController();
  const read = async () => {
    const answer = await fetch(url, {
      headers: { Accept: "text/event-stream", ...headers },
      credentials: withCredentials ? "include" : "same-origin",
      cache: "no-store",
      signal: controller.signal,
    });
    const type = answer.headers.get("Content-Type") ?? "";
    if (!answer.ok) return on.failed(await failureOf(answer));
    if (!type.startsWith("text/event-stream"))
      return on.failed({ reason: `Not an event stream: ${type}`, fatal: true });
    const parser = new Parser(on.frame, on.retry, on.id);
    const reader = answer.body.pipeThrough(new TextDecoderStream("utf-8", { ignoreBOM: true })).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) parser.feed(part.value);
    on.failed({ reason: "Connection lost" });
  };
  read().catch((error) => on.failed({ reason: error instanceof RangeError ? error.message : "Connection lost" }));
  return () => controller.abort();
}

async function failureOf(answer) {
  const { status } = answer;
  const seconds = secondsOf(answer.headers.get("Retry-After"), Date.parse(answer.headers.get("Date")) || Date.now());
  const body = parse(await answer.text().catch(() => ""));
  const name = status === 429 || body?.max_connections !== undefined ? "full" : undefined;
  return { name, status, reason: body?.detail ?? statusLine(answer), retryAfter: seconds, fatal: !isPassing(answer) };
}

/** Whether a refusal may be over by and by. */
const isPassing = ({ status }) => (status >= 500 && status !== 501) || [408, 425, 429].includes(status);

/** Seconds in a Retry-After, which may be a date by the server's clock (RFC 9110, section 10.2.3); 0 for neither. */
const secondsOf = (text, now) => Math.max(0, Number(text ?? "") || (Date.parse(text) - now) / 1000 || 0);

const statusLine = (answer) => `The server answered ${answer.status} ${answer.statusText}`.trim();

/** The parser of the HTML standard, section 9.2.6: any line ending, in pieces of any size. */
export class Parser {
  #onFrame;
  #onRetry;
  #onId;
  #rest = "";
  #started = false;
  #afterCr = false;
  #type = "";
  #data = [];
  #length = 0;
  #id = "";

  constructor(onFrame, onRetry = () => {}, onId = () => {}) {
    this.#onFrame = onFrame;
    this.#onRetry = onRetry;
    this.#onId = onId;
  }

  feed(text) {
    if (!this.#started && text) {
      this.#started = true;
      if (text[0] === "\uFEFF") text = text.slice(1);
    }
    // A CR ends a line at once; an LF that comes in the next piece belongs to it.
    if (this.#afterCr && text[0] === "\n") text = text.slice(1);
    else if (text === "") return;
    this.#afterCr = text.endsWith("\r");
    const lines = text.split(/\r\n|\n|\r/);
    lines[0] = this.#rest + lines[0]; // only what is new is searched: a long line comes in many pieces
    this.#rest = lines.pop();
    for (const line of lines) this.#line(line);
    if (this.#rest.length + this.#length > LONGEST) throw new RangeError("An event is too large");
  }

  #line(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "event") this.#type = value;
    else if (field === "data") {
      this.#data.push(value);
      this.#length += value.length;
    } else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "retry" && /^\d+$/.test(value)) this.#onRetry(Number(value));
  }

  #dispatch() {
    const frame = { type: this.#type || "message", id: this.#id, data: this.#data.join("\n") };
    const empty = this.#data.length === 0;
    this.#type = "";
    this.#data = [];
    this.#length = 0;
    if (empty) this.#onId(this.#id); // a block without data says no more than where one is
    else this.#onFrame(frame);
  }
}

function snapshotOf(url) {
  const snapshot = new URL(url);
  const isConfiguration = /\/configurations\/[^/]+\/stream$/.test(url.pathname);
  snapshot.pathname = isConfiguration
    ? url.pathname.replace(/\/stream$/, "/snapshot")
    : url.pathname.replace(/\/?$/, "/snapshot");
  return snapshot;
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
