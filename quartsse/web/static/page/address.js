/** What is chosen on the page, mirrored in its address: a link shows what its sender saw. */

export const chosen = (name) => new URLSearchParams(location.search).get(name) ?? "";

/** Sets a parameter of the address; an empty one goes. */
export function choose(name, value) {
  const url = new URL(location.href);
  if (value) url.searchParams.set(name, value);
  else url.searchParams.delete(name);
  history.replaceState(history.state, "", url.href.replaceAll("%2C", ","));
}
