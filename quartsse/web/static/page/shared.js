/** One connection for every tab of the page: browsers allow six to a host over HTTP/1.1, and a stream keeps its own. */

import { EVENTS } from "../quartsse.js";

const KEPT = 500; // frames that a tab which comes back can be told
const TICKERS = 1000; // tickers whose last update a tab that joins is told
const PATIENCE = 2000; // ms to wait for the tab that holds the connection; then a tab listens for itself

/**
 * A page's part in the shared connection; `EventSource` is what it gives to `connect`.
 *
 * The tab that holds a Web Lock listens and tells the others over a BroadcastChannel; when it goes, the next in the
 * queue for the lock goes on from the last id. Every tab keeps its own client, which drops repeats, waits and comes
 * back as over a connection of its own. Streams are shared by their address: other filters are other streams.
 */
export class Line {
  /** "leads", "follows", "alone", or "" while there is no connection. */
  role = "";
  recent = new Recent();
  #shares = Line.isPossible;

  /** Both APIs are there; locks are not on a page that came over plain HTTP from another machine. */
  static get isPossible() {
    return Boolean(globalThis.navigator?.locks && globalThis.BroadcastChannel);
  }

  get EventSource() {
    const line = this;
    return class {
      constructor(url, init) {
        return new Source(line, url, init, line.#shares);
      }
    };
  }

  get shares() {
    return this.#shares;
  }

  /** From the next connection on: shared, where that is possible, or this tab's own. */
  share(wanted) {
    this.#shares = wanted && Line.isPossible;
  }

  /** How many tabs are on the line: each holds the lock or waits for it. */
  static async tabs() {
    if (!Line.isPossible) return 1;
    const { held, pending } = await navigator.locks.query();
    return [...held, ...pending].filter(({ name }) => name.startsWith(PREFIX)).length;
  }
}

const PREFIX = "quartsse ";

/** What has been heard lately: enough to tell a tab what it missed, or how things stand. */
class Recent {
  #frames = [];
  #updates = new Map();
  #states = new Map();

  add(frame) {
    this.#frames.push(frame);
    if (this.#frames.length > KEPT) this.#frames.shift();
    if (frame.type !== "sentiment_update") this.#states.set(frame.type, frame);
    else this.#keep(JSON.parse(frame.data).ticker, frame);
  }

  /** What a tab that stopped at this id is told: what it missed, else the current state, as a stream would open. */
  after(id) {
    const at = id ? this.#frames.findLastIndex((frame) => frame.id === id) : -1;
    if (at >= 0) {
      const missed = this.#frames.slice(at + 1).filter(({ type }) => type !== "stream_end" && type !== "resume");
      return [resumed("exact", missed), ...missed];
    }
    const [heartbeat, metrics] = ["heartbeat", "metrics"].map((type) => this.#states.get(type) ?? []).map(list);
    const opening = [...heartbeat, ...this.#updates.values(), ...metrics];
    return id ? [resumed("snapshot", []), ...opening] : opening;
  }

  #keep(ticker, frame) {
    this.#updates.set(ticker, frame);
    if (this.#updates.size > TICKERS) this.#updates.delete(this.#updates.keys().next().value);
  }
}

const list = (one) => (Array.isArray(one) ? one : [one]);

function resumed(mode, missed) {
  const replayed = missed.filter(({ type }) => type === "sentiment_update").length;
  return { type: "resume", id: "", data: JSON.stringify({ mode, replayed }) };
}

/** What `connect` takes for an EventSource: this tab's end of the line. */
class Source {
  CLOSED = 2;
  readyState = 0;
  onerror = null;
  #line;
  #url;
  #init;
  #listeners = new Map();
  #lastId;
  #name = crypto.randomUUID?.() ?? "";
  #channel = null;
  #queue = new AbortController();
  #release = null;
  #native = null;
  #welcome = false;
  #patience = 0;

  constructor(line, url, init, shares) {
    this.#line = line;
    this.#url = new URL(url);
    this.#init = init;
    this.#lastId = this.#url.searchParams.get("last_event_id") ?? "";
    if (shares) this.#join();
    else this.#listenAlone();
  }

  addEventListener(type, listener) {
    this.#listeners.set(type, listener);
  }

  close() {
    if (this.readyState === this.CLOSED && !this.#channel && !this.#native) return;
    this.readyState = this.CLOSED;
    this.#leave();
    this.#native?.close();
    this.#native = null;
    this.#line.role = "";
  }

  #join() {
    const shared = new URL(this.#url);
    shared.searchParams.delete("last_event_id");
    const name = PREFIX + shared.href;
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }) => (this.#release ? this.#asked(data) : this.#told(data));
    navigator.locks.request(name, { signal: this.#queue.signal }, () => this.#lead()).catch(() => {});
    this.#ask();
  }

  /** Out of the queue, off the channel: the next tab takes over. */
  #leave() {
    clearTimeout(this.#patience);
    this.#queue.abort();
    this.#channel?.close();
    this.#channel = null;
    this.#release?.();
    this.#release = null;
  }

  #ask() {
    this.#welcome = false;
    this.#channel.postMessage({ ask: this.#name, after: this.#lastId });
    clearTimeout(this.#patience);
    this.#patience = setTimeout(() => this.#listenAlone(), PATIENCE);
  }

  /** The lock is this tab's for as long as the promise is open. */
  #lead() {
    if (!this.#channel) return undefined;
    clearTimeout(this.#patience);
    this.#line.role = "leads";
    this.#channel.postMessage({ leads: true });
    this.#listen();
    return new Promise((release) => (this.#release = release));
  }

  #listenAlone() {
    this.#leave();
    this.#line.role = "alone";
    this.#listen();
  }

  #listen() {
    if (this.#lastId) this.#url.searchParams.set("last_event_id", this.#lastId);
    const native = new EventSource(this.#url, this.#init);
    this.#native = native;
    for (const type of EVENTS) {
      native.addEventListener(type, (event) => {
        const frame = { type, id: event.lastEventId, data: event.data };
        this.#channel?.postMessage({ frame });
        this.#hear(frame);
      });
    }
    native.onerror = () => {
      const refused = native.readyState === native.CLOSED;
      this.#channel?.postMessage({ failed: true, refused });
      this.#fail(refused);
    };
  }

  /** As the one who listens: a tab wants to know what it missed. */
  #asked({ ask, after }) {
    if (ask) this.#channel.postMessage({ to: ask, frames: this.#line.recent.after(after) });
  }

  /** As one who is told. */
  #told({ leads, to, frames, frame, failed, refused }) {
    if (leads) this.#ask();
    else if (to === this.#name) this.#welcomed(frames);
    else if (frame && this.#welcome) this.#hear(frame);
    else if (failed && this.#welcome) this.#fail(refused);
  }

  #welcomed(frames) {
    clearTimeout(this.#patience);
    this.#welcome = true;
    this.#line.role = "follows";
    for (const frame of frames) this.#hear(frame);
  }

  #hear(frame) {
    if (frame.id) this.#lastId = frame.id;
    this.#line.recent.add(frame);
    this.#listeners.get(frame.type)?.({ lastEventId: frame.id, data: frame.data });
  }

  #fail(refused) {
    if (refused) this.readyState = this.CLOSED;
    this.onerror?.();
  }
}
