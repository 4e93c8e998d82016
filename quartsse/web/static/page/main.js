/** Puts the page together: one stream, one board, and views that draw what changed. */

import { connect } from "../quartsse.js";
import { choose, chosen } from "./address.js";
import { Board } from "./board.js";
import { HistoryChart, TickerChart } from "./charts.js";
import { ConnectionView } from "./connection.js";
import { TickerFilter } from "./filter.js";
import { $ } from "./format.js";
import { Inspector } from "./inspector.js";
import { copyText, EventLog } from "./log.js";
import { ServerPanel } from "./server.js";
import { Line } from "./shared.js";
import { fetchSlowly } from "./slow.js";
import { Tabs } from "./tabs.js";
import { TickerTable } from "./tickers.js";
import { drawTotals } from "./totals.js";
import { ViewAs } from "./view_as.js";

const REFRESH_HISTORY = 60000;
const CORRECT_HISTORY = 20000; // the least time between two snapshots taken because the chart was out of step
const LOOPBACK = ["localhost", "127.0.0.1", "[::1]"];

const base = new URL(".", document.baseURI);
const streamUrl = new URL("api/v2/stream", base);
const mode = chosen("transport") === "fetch" ? "fetch" : "eventsource";

/** The opening tells the current state again; what follows its `metrics` is news. */
let opening = true;
let scheduled = false;
let fetching = false;
let again = 0;
let refreshed = 0;
let told = "";
let feed;

const tabs = new Tabs($("views"));
const line = new Line();
const stream = connect(streamUrl, {
  tickers: "*",
  mode,
  EventSource: line.EventSource,
  fetch: (...request) => (inspector.isSlow ? fetchSlowly : fetch)(...request),
});
const dirty = new Set();
const board = new Board((...parts) => parts.forEach(redraw));
const filter = new TickerFilter($("filter"), () => redraw("tickers", "log"));
const table = new TickerTable(board, filter, select);
const history = new HistoryChart(board);
const detail = new TickerChart(board, () => select(null));
const inspector = new Inspector(stream, line, (text) => log.note(text));
const log = new EventLog(filter, { useId, curl });
const connection = new ConnectionView(stream);
const server = new ServerPanel(new URL("api/v2/stream/status", base), ({ feed }) =>
  connection.feedAge(feed?.age_seconds),
);

function redraw(...parts) {
  for (const part of parts) dirty.add(part);
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    const parts = new Set(dirty);
    dirty.clear();
    draw(parts);
  });
}

function draw(parts) {
  if (parts.has("totals")) drawTotals(board);
  if (parts.has("tickers")) table.draw();
  if (parts.has("history")) {
    history.draw();
    detail.draw();
    table.drawTrends();
  }
  if (parts.has("log")) log.redraw();
  log.draw();
  inspector.draw();
  connection.draw();
}

function select(ticker) {
  choose("ticker", ticker ?? "");
  detail.select(ticker);
  table.mark(ticker);
}

function useId(id) {
  tabs.show("operator");
  inspector.useId(id);
}

/** A line for a terminal; symbols and ids hold nothing that a shell would take for more than text. */
function curl(id = "") {
  const place = id ? ` -H 'Last-Event-ID: ${id}'` : "";
  return `curl -N${place} '${streamUrl}?tickers=${filter.parameter(board.tickers.keys())}'`;
}

/** The history is asked for at the start, after every new connection, and each minute while someone looks. */
async function refreshHistory() {
  if (fetching) return;
  fetching = true;
  clearTimeout(again);
  const asked = Date.now();
  refreshed = asked;
  try {
    const snapshot = await stream.snapshot();
    if (snapshot) board.applySnapshot(snapshot, asked);
  } catch {
    again = setTimeout(refreshHistory, board.history.length ? REFRESH_HISTORY : 2500);
  } finally {
    fetching = false;
  }
}

stream.on("event", (_, frame) => {
  if (!frame.polled) connection.heard();
  log.add(frame);
  redraw("event");
});
stream.on("heartbeat", (heartbeat) => {
  connection.heartbeat(heartbeat);
  if (heartbeat.feed !== feed) server.refresh();
  feed = heartbeat.feed;
});
stream.on("metrics", (metrics, frame) => {
  board.applyMetrics(metrics);
  if (frame.polled) return;
  if (opening) {
    refreshHistory();
    server.refresh();
  } else connection.measure(metrics.timestamp);
  opening = false;
});
stream.on("sentiment_update", (update, { id, polled }) => {
  board.applyUpdate(update, { id, news: !opening && !polled });
});
stream.on("snapshot", (snapshot) => board.applySnapshot(snapshot, Date.now()));
stream.on("repeat", () => {
  connection.heard();
  inspector.repeated();
});
stream.on("resume", (resume) => inspector.resumed(resume));

stream.on("state", (state) => {
  if (state.name !== "live") opening = true;
  inspector.stateChanged(state);
  const text = state.name === "live" ? "Connected" : state.retryAt === null ? "" : `${state.name}: ${state.reason}`;
  if (text && text !== told) log.note(text);
  told = text || told;
  redraw("state");
});

$("log-curl").addEventListener("click", () => copyText(curl(), $("log-curl")));

setInterval(() => document.hidden || redraw("second"), 1000);
setInterval(() => document.hidden || history.tick(), 2000);
setInterval(() => {
  const due = Date.now() - refreshed >= CORRECT_HISTORY && stream.state.name === "live";
  if (!document.hidden && due && !board.isInStep) refreshHistory();
}, 5000);
setInterval(() => document.hidden || table.drawTimes(), 5000);
setInterval(() => document.hidden || inspector.countTabs(), 2000);
setInterval(() => document.hidden || refreshHistory(), REFRESH_HISTORY);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refreshHistory();
});
addEventListener("online", () => stream.state.name === "reconnecting" && stream.reconnect());
addEventListener("offline", () => stream.drop("This device is offline"));
// A page kept for the way back must not hold a connection; when it returns, it resumes.
addEventListener("pagehide", () => stream.pause("Left the page"));
addEventListener("pageshow", ({ persisted }) => persisted && stream.reconnect());

select(chosen("ticker").toUpperCase() || null);
refreshHistory();

if (LOOPBACK.includes(location.hostname)) {
  new ViewAs(base, {
    chosen: (choice) => choice || filter.set([]),
    configuration: ({ tickers }) => filter.set(tickers ?? []),
    frame: (frame, user) => log.add(frame, `as ${user}`),
    state: (text) => log.note(text),
  }).offer();
}
