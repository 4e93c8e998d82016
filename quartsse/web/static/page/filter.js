/** The ticker filter: one input, mirrored in the address as `?tickers=`. */

import { choose, chosen } from "./address.js";

const SYMBOL = /^[A-Za-z0-9.-]{1,10}$/;

export class TickerFilter {
  #input;
  #changed;
  #terms = [];

  constructor(input, changed) {
    this.#input = input;
    this.#changed = changed;
    input.addEventListener("input", () => this.#read({ mirror: true }));
    addEventListener("popstate", () => this.#readAddress());
    addEventListener("keydown", (event) => this.#focusOnSlash(event));
    this.#readAddress();
  }

  /** Whole symbols where the ticker exists, beginnings otherwise. */
  matches(ticker) {
    return this.#terms.length === 0 || this.#terms.some((term) => ticker.startsWith(term));
  }

  get isEmpty() {
    return this.#terms.length === 0;
  }

  /** What to ask a stream for: at most 50 symbols that the service would take, or all. */
  parameter(known) {
    if (this.isEmpty) return "*";
    const shown = [...known].filter((ticker) => this.matches(ticker));
    const symbols = (shown.length ? shown : this.#terms).filter((term) => SYMBOL.test(term));
    return symbols.slice(0, 50).join(",") || "*";
  }

  set(tickers) {
    this.#input.value = tickers.join(", ");
    this.#read({ mirror: true });
  }

  #readAddress() {
    const tickers = chosen("tickers");
    this.#input.value = tickers === "*" ? "" : tickers.split(",").join(", ");
    this.#read({ mirror: false });
  }

  #read({ mirror }) {
    this.#terms = this.#input.value
      .toUpperCase()
      .split(/[\s,;]+/)
      .filter(Boolean);
    if (mirror) choose("tickers", this.#terms.join(","));
    this.#changed();
  }

  #focusOnSlash(event) {
    const typing = event.target instanceof Element && event.target.closest("input, select, textarea");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.#input.focus();
    this.#input.select();
  }
}
