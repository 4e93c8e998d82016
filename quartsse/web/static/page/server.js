/** What the service says about itself: the operator's view and the footer. */

import { $, count, decimal, drawFigures, duration, setText } from "./format.js";

const EVERY = 15000;
const KEPT = 120; // half an hour of figures

/** Asks for the status now and then while the page can be seen; `heard` gets each answer. */
export class ServerPanel {
  #url;
  #heard;
  #streams = [];
  #units = [];

  constructor(url, heard) {
    this.#url = url;
    this.#heard = heard;
    this.refresh();
    setInterval(() => document.hidden || this.refresh(), EVERY);
  }

  async refresh() {
    try {
      const answer = await fetch(this.#url, { cache: "no-store", signal: AbortSignal.timeout(10000) });
      if (!answer.ok) throw new Error(`it answered ${answer.status}`);
      this.#draw(await answer.json());
    } catch {
      setText("server-note", "The status cannot be read at the moment; these are the last figures.");
    }
  }

  #draw(status) {
    const feed = status.feed ?? {};
    this.#drawProcess(status);
    this.#drawFeed(feed);
    setText("server-note", "From the service's status, every 15 s.");
    this.#heard(status);
  }

  #drawProcess(status) {
    setText("capacity", `${count(status.connections)} of ${count(status.max_connections)}`);
    $("capacity-meter").max = status.max_connections || 1;
    $("capacity-meter").value = status.connections;
    setText("available", count(status.available));
    setText("uptime", duration(status.uptime_seconds));
    for (const id of ["version", "operator-version"]) setText(id, status.version ?? "–");
    for (const id of ["instance", "operator-instance"]) setText(id, status.instance ?? "–");
    $("instance-part").hidden = !status.instance;
    trend("streams-spark", this.#streams, status.connections);
  }

  #drawFeed(feed) {
    setText("operator-feed", feed.state ?? "–");
    $("operator-feed").dataset.feed = feed.state ?? "";
    setText("operator-age", typeof feed.age_seconds === "number" ? `${duration(feed.age_seconds)} ago` : "–");
    setText("items", count(feed.items));
    setText("sweep", duration(feed.sweep_seconds));
    setText("hot", duration(feed.hot_seconds));
    setText("read-units", decimal(feed.read_units_per_minute));
    setText("late-median", duration(feed.lateness_seconds?.p50));
    setText("late-tail", duration(feed.lateness_seconds?.p99));
    trend("units-spark", this.#units, feed.read_units_per_minute);
    say("operator-reason", feed.reason);
    say("operator-advice", feed.advice);
  }
}

function trend(id, figures, figure) {
  if (typeof figure !== "number") return;
  figures.push(figure);
  if (figures.length > KEPT) figures.shift();
  drawFigures($(id), figures);
}

function say(id, text) {
  $(id).hidden = !text;
  setText(`${id}-text`, text ?? "");
}
