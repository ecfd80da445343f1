// Put before the scripts of the components that need the charts' library: a page has it once.
const loadPlotly = () => (window.larkPlotly ??= window.Plotly ? Promise.resolve(window.Plotly) : new Promise((resolve, reject) => {
  const script = document.createElement("script");
  script.src = __PLOTLY__;
  script.onload = () => resolve(window.Plotly);
  script.onerror = () => { window.larkPlotly = undefined; reject(new Error("the chart library did not load")); };
  document.head.appendChild(script);
}));

