/** "View as": a configuration's own stream beside the global one, where the demo publishes its users. */

import { connect } from "../quartsse.js";
import { $, element, setText } from "./format.js";

/**
 * Shows itself only where `demo/users` answers with
 * `{"users": [{"user_id": …, "configurations": [{"config_id": …, "name": …}]}]}`.
 */
export class ViewAs {
  #base;
  #heard;
  #stream = null;

  constructor(base, heard) {
    this.#base = base;
    this.#heard = heard;
  }

  async offer() {
    const users = await published(new URL("demo/users", this.#base));
    const choices = users.flatMap(({ user_id: user, configurations = [] }) =>
      configurations.map(({ config_id: id, name }) => ({ user, id, text: `${user}: ${name ?? id}` })),
    );
    if (choices.length === 0) return;
    const select = $("view-as-select");
    select.replaceChildren(element("option", { text: "everyone", value: "" }));
    choices.forEach(({ text }, index) => select.append(element("option", { text, value: String(index) })));
    select.addEventListener("change", () => this.#show(choices[select.value]));
    $("view-as").hidden = false;
  }

  #show(choice) {
    this.#stream?.close();
    this.#stream = null;
    setText("view-as-state", "");
    this.#heard.chosen(choice);
    if (!choice) return;
    const url = new URL(`api/v2/configurations/${encodeURIComponent(choice.id)}/stream`, this.#base);
    this.#stream = connect(url, { ticket: () => this.#ticket(choice.user), pollAfter: 0 });
    this.#stream.on("event", (_, frame) => this.#heard.frame(frame, choice.user));
    this.#stream.on("configuration", (configuration) => this.#heard.configuration(configuration));
    this.#stream.on("state", ({ name, reason, retryAt }) => {
      setText("view-as-state", name);
      if (name === "live" || retryAt !== null) this.#heard.state(`${choice.text}: ${name} ${reason}`.trim());
    });
  }

  /** Every connection takes a fresh one: a ticket opens one stream. */
  async #ticket(user) {
    const url = new URL("api/v2/stream/tickets", this.#base);
    const answer = await fetch(url, {
      method: "POST",
      headers: { "X-User-ID": user },
      signal: AbortSignal.timeout(10000),
    });
    if (!answer.ok) throw new Error(`No ticket: the server answered ${answer.status}`);
    return (await answer.json()).ticket;
  }
}

async function published(url) {
  try {
    const answer = await fetch(url, { headers: { Accept: "application/json" } });
    if (answer.status !== 200) return [];
    const body = await answer.json();
    const users = Array.isArray(body) ? body : body.users;
    return Array.isArray(users) ? users : [];
  } catch {
    return []; // not a demo: nobody to view as
  }
}
