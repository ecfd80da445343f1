// Cards with charts that Plotly.react changes in place. Everything that the server sends is put in as text, never as HTML.
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
  plot.key = key;
  await drawFigure(Plotly, plot, said, look);
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
