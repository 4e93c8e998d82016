/** Sets the theme before the first paint: a classic script, because a module would come after it. */
(() => {
  const order = ["system", "light", "dark"];
  const root = document.documentElement;
  const read = () => {
    try {
      return localStorage.getItem("quartsse-theme") ?? "system";
    } catch {
      return "system"; // storage is forbidden here: the choice then lasts as long as the page
    }
  };
  let theme = order.includes(read()) ? read() : "system";

  const show = () => {
    if (theme === "system") root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", theme);
    const button = document.getElementById("theme");
    if (button) {
      button.querySelector("use").setAttribute("href", `#i-theme-${theme}`);
      button.querySelector("span").textContent = `Theme: ${theme}`;
      button.title = `Theme: ${theme}`;
    }
    document.dispatchEvent(new CustomEvent("themechange"));
  };

  const next = () => {
    theme = order[(order.indexOf(theme) + 1) % order.length];
    try {
      localStorage.setItem("quartsse-theme", theme);
    } catch {
      // As above.
    }
    show();
  };

  show();
  document.addEventListener("DOMContentLoaded", () => {
    show();
    document.getElementById("theme").addEventListener("click", next);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
})();
