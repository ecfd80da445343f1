// A table whose rows open something and whose heads sort on the server. Texts go in as text, never as HTML.
const LIGHT = __LIGHT__, DARK = __DARK__;

const element = (tag, name, parent, text) => {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  parent.appendChild(made);
  return made;
};

function head(table, data, report) {
  const row = element("tr", "", element("thead", "", table));
  for (const column of data.columns) {
    const cell = element("th", column.number ? "number" : "", row);
    cell.scope = "col";
    if (column.help) cell.title = column.help;
    if (!column.key) { cell.textContent = column.label; continue; }
    const sorted = column.key === data.sort;
    cell.setAttribute("aria-sort", sorted ? (data.descending ? "descending" : "ascending") : "none");
    const button = element("button", sorted ? "sorted" : "", cell, column.label);
    button.type = "button";
    element("span", "", button, sorted ? (data.descending ? " ↓" : " ↑") : "").setAttribute("aria-hidden", "true");
    button.onclick = () => report({ kind: "sort", column: column.key });
  }
}

function body(table, data, report) {
  const rows = element("tbody", "", table);
  data.rows.forEach((cells, place) => {
    const row = element("tr", "", rows);
    const open = () => report({ kind: "open", row: place });
    row.onclick = (event) => { if (!event.target.closest("button") && !String(getSelection())) open(); };
    cells.forEach((said, column) => {
      const cell = element("td", data.columns[column].number ? "number" : "", row);
      if (column > 0) return fill(cell, said);
      const button = element("button", "open", cell, said[0]);
      button.type = "button";
      button.setAttribute("aria-label", `${data.open} ${said[0]}`);
      button.onclick = open;
    });
  });
}

function fill(cell, [text, slot, tone]) {
  cell.replaceChildren();
  if (slot !== null) {
    const color = `light-dark(${LIGHT[slot % LIGHT.length]}, ${DARK[slot % DARK.length]})`;
    element("i", "", cell).style.background = color;
  } else if (tone) {
    element("i", tone, cell);
  }
  cell.append(text);
}

// The same rows with other figures: a table that is followed live keeps its elements, and so clicks and the focus.
function patch(table, before, data) {
  table.caption.textContent = data.caption;
  [...table.tBodies[0].rows].forEach((row, place) => [...row.cells].forEach((cell, column) => {
    const said = data.rows[place][column];
    if (column > 0 && JSON.stringify(said) !== JSON.stringify(before[place][column])) fill(cell, said);
  }));
}

export default function ({ data, parentElement, setTriggerValue }) {
  const said = JSON.stringify(data);
  let frame = parentElement.querySelector(".lark-rows");
  if (!frame) {
    frame = element("div", "lark-rows", parentElement);
    frame.tabIndex = 0;
    frame.setAttribute("role", "region");
  }
  frame.report = (event) => setTriggerValue("event", event);
  if (frame.said === said) return;
  frame.said = said;
  frame.setAttribute("aria-label", data.caption);
  const report = (event) => frame.report(event);
  const shape = JSON.stringify([data.columns, data.open, data.sort, data.descending, data.rows.map((row) => row[0])]);
  const before = frame.rows;
  frame.rows = data.rows;
  if (frame.shape === shape) return patch(frame.querySelector("table"), before, data);
  frame.shape = shape;
  const focused = frame.contains(document.activeElement) ? document.activeElement.textContent.replace(/ [↓↑]$/, "") : null;
  const table = document.createElement("table");
  element("caption", "", table, data.caption);
  head(table, data, report);
  body(table, data, report);
  frame.replaceChildren(table);
  if (focused !== null) {  // who sorts or walks with the keyboard stays where they are
    [...table.querySelectorAll("button")].find((b) => b.textContent.replace(/ [↓↑]$/, "") === focused)?.focus();
  }
}
