/** What the service says about itself: the operator's panel and the footer. */

import { $, count, decimal, duration, setText } from "./format.js";

const EVERY = 15000;

/** Asks for the status now and then while the page can be seen; `heard` gets each answer. */
export class ServerPanel {
  #url;
  #heard;

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
    const { feed = {} } = status;
    setText("capacity", `${count(status.connections)} of ${count(status.max_connections)}`);
    $("capacity-meter").max = status.max_connections || 1;
    $("capacity-meter").value = status.connections;
    setText("uptime", duration(status.uptime_seconds));
    setText("items", count(feed.items));
    setText("sweep", duration(feed.sweep_seconds));
    setText("read-units", decimal(feed.read_units_per_minute));
    setText("late-median", duration(feed.lateness_seconds?.p50));
    setText("late-tail", duration(feed.lateness_seconds?.p99));
    setText("server-note", "From the service's status, every 15 s.");
    setText("version", status.version ?? "");
    setText("instance", status.instance ?? "");
    $("instance-part").hidden = !status.instance;
    this.#heard(status);
  }
}
