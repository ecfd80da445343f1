// Models × benchmarks with figures, intervals, notes and links. Texts go in as text, never as HTML.
const element = (tag, name, parent, text) => {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  parent.appendChild(made);
  return made;
};

// A link with the address of what it opens: a plain click stays on the page, any other one is the browser's.
function put(said, tag, name, parent, report) {
  const made = element(said.link === undefined ? tag : "a", `${name} ${said.tone}`.trim(), parent, said.text);
  if (said.help) made.title = said.help;
  if (said.link !== undefined) {
    made.href = `${location.pathname}?${said.query}`;
    made.dataset.link = said.link;
    made.onclick = (event) => {
      if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
      event.preventDefault();
      report({ link: said.link });
    };
  }
  return made;
}

const percent = (share) => `${100 * Math.min(1, Math.max(0, share))}%`;

function figure(cell, parent, isReference, report) {
  const top = element("div", "top", parent);
  put(cell.value, "span", "value", top, report);
  if (cell.note) element("small", "", top, cell.note);
  if (cell.range) {
    const [low, value, high] = cell.range;
    const bar = element("div", isReference ? "lark-range reference" : "lark-range", parent);
    bar.setAttribute("aria-hidden", "true");
    const line = element("b", "", bar);
    line.style.left = percent(low);
    line.style.width = percent(high - low);
    element("i", "", bar).style.left = percent(value);
  }
  if (cell.share !== null) {
    const bar = element("div", "lark-bar", parent);
    bar.setAttribute("aria-hidden", "true");
    element("div", "", bar).style.width = percent(cell.share);
  }
  for (const line of cell.lines) put(line, "div", "line", parent, report);
  if (!cell.badges.length) return;
  const badges = element("div", "badges", parent);
  for (const badge of cell.badges) {
    put(badge, "span", "badge", badges, report);
    if (badge.help) element("span", "unseen", badges, `: ${badge.help}. `);
  }
}

function head(table, data, report) {
  const row = element("tr", "", element("thead", "", table));
  element("th", "", row, "Model").scope = "col";
  for (const column of data.columns) {
    const cell = element("th", "", row);
    cell.scope = "col";
    if (column.key) {
      const sorted = column.key === data.sort;
      cell.setAttribute("aria-sort", sorted ? "descending" : "none");
      const button = element("button", sorted ? "sorted" : "", cell, column.label);
      button.type = "button";
      if (sorted) element("span", "", button, " ↓").setAttribute("aria-hidden", "true");
      button.onclick = () => report({ sort: column.key });
    } else {
      cell.append(column.label);
    }
    if (column.note) element("small", "", cell, ` ${column.note}`);
  }
}

function body(table, data, report) {
  const rows = element("tbody", "", table);
  for (const said of data.rows) {
    const row = element("tr", said.reference ? "reference" : "", rows);
    const name = element("th", "name", row);
    name.scope = "row";
    put(said.label, "span", "model", name, report);
    if (said.detail) element("small", "", name, said.detail);
    for (const cell of said.cells) figure(cell, element("td", cell.best ? "best" : "", row), said.reference, report);
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  const said = JSON.stringify(data);
  let frame = parentElement.querySelector(".lark-matrix");
  if (!frame) {
    frame = element("div", "lark lark-matrix", parentElement);
    const scroller = element("div", "scroller", frame);
    scroller.tabIndex = 0;
    scroller.setAttribute("role", "region");
    element("small", "muted legend", frame);
  }
  frame.report = (event) => setTriggerValue("event", event);
  if (frame.said === said) return;
  frame.said = said;
  const scroller = frame.querySelector(".scroller");
  scroller.setAttribute("aria-label", data.caption);
  frame.querySelector(".legend").textContent = data.legend;
  const report = (event) => frame.report(event);
  const active = document.activeElement;
  const focused = scroller.contains(active) ? [active.dataset.link, active.textContent.replace(/ ↓$/, "")] : null;
  const table = document.createElement("table");
  table.className = "lark-table lark-results";
  element("caption", "unseen", table, data.caption);
  head(table, data, report);
  body(table, data, report);
  scroller.replaceChildren(table);
  frame.dataset.drawn = String(Number(frame.dataset.drawn || 0) + 1);
  if (focused !== null) {  // who uses the keyboard stays where they are
    const same = (one) => one.dataset.link === focused[0] && one.textContent.replace(/ ↓$/, "") === focused[1];
    [...table.querySelectorAll("a, th button")].find(same)?.focus();
  }
}
