// What cells showed is told of a dark page as JupyterLab tells it, so that cards have one dark palette.
const prefersDark = matchMedia("(prefers-color-scheme: dark)");

function tell() {
  const theme = document.body.dataset.theme;
  const isDark = theme === "dark" || (theme !== "light" && prefersDark.matches);
  for (const shown of document.querySelectorAll(".nb-shown")) shown.dataset.jpThemeLight = String(!isDark);
}

addEventListener("DOMContentLoaded", () => {
  tell();
  new MutationObserver(tell).observe(document.body, { attributes: true, attributeFilter: ["data-theme"] });
});
prefersDark.addEventListener("change", tell);
