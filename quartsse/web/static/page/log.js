/** The log of events: newest first, with pause, filters, search, raw frames and a curl line to copy. */

import { choose, chosen } from "./address.js";
import { $, count, decimal, element, icon, kindOf, score, setText, time } from "./format.js";

const KEPT = 500;
const SHOWN = 150;

const KINDS = { sentiment_update: "updates", metrics: "metrics", heartbeat: "heartbeats" };

const SUMMARIES = {
  sentiment_update: (data) => [`${score(data.score)} ${data.label ?? ""}`, data.source],
  metrics: (data) => [
    `${count(data.total)} items`,
    `${count(data.positive)} / ${count(data.neutral)} / ${count(data.negative)}`,
  ],
  heartbeat: (data) => [
    `feed ${data.feed ?? "live"}`,
    `${count(data.connections)} open, read ${decimal(data.feed_age_seconds)} s ago`,
  ],
  resume: (data) => [`resumed, ${data.mode}`, `${count(data.replayed)} replayed`],
  stream_end: (data) => [`ended: ${data.reason}`, `retry in ${decimal(data.retry_ms / 1000)} s`],
  configuration: (data) => [data.name ?? data.config_id, (data.tickers ?? []).join(", ")],
};

export class EventLog {
  #filter;
  #useId;
  #curl;
  #entries = [];
  #waiting = [];
  #paused = false;
  #total = 0;

  constructor(filter, { useId, curl }) {
    this.#filter = filter;
    this.#useId = useId;
    this.#curl = curl;
    $("log-pause").addEventListener("click", () => this.#pause(!this.#paused));
    $("log-clear").addEventListener("click", () => this.#clear());
    this.#readAddress();
    $("log-search").addEventListener("input", () => this.#filtered());
    for (const box of [...this.#boxes, $("log-raw")]) box.addEventListener("change", () => this.#filtered());
  }

  get #boxes() {
    return [...document.querySelectorAll("[name=kind]")];
  }

  #readAddress() {
    const kinds = chosen("events");
    if (kinds) for (const box of this.#boxes) box.checked = kinds.split(",").includes(box.value);
    $("log-raw").checked = chosen("raw") !== "";
    $("log-search").value = chosen("search");
  }

  #filtered() {
    const kinds = this.#boxes.filter((box) => box.checked).map((box) => box.value);
    choose("events", kinds.length === this.#boxes.length ? "" : kinds.join(",") || "none");
    choose("raw", $("log-raw").checked ? "1" : "");
    choose("search", $("log-search").value.trim());
    this.redraw();
  }

  /** A frame as it came; `from` says which stream, where there is more than one. */
  add(frame, from = "") {
    this.#push({ at: Date.now(), kind: KINDS[frame.type] ?? "connection", frame, from });
  }

  /** Something that happened to the connection, rather than on it. */
  note(text, from = "") {
    this.#push({ at: Date.now(), kind: "connection", text, from });
  }

  draw() {
    setText("log-count", this.#paused ? `paused, ${count(this.#waiting.length)} waiting` : count(this.#total));
    if (this.#paused || this.#waiting.length === 0) return;
    const fresh = this.#waiting.splice(0);
    this.#entries.push(...fresh);
    if (this.#entries.length > KEPT) this.#entries.splice(0, this.#entries.length - KEPT);
    const list = $("log-entries");
    list.prepend(...this.#rows(fresh));
    while (list.children.length > SHOWN) list.lastElementChild.remove();
    $("log-empty").hidden = list.children.length > 0;
  }

  redraw() {
    $("log-entries").replaceChildren(...this.#rows(this.#entries));
    const empty = $("log-empty");
    empty.hidden = $("log-entries").children.length > 0;
    if (this.#entries.length > 0) setText(empty, "No event matches the filters.");
  }

  #push(entry) {
    this.#total += 1;
    this.#waiting.push(entry);
    if (this.#waiting.length > KEPT) this.#waiting.shift();
  }

  #rows(entries) {
    const shows = this.#wanted();
    const raw = $("log-raw").checked;
    return entries
      .filter(shows)
      .slice(-SHOWN)
      .reverse()
      .map((entry) => this.#row(entry, raw));
  }

  #wanted() {
    const kinds = new Set(this.#boxes.filter((box) => box.checked).map((box) => box.value));
    const search = $("log-search").value.trim().toLowerCase();
    return (entry) => {
      const ticker = entry.frame?.data?.ticker;
      if (!kinds.has(entry.kind) || (ticker !== undefined && !this.#filter.matches(String(ticker)))) return false;
      return !search || (entry.text ?? rawFrame(entry.frame)).toLowerCase().includes(search);
    };
  }

  #row(entry, raw) {
    const when = element("time", { text: time(entry.at) });
    if (!entry.frame)
      return element("li", { className: "connection" }, when, element("span", { className: "text", text: entry.text }));
    const details = element("details", {}, element("summary", {}, when, ...this.#summary(entry)));
    const open = () => {
      if (details.children.length === 1) details.append(...this.#inside(entry.frame));
    };
    details.addEventListener("toggle", open, { once: true });
    if (raw) {
      open();
      details.open = true;
    }
    return element("li", { className: entry.kind }, details);
  }

  #summary({ frame, from }) {
    const data = frame.data ?? {};
    const [main, rest] = (SUMMARIES[frame.type] ?? (() => ["", ""]))(data);
    const isUpdate = frame.type === "sentiment_update";
    const name = isUpdate ? data.ticker : frame.type;
    const parts = [element("span", { className: isUpdate ? "name ticker" : "name", text: String(name) })];
    const text = element("span", { className: `text ${isUpdate ? kindOf(data.label) : ""}` });
    if (isUpdate) text.append(icon(kindOf(data.label)));
    text.append(element("span", { text: String(main ?? "") }));
    parts.push(
      text,
      element("span", {
        className: "rest",
        text: [rest, from, frame.polled ? "polled" : ""].filter(Boolean).join(" · "),
      }),
    );
    return parts;
  }

  #inside(frame) {
    const pre = element("pre", { text: rawFrame(frame), tabindex: "0" });
    const copy = element("button", { type: "button", className: "button", text: "Copy frame" });
    copy.addEventListener("click", () => copyText(rawFrame(frame), copy));
    if (!frame.id) return [pre, element("p", { className: "tools" }, copy)];
    const resume = element("button", { type: "button", className: "button", text: "Resume from here" });
    resume.addEventListener("click", () => this.#useId(frame.id));
    const curl = element("button", { type: "button", className: "button", text: "Copy as curl from here" });
    curl.addEventListener("click", () => copyText(this.#curl(frame.id), curl));
    return [pre, element("p", { className: "tools" }, copy, curl, resume)];
  }

  #pause(paused) {
    this.#paused = paused;
    const button = $("log-pause");
    button.setAttribute("aria-pressed", String(paused));
    setText(button, paused ? "Resume" : "Pause");
    this.draw();
  }

  #clear() {
    this.#entries = [];
    this.#waiting = [];
    this.#total = 0;
    setText("log-empty", "Cleared. New events appear here.");
    this.redraw();
    this.draw();
  }
}

/** The frame as it was on the wire, except for `retry:`, which the browser keeps to itself. */
export function rawFrame({ type, id, text }) {
  return `event: ${type}\n${id ? `id: ${id}\n` : ""}data: ${text}\n`;
}

/** Copies, says so on the button, and shows the text to be selected where the clipboard is out of reach. */
export async function copyText(text, button) {
  const label = button.dataset.label ?? button.textContent;
  button.dataset.label = label;
  try {
    await navigator.clipboard.writeText(text);
    $("command").hidden = true;
    button.textContent = "Copied";
  } catch {
    setText("command-text", text);
    $("command").hidden = false;
    getSelection().selectAllChildren($("command-text"));
    button.textContent = "Select and copy";
  }
  setTimeout(() => (button.textContent = label), 2000);
}
