// Cards with charts that Plotly.react changes in place. Everything that the server sends is put in as text, never as HTML.
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

const element = (tag, name, parent) => {
  const made = document.createElement(tag);
  made.className = name;
  parent.appendChild(made);
  return made;
};

function cardOf(grid, key) {
  let card = [...grid.children].find((child) => child.dataset.card === key);
  if (card) return card;
  card = element("section", "lark-board-card", grid);
  card.dataset.card = key;
  const head = element("header", "", card);
  card.parts = { head, title: element("h3", "", head), note: element("p", "", head) };
  return card;
}

function giveUp(grid, error) {
  grid.dataset.error = error.message;
  grid.failure ??= element("p", "lark-board-failure", grid.parentElement);
  grid.failure.setAttribute("role", "alert");
  grid.failure.textContent = `The charts cannot be drawn: ${error.message}. Reload the page to try again.`;
}

const setText = (node, text) => { if (node.textContent !== text) node.textContent = text; node.hidden = !text; };

function showStats(card, stats) {
  card.parts.stats ??= element("dl", "lark-board-stats", card);
  const list = card.parts.stats;
  while (list.children.length > stats.length) list.lastChild.remove();
  stats.forEach((stat, i) => {
    const box = list.children[i] ?? element("div", "", list);
    if (!box.parts) box.parts = { label: element("dt", "", box), value: element("dd", "", box), detail: element("dd", "detail", box) };
    for (const part of ["label", "value", "detail"]) setText(box.parts[part], stat[part]);
  });
}

function wire(plot, card, report) {
  plot.on("plotly_click", (event) => {
    const point = event.points[0];
    report({ card, kind: "click", x: point.x ?? null, y: point.y ?? null, customdata: point.customdata ?? null });
  });
  plot.on("plotly_selected", (event) => {
    if (event?.range) report({ card, kind: "box", x_range: event.range.x ?? null, y_range: event.range.y ?? null });
  });
}

async function showFigure(Plotly, card, said, look, report) {
  card.parts.plot ??= element("div", "lark-board-plot", card);
  const plot = card.parts.plot, key = said.figure + look.key;
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", said.alt);
  if (plot.key === key) return;
  plot.style.height = `${said.height}px`;
  const figure = JSON.parse(colored(said.figure, look.colors));
  const layout = { uirevision: said.key, ...figure.layout, height: said.height, template: template(look) };
  plot.key = key;
  await Plotly.react(plot, figure.data, layout, { responsive: true, displayModeBar: false, displaylogo: false });
  if (!plot.wired) { plot.wired = true; wire(plot, said.key, report); }
}

export default function ({ data, parentElement, setTriggerValue }) {
  const grid = parentElement.querySelector(".lark-board") ?? element("div", "lark-board", parentElement);
  grid.said = data;
  grid.report = (event) => setTriggerValue("event", event);
  const paint = async () => {
    const said = grid.said, look = theme(grid), wanted = new Set(said.cards.map((card) => card.key));
    for (const card of [...grid.children]) {
      if (wanted.has(card.dataset.card)) continue;
      if (card.parts.plot) window.Plotly?.purge(card.parts.plot);
      card.remove();
    }
    const Plotly = said.cards.some((card) => card.figure) ? await loadPlotly() : null;
    const before = grid.scrollHeight;
    for (const [place, part] of said.cards.entries()) {
      const card = cardOf(grid, part.key);
      if (grid.children[place] !== card) grid.insertBefore(card, grid.children[place] ?? null);
      card.style.setProperty("--span", part.span);
      setText(card.parts.title, part.title);
      setText(card.parts.note, part.note);
      card.parts.head.hidden = !part.title && !part.note;
      if (part.stats.length) showStats(card, part.stats);
      if (part.figure) await showFigure(Plotly, card, part, look, (event) => grid.report(event));
    }
    grid.look = look.key;
    grid.paints = (grid.paints ?? 0) + 1;
    grid.dataset.paints = grid.paints;
    document.dispatchEvent(new CustomEvent("lark:painted", { detail: { board: said.board, paint: grid.paints } }));
  };
  // One paint at a time; what arrives meanwhile is painted once, in its newest state.
  const queue = () => {
    if (grid.painting) { grid.again = true; return; }
    grid.painting = paint().catch((error) => giveUp(grid, error)).finally(() => {
      grid.painting = null;
      if (grid.again) { grid.again = false; queue(); }
    });
  };
  queue();
  if (!grid.watch) {
    // Streamlit changes the theme without running the page: the colors in its style variables tell.
    grid.watch = setInterval(() => { if (grid.look && theme(grid).key !== grid.look) queue(); }, 400);
  }
  return () => {
    clearInterval(grid.watch);
    grid.watch = null;
    for (const card of grid.children) if (card.parts?.plot) window.Plotly?.purge(card.parts.plot);
  };
}
