/** The four counts at the top, and the bar that shows their shares. */

import { $, count, percent, setText } from "./format.js";

export function drawTotals({ metrics }) {
  if (!metrics) return;
  const { total } = metrics;
  for (const name of ["total", "positive", "neutral", "negative"]) {
    setText(name, count(metrics[name]));
    $(name).dataset.value = String(metrics[name]);
    if (name !== "total") setText(`${name}-note`, `${percent(metrics[name], total)} of all`);
  }
  setText("total-note", "items in the window");
  setText("rate-hour", count(metrics.rate_last_hour));
  setText("rate-day", count(metrics.rate_last_24h));
  drawBalance(metrics);
}

function drawBalance(metrics) {
  let x = 0;
  for (const bar of $("balance").children) {
    const width = metrics.total > 0 ? (100 * metrics[bar.getAttribute("class")]) / metrics.total : 0;
    bar.setAttribute("x", x.toFixed(3));
    bar.setAttribute("width", width.toFixed(3));
    x += width;
  }
}
