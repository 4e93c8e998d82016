/** The connection, opened up: drop it, resume it from an id, go offline, change the transport. */

import { $, count, press, seconds, setText } from "./format.js";

export class Inspector {
  #stream;
  #liveSince = null;
  #lives = 0;
  #repeats = 0;

  constructor(stream, note) {
    this.#stream = stream;
    $("drop").addEventListener("click", () => {
      stream.drop("Dropped by hand");
    });
    $("offline").addEventListener("click", () => this.#toggleOffline());
    $("resume-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const lastEventId = $("resume-id").value.trim();
      note(lastEventId ? "Resuming from the given id" : "Beginning afresh, without an id");
      stream.reconnect({ lastEventId });
    });
    const modes = [...document.querySelectorAll("[data-mode]")];
    for (const button of modes) button.addEventListener("click", () => this.#changeMode(modes, button));
    press(
      modes,
      modes.find((button) => button.dataset.mode === stream.mode),
    );
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
  }

  #toggleOffline() {
    if (this.#stream.state.name === "paused") this.#stream.reconnect();
    else this.#stream.pause("Taken offline by hand");
  }

  #changeMode(modes, button) {
    press(modes, button);
    this.#stream.reconnect({ mode: button.dataset.mode });
  }
}
