/** The connection, opened up: drop it, resume it from an id, go offline, read slowly, change the transport. */

import { $, count, press, seconds, setText } from "./format.js";
import { Line } from "./shared.js";

const ROLES = {
  leads: (tabs) => (tabs > 1 ? `held by this tab, for ${count(tabs)} tabs` : "held by this tab"),
  follows: (tabs) => `held by another of ${count(tabs)} tabs`,
  alone: () => "this tab's own",
};

/** What is steered by hand is steered on a connection of this tab's own: the others are left in peace. */
export class Inspector {
  isSlow = false;
  #stream;
  #line;
  #liveSince = null;
  #lives = 0;
  #repeats = 0;
  #tabs = 1;
  #modes = [...document.querySelectorAll("[data-mode]")];

  constructor(stream, line, note) {
    this.#stream = stream;
    this.#line = line;
    $("drop").addEventListener("click", () => {
      line.share(false);
      stream.drop("Dropped by hand");
    });
    $("offline").addEventListener("click", () => this.#toggleOffline());
    $("slow").addEventListener("click", () => this.#toggleSlow());
    $("share").addEventListener("click", () => this.#share());
    $("resume-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const lastEventId = $("resume-id").value.trim();
      note(lastEventId ? "Resuming from the given id" : "Beginning afresh, without an id");
      setText("resume-mode", lastEventId ? "asked for" : "begun afresh");
      line.share(false);
      stream.reconnect({ lastEventId });
    });
    for (const button of this.#modes) button.addEventListener("click", () => this.#transport(button.dataset.mode));
    this.#pressMode();
  }

  useId(id) {
    $("resume-id").value = id;
    $("resume-id").focus();
  }

  repeated() {
    this.#repeats += 1;
  }

  resumed({ mode, replayed }) {
    setText("resume-mode", `${mode}, ${count(replayed)} replayed`);
  }

  stateChanged({ name }) {
    if (name === "live" && this.#liveSince === null) {
      this.#liveSince = Date.now();
      this.#lives += 1;
    }
    if (name !== "live") this.#liveSince = null;
    $("offline").setAttribute("aria-pressed", String(name === "paused"));
    setText("offline", name === "paused" ? "Go online" : "Go offline");
    $("drop").disabled = name !== "live";
  }

  draw() {
    const since = this.#liveSince;
    setText("connected-for", since === null ? "not connected" : seconds((Date.now() - since) / 1000));
    setText("reconnects", count(Math.max(0, this.#lives - 1)));
    setText("repeats", count(this.#repeats));
    setText("last-id", this.#stream.lastEventId || "–");
    const role = this.#stream.mode === "fetch" ? "alone" : this.#line.role;
    setText("sharing", since === null ? "–" : (ROLES[role]?.(this.#tabs) ?? "–"));
    $("share").hidden = since === null || role !== "alone" || !Line.isPossible;
  }

  /** Counted now and then: nobody tells when a tab goes. */
  async countTabs() {
    this.#tabs = await Line.tabs();
  }

  #toggleOffline() {
    if (this.#stream.state.name === "paused") this.#stream.reconnect();
    else this.#stream.pause("Taken offline by hand");
  }

  #toggleSlow() {
    this.isSlow = !this.isSlow;
    this.#transport(this.isSlow ? "fetch" : "eventsource");
  }

  #share() {
    this.isSlow = false;
    this.#line.share(true);
    this.#transport("eventsource");
  }

  /** An EventSource cannot be read slowly. */
  #transport(mode) {
    if (mode === "eventsource") this.isSlow = false;
    this.#stream.reconnect({ mode });
    this.#pressMode();
  }

  #pressMode() {
    press(
      this.#modes,
      this.#modes.find((button) => button.dataset.mode === this.#stream.mode),
    );
    $("slow").setAttribute("aria-pressed", String(this.isSlow));
  }
}
