// How charts are drawn: colors of the theme in place of tokens, and one template. Pages and reports share it.
const LIGHT = __LIGHT__, DARK = __DARK__;
const PLAIN = {
  light: { good: "#1D7A55", warn: "#9A5B00", bad: "#B3261E" },
  dark: { good: "#6FD9A8", warn: "#F2B65C", bad: "#FF8A80" },
};

const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
const rgba = (hex, alpha) => `rgba(${channels(hex).join(",")},${alpha})`;
const mix = (hex, other, share) => {
  const a = channels(hex), b = channels(other);
  return "#" + a.map((x, i) => Math.round(x + (b[i] - x) * share).toString(16).padStart(2, "0")).join("");
};

function theme(element) {
  const style = getComputedStyle(element), read = (name) => style.getPropertyValue(name).trim();
  const ink = read("--st-text-color"), bg = read("--st-background-color");
  const dark = channels(bg)[0] < 128;
  const colors = {
    ink, bg, accent: read("--st-primary-color"), muted: mix(ink, bg, 0.32), faint: mix(ink, bg, 0.7),
    grid: mix(ink, bg, 0.88), ...PLAIN[dark ? "dark" : "light"],
  };
  (dark ? DARK : LIGHT).forEach((hex, slot) => { colors[`c${slot}`] = hex; });
  return { colors, font: read("--st-font"), key: ink + bg };
}

// "@c3.22" → rgba of the theme. Only whole strings are tokens, so that no label of the data is changed by chance.
const TOKEN = /"@([a-z]+\d*)(?:\.(\d\d))?"/g;
const colored = (text, colors) => text.replace(TOKEN, (whole, name, alpha) =>
  colors[name] ? JSON.stringify(alpha ? rgba(colors[name], Number(`0.${alpha}`)) : colors[name]) : whole);

function template({ colors, font }) {
  const axis = {
    gridcolor: colors.grid, zeroline: false, linecolor: colors.faint, tickcolor: colors.faint, automargin: true,
    tickfont: { color: colors.muted, size: 12 }, title: { font: { color: colors.muted, size: 12 }, standoff: 8 },
  };
  return { layout: {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: font, size: 12, color: colors.ink },
    margin: { l: 8, r: 8, t: 8, b: 8 }, xaxis: axis, yaxis: axis, showlegend: false, autosize: true,
    // A finger scrolls the page; a mouse zooms the chart, and a double click shows all again.
    dragmode: window.matchMedia("(pointer: fine)").matches ? "zoom" : false,
    hoverlabel: { bgcolor: colors.bg, bordercolor: colors.faint, align: "left", font: { color: colors.ink, family: font } },
    colorway: Array.from({ length: 11 }, (_, slot) => colors[`c${slot}`]),
  } };
}

// A figure as it was sent, drawn into an element or changed in place: zoom and selections stay. It is as wide as the
// element unless `said.width` says otherwise.
async function drawFigure(Plotly, plot, said, look) {
  plot.style.height = `${said.height}px`;
  const figure = JSON.parse(colored(said.figure, look.colors));
  const layout = { uirevision: said.key, ...figure.layout, height: said.height, template: template(look) };
  if (said.width) layout.width = said.width;
  await Plotly.react(plot, figure.data, layout, { responsive: true, displayModeBar: false, displaylogo: false });
}

