/** How numbers and times read, and the small pieces of document that show them. */

const whole = new Intl.NumberFormat("en");
const oneDigit = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hour12: false,
});
const hourMinute = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

const SVG = "http://www.w3.org/2000/svg";
const LABELS = ["positive", "neutral", "negative"];

export const NONE = "–";
export const $ = (id) => document.getElementById(id);

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

export const count = (value) => (isNumber(value) ? whole.format(value) : NONE);
export const decimal = (value) => (isNumber(value) ? oneDigit.format(value) : NONE);
export const percent = (part, of) => (of > 0 ? `${oneDigit.format((100 * part) / of)} %` : NONE);
export const time = (ms) => clock.format(ms);
export const shortTime = (ms) => hourMinute.format(ms);
export const fullTime = (ms) => (isNumber(ms) ? full.format(ms) : "");

/** A score with its sign; a true minus, so that columns line up. */
export function score(value) {
  if (!isNumber(value)) return NONE;
  const text = Math.abs(value).toFixed(2);
  if (text === "0.00") return text;
  return (value > 0 ? "+" : "−") + text;
}

export function duration(seconds) {
  if (!isNumber(seconds)) return NONE;
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return hours(seconds);
  return `${Math.floor(seconds / 86400)} days`;
}

function hours(seconds) {
  const minutes = Math.floor((seconds % 3600) / 60);
  return `${Math.floor(seconds / 3600)} h${minutes ? ` ${minutes} min` : ""}`;
}

/** A duration that is shown while it grows: no tenths. */
export const seconds = (value) => (value < 10 ? `${Math.floor(value)} s` : duration(value));

/** How long ago, in words that need not change every second. */
export function ago(ms, now = Date.now()) {
  if (!isNumber(ms)) return NONE;
  const seconds = (now - ms) / 1000;
  if (seconds < 5) return "now";
  if (seconds < 60) return `${Math.floor(seconds / 5) * 5} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

/** An element with text and children; text is only ever text. */
export function element(name, { text, className, title, ...attributes } = {}, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (title) made.title = title;
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export function svg(name, attributes = {}) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

export function icon(name) {
  const made = svg("svg", { class: "icon", "aria-hidden": "true" });
  made.append(svg("use", { href: `#i-${name}` }));
  return made;
}

/** What a label is called in classes and icons: one of three words, whatever the server sent. */
export const kindOf = (label) => (LABELS.includes(label) ? label : "unknown");

/** Sets text only where it differs, so that a selection and a screen reader are left in peace. */
export function setText(target, text) {
  const node = typeof target === "string" ? $(target) : target;
  if (node.textContent !== text) node.textContent = text;
}

/** A line through `[x, y]` points, both from 0 to 1, in an svg of 80 by 20. */
export function drawSpark(target, points, { zero = false } = {}) {
  const shapes = [];
  if (zero) shapes.push(svg("line", { x1: 0, x2: 80, y1: 10, y2: 10, class: "zero" }));
  if (points.length > 1) {
    const path = points.map(([x, y]) => `${(x * 78 + 1).toFixed(1)},${(18 - y * 16).toFixed(1)}`).join(" ");
    shapes.push(svg("polyline", { points: path, fill: "none", "vector-effect": "non-scaling-stroke" }));
  }
  target.replaceChildren(...shapes);
}

/** A line through figures, oldest first; from zero, so that a small change does not look like a cliff. */
export function drawFigures(target, figures, least = 1) {
  const highest = Math.max(least, ...figures);
  const last = Math.max(1, figures.length - 1);
  drawSpark(
    target,
    figures.map((figure, index) => [index / last, figure / highest]),
  );
}

/** A table beside a canvas. */
export function dataTable(headings, rows) {
  const head = element("tr", {}, ...headings.map((text) => element("th", { text, scope: "col" })));
  const body = rows.map(([first, ...rest]) =>
    element("tr", {}, element("th", { text: first, scope: "row" }), ...rest.map((text) => element("td", { text }))),
  );
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
}

/** A button that shows and hides what it controls. */
export function disclosure(button, target, onOpen) {
  button.addEventListener("click", () => {
    target.hidden = !target.hidden;
    button.setAttribute("aria-expanded", String(!target.hidden));
    if (!target.hidden) onOpen();
  });
}

/** Marks which of a group of buttons is the chosen one. */
export function press(buttons, chosen) {
  for (const button of buttons) button.setAttribute("aria-pressed", String(button === chosen));
}
