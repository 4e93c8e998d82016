/** The views of the page behind its tabs, as the ARIA practices have them: arrows move, the address remembers. */

import { choose, chosen } from "./address.js";

export class Tabs {
  #tabs;

  constructor(list) {
    this.#tabs = [...list.querySelectorAll("[role=tab]")];
    for (const tab of this.#tabs) tab.addEventListener("click", () => this.show(tab.dataset.view));
    list.addEventListener("keydown", (event) => this.#move(event));
    this.#select(this.#named(chosen("view")) ?? this.#tabs[0]);
  }

  show(view) {
    const tab = this.#named(view);
    this.#select(tab);
    choose("view", tab === this.#tabs[0] ? "" : view);
  }

  #named(view) {
    return this.#tabs.find((tab) => tab.dataset.view === view);
  }

  #select(chosenTab) {
    for (const tab of this.#tabs) {
      const selected = tab === chosenTab;
      tab.setAttribute("aria-selected", String(selected));
      tab.tabIndex = selected ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !selected;
    }
  }

  #move(event) {
    const at = this.#tabs.indexOf(document.activeElement);
    const last = this.#tabs.length - 1;
    const to = { ArrowLeft: at ? at - 1 : last, ArrowRight: at === last ? 0 : at + 1, Home: 0, End: last }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    this.#tabs[to].focus();
    this.show(this.#tabs[to].dataset.view);
  }
}
