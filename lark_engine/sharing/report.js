// The figures of a report: drawn once the page is read, again in the colors of another theme, and as wide as paper to print.
const PAPER = 840;  // pixels between the margins of A4 and of Letter, at the zoom that report.css prints with
const root = document.documentElement;
const plots = [...document.querySelectorAll(".lark-board-plot")];
const said = (plot, width) => ({
  key: plot.dataset.key, height: Number(plot.dataset.height), width, figure: plot.nextElementSibling.textContent,
});
const isDark = () => channels(getComputedStyle(document.body).getPropertyValue("--st-background-color").trim())[0] < 128;

function draw(width) {
  const look = theme(document.body);
  return plots.map((plot) => drawFigure(Plotly, plot, said(plot, width), look).catch((error) => {
    plot.textContent = `The figure cannot be drawn: ${error.message}`;
    root.dataset.failed = error.message;
  }));
}

async function drawAll() {
  const look = theme(document.body);
  for (const plot of plots) {
    try { await drawFigure(Plotly, plot, said(plot), look); } catch (error) {
      plot.textContent = `The figure cannot be drawn: ${error.message}`;
      root.dataset.failed = error.message;
    }
  }
  root.dataset.drawn = plots.length;
}

let opened = [];
function beforePrint() {
  if (root.dataset.print !== undefined) return;
  root.dataset.print = "";
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const part of opened) part.open = true;
  draw(PAPER);
}
function afterPrint() {
  if (root.dataset.print === undefined) return;
  delete root.dataset.print;
  for (const part of opened) part.open = false;
  // A width that was said once stays until the chart is asked to look at its room again.
  Promise.all(draw()).then(() => { for (const plot of plots) Plotly.Plots.resize(plot); });
}
window.addEventListener("beforeprint", beforePrint);
window.addEventListener("afterprint", afterPrint);
window.matchMedia("print").addEventListener("change", (event) => (event.matches ? beforePrint() : afterPrint()));

const toggle = document.getElementById("theme");
const name = () => { toggle.textContent = isDark() ? "Light colors" : "Dark colors"; };
toggle.hidden = false;
toggle.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; name(); draw(); });
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { name(); draw(); });
name();
drawAll();
