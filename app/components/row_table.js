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
    cells.forEach(([text, slot], column) => {
      const cell = element("td", data.columns[column].number ? "number" : "", row);
      if (column === 0) {
        const button = element("button", "open", cell, text);
        button.type = "button";
        button.setAttribute("aria-label", `${data.open} ${text}`);
        button.onclick = open;
        return;
      }
      if (slot !== null) {
        const color = `light-dark(${LIGHT[slot % LIGHT.length]}, ${DARK[slot % DARK.length]})`;
        element("i", "", cell).style.background = color;
      }
      cell.append(text);
    });
  });
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
  const focused = frame.contains(document.activeElement) ? document.activeElement.textContent.replace(/ [↓↑]$/, "") : null;
  const table = document.createElement("table");
  element("caption", "", table, data.caption);
  head(table, data, report);
  body(table, data, report);
  frame.replaceChildren(table);
  if (focused !== null) {  // who sorts with the keyboard stays where they are
    [...table.querySelectorAll("th button")].find((b) => b.textContent.replace(/ [↓↑]$/, "") === focused)?.focus();
  }
}
