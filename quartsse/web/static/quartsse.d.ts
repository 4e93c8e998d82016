/** Types of quartsse.js. */

export interface Heartbeat {
  timestamp: string;
  connections: number;
  uptime_seconds: number;
  feed?: "starting" | "live" | "stale" | "idle";
  feed_age_seconds?: number | null;
}

export interface Metrics {
  total: number;
  positive: number;
  neutral: number;
  negative: number;
  by_tag: Record<string, number>;
  rate_last_hour: number;
  rate_last_24h: number;
  timestamp: string;
}

export interface SentimentUpdate {
  ticker: string;
  score: number;
  label: "positive" | "neutral" | "negative";
  confidence: number;
  source: string;
  timestamp: string;
  count?: number;
  mean_score?: number;
}

export interface Configuration {
  config_id: string;
  name: string;
  tickers: string[];
}

export interface Resume {
  mode: "exact" | "overlap" | "snapshot";
  replayed: number;
}

export interface StreamEnd {
  reason:
    | "deadline"
    | "draining"
    | "lagged"
    | "max_age"
    | "configuration_removed"
    | "unauthorized"
    | "connection_limit"
    | "unavailable";
  retry_ms: number;
}

export interface Quarter {
  start: string;
  positive: number;
  neutral: number;
  negative: number;
  tickers: Record<string, { count: number; mean_score: number }>;
}

export interface Snapshot {
  id: string;
  feed: string;
  metrics: Metrics | null;
  sentiment_updates: SentimentUpdate[];
  history: Quarter[];
  configuration?: Configuration;
}

/** One event: `data` is undefined where `text` is not JSON; `polled` says it came from a snapshot, not the stream. */
export interface Frame<Data = unknown> {
  type: string;
  id: string;
  data: Data;
  text: string;
  polled?: boolean;
}

export interface State {
  /**
   * `full` and `ended` come from the server's `stream_end`, and the client comes back after them; `closed` is for good:
   * `close()` was called or the server refused with an answer that trying again does not change.
   */
  name: "connecting" | "live" | "reconnecting" | "full" | "ended" | "paused" | "closed";
  reason: string;
  /** When the next attempt is, in ms since the epoch; null while there is none or it is under way. */
  retryAt: number | null;
  attempt: number;
  /** The snapshot is polled meanwhile, and its values arrive as events. */
  polling: boolean;
}

export interface Options {
  /** Symbols, as a list or with commas between, or "*" for all; without it no `sentiment_update`s are sent. */
  tickers?: readonly string[] | string;
  /** "auto", the default, takes fetch where there are headers or no EventSource. */
  mode?: "auto" | "eventsource" | "fetch";
  headers?: Record<string, string> | (() => Record<string, string> | Promise<Record<string, string>>);
  /** Gives a fresh ticket; called for each connection. */
  ticket?: () => string | Promise<string>;
  lastEventId?: string;
  withCredentials?: boolean;
  /** In ms: 3000 and 30000. */
  minDelay?: number;
  maxDelay?: number;
  /** Ms without an event after which a connection counts as dead: 75000. */
  silence?: number;
  /** Failures in a row after which the snapshot is polled as well: 3; 0 for never. */
  pollAfter?: number;
  pollInterval?: number;
  snapshotUrl?: string | URL;
  random?: () => number;
  fetch?: typeof fetch;
  EventSource?: typeof EventSource;
}

export interface Events {
  heartbeat: [Heartbeat, Frame<Heartbeat>];
  metrics: [Metrics, Frame<Metrics>];
  sentiment_update: [SentimentUpdate, Frame<SentimentUpdate>];
  configuration: [Configuration, Frame<Configuration>];
  resume: [Resume, Frame<Resume>];
  stream_end: [StreamEnd, Frame<StreamEnd>];
  event: [unknown, Frame];
  repeat: [SentimentUpdate, Frame<SentimentUpdate>];
  state: [State];
  snapshot: [Snapshot];
}

export declare const EVENTS: readonly string[];

export declare function connect(url: string | URL, options?: Options): Stream;

export declare class Stream {
  constructor(url: string | URL, options?: Options);
  readonly state: State;
  readonly lastEventId: string;
  readonly mode: "eventsource" | "fetch";
  on<Name extends keyof Events>(type: Name, listener: (...values: Events[Name]) => void): () => void;
  reconnect(options?: { lastEventId?: string; mode?: Options["mode"] }): void;
  drop(reason?: string): void;
  pause(reason?: string): void;
  close(reason?: string): void;
  snapshot(): Promise<Snapshot | null>;
}

export declare class Parser {
  constructor(
    onFrame: (frame: { type: string; id: string; data: string }) => void,
    onRetry?: (ms: number) => void,
    /** Called for a block without data: it says no more than where one is. */
    onId?: (id: string) => void,
  );
  feed(text: string): void;
}
