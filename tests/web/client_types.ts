// Uses everything that quartsse.d.ts declares, as somebody's program would; tests compile it and never run it.
import {
  connect, EVENTS, Parser, Stream,
  type Configuration, type Events, type Frame, type Heartbeat, type Metrics, type Options, type Quarter, type Resume,
  type SentimentUpdate, type Snapshot, type State, type StreamEnd,
} from "../../quartsse/web/static/quartsse.js";

const options: Options = {
  tickers: ["AAPL"], mode: "fetch", headers: async () => ({ Authorization: "Bearer x" }), ticket: async () => "t",
  lastEventId: "", withCredentials: true, minDelay: 1, maxDelay: 2, silence: 3, pollAfter: 0, pollInterval: 4,
  snapshotUrl: new URL("https://localhost/"), random: () => 0.5, fetch, EventSource,
};
const stream: Stream = connect("/api/v2/stream", options);
connect(new URL("https://localhost/"), { tickers: "AAPL,MSFT", headers: { a: "b" } });
new Stream("/api/v2/stream");

const heard: { [Name in keyof Events]: (...values: Events[Name]) => unknown } = {
  heartbeat: (beat: Heartbeat) => [beat.feed === "stale", beat.feed_age_seconds?.toFixed()],
  metrics: (totals: Metrics) => totals.by_tag["AAPL"] ?? totals.rate_last_hour,
  sentiment_update: (update: SentimentUpdate, frame: Frame<SentimentUpdate>) => [update.score.toFixed(), frame.id, frame.polled],
  configuration: (saved: Configuration) => saved.tickers.join(),
  resume: (resume: Resume) => resume.mode === "snapshot" && resume.replayed,
  stream_end: (end: StreamEnd) => end.reason === "lagged" && end.retry_ms,
  event: (_: unknown, frame: Frame) => frame.text.length,
  repeat: (update: SentimentUpdate) => update.label === "neutral",
  state: (state: State) => [state.name === "full", state.retryAt, state.attempt, state.polling, state.reason],
  snapshot: (snapshot: Snapshot) => snapshot.history.map((quarter: Quarter) => quarter.tickers["AAPL"]?.mean_score),
};
const off: () => void = stream.on("metrics", heard.metrics);
off();
stream.reconnect({ lastEventId: stream.lastEventId, mode: stream.mode });
stream.drop("why");
stream.pause();
stream.close();
const snapshot: Snapshot | null = await stream.snapshot();
const names: readonly string[] = EVENTS;
const parser = new Parser((frame) => frame.type + frame.id + frame.data, (ms) => ms.toFixed(), (id) => id.length);
parser.feed("data: 1\n\n");
console.log(snapshot?.metrics?.total, names, stream.state.name);

// What must not compile: each of these lines has to be an error.
// @ts-expect-error
connect("/api/v2/stream", { ticker: "AAPL" });
// @ts-expect-error
connect("/api/v2/stream", { tickers: [1] });
// @ts-expect-error
connect("/api/v2/stream", { mode: "websocket" });
// @ts-expect-error
stream.on("sentiment_updates", () => undefined);
// @ts-expect-error
stream.on("sentiment_update", (update) => update.price);
// @ts-expect-error
stream.on("state", (state) => state.name === "open");
// @ts-expect-error
stream.lastEventId = "";
// @ts-expect-error
stream.state.attempt.length;
