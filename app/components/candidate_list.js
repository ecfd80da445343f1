// The candidates of a problem, changed in place. Everything that the server sends is put in as text, never as HTML.
const SVG = "http://www.w3.org/2000/svg";
const VERDICTS = { correct: ["✓", "correct"], wrong: ["✗", "wrong"], unknown: ["·", "correctness unknown"] };

const NOTES = { cut: "truncated when it was scored", "⚑": "flagged" };

const element = (tag, name, parent) => {
  const made = document.createElement(tag);
  if (name) made.className = name;
  parent.appendChild(made);
  return made;
};
const setText = (node, text) => { if (node.textContent !== text) node.textContent = text; };

function build(root) {
  const head = element("header", "", root);
  root.parts = { title: element("h3", "", head), note: element("p", "", head) };
  root.parts.columns = element("div", "columns", root);
  root.parts.columns.setAttribute("aria-hidden", "true");
  for (const name of ["rank", "who", "energy", "weight", "verdict", "tokens", "versus"]) {
    root.parts[`head_${name}`] = element("span", name, root.parts.columns);
  }
  root.parts.list = element("ol", "", root);
}

function buildRow(list) {
  const item = element("li", "", list), show = element("button", "show", item);
  show.type = "button";
  const part = (name, parent) => element("span", name, parent ?? show);
  item.parts = { show, rank: part("rank") };
  const who = part("who");
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 12 12");
  svg.setAttribute("aria-hidden", "true");
  item.parts.path = svg.appendChild(document.createElementNS(SVG, "path"));
  who.appendChild(svg);
  item.parts.teacher = part("teacher", who);
  item.parts.notes = part("notes", who);
  const energy = part("energy");
  item.parts.track = part("track", energy);
  item.parts.bar = part("bar", item.parts.track);
  item.parts.zero = part("zero", item.parts.track);
  item.parts.threshold = part("threshold", item.parts.track);
  item.parts.value = part("value", energy);
  for (const name of ["weight", "verdict", "tokens"]) item.parts[name] = part(name);
  item.parts.versus = element("button", "versus", item);
  item.parts.versus.type = "button";
  return item;
}

function fillRow(item, row, said, pick, compare) {
  const parts = item.parts, [sign, verdict] = VERDICTS[row.verdict];
  item.style.setProperty("--teacher", row.color);
  parts.path.setAttribute("d", row.shape);
  setText(parts.rank, row.rank);
  setText(parts.teacher, row.teacher);
  parts.teacher.title = row.teacher;
  setText(parts.notes, row.notes.join(" · "));
  parts.notes.title = row.notes.map((note) => NOTES[note] ?? note).join(", ");
  setText(parts.value, row.energy);
  parts.value.title = row.bar ? "" : row.energy;
  setText(parts.weight, row.weight);
  setText(parts.verdict, sign);
  parts.verdict.className = `verdict ${row.verdict}`;
  setText(parts.tokens, row.tokens);
  parts.bar.hidden = parts.track.hidden = !row.bar;
  if (row.bar) {
    parts.bar.style.left = `${row.bar[0]}%`;
    parts.bar.style.width = `${Math.max(row.bar[1] - row.bar[0], 0.6)}%`;
  }
  parts.zero.style.left = `${said.zero}%`;
  parts.threshold.hidden = said.threshold === null;
  parts.threshold.style.left = `${said.threshold}%`;
  const isShown = row.id === said.shown, isVersus = row.id === said.versus;
  item.className = [row.kept ? "kept" : "", isShown ? "shown" : "", isVersus ? "versus" : ""].join(" ").trim();
  item.dataset.candidate = row.id;
  parts.show.setAttribute("aria-current", isShown ? "true" : "false");
  parts.show.setAttribute("aria-label", [
    `candidate ${row.id}`, row.teacher, row.rank === "–" ? "no rank" : `rank ${row.rank}`,
    row.bar ? `${said.symbol} ${row.energy}` : row.energy, `weight ${row.weight}`, verdict, `${row.tokens} tokens`,
    ...row.notes.map((note) => NOTES[note] ?? note),
  ].join(", "));
  setText(parts.versus, isVersus ? "B" : "⇄");
  const comparing = isVersus ? `Stop comparing with candidate ${row.id}` : `Compare with candidate ${row.id}`;
  parts.versus.setAttribute("aria-label", comparing);
  parts.versus.setAttribute("aria-pressed", isVersus ? "true" : "false");
  parts.versus.title = comparing;
  parts.show.onclick = () => pick({ shown: row.id });
  parts.versus.onclick = () => compare(row.id);
}

export default function ({ data, parentElement, setTriggerValue }) {
  let root = parentElement.querySelector(".lark-candidates");
  if (!root) build(root = element("section", "lark-candidates", parentElement));
  const parts = root.parts, list = parts.list;
  setText(parts.title, data.title);
  setText(parts.note, data.note);
  const heads = { rank: "#", who: "Teacher", energy: data.symbol, weight: "Weight", verdict: "✓", tokens: "Tokens", versus: "" };
  for (const [name, text] of Object.entries(heads)) setText(parts[`head_${name}`], text);
  // Each click says the whole choice: of two in a row the server may hear the second one only.
  let chosen = { shown: data.shown, versus: data.versus };
  const pick = (change) => setTriggerValue("picked", chosen = { ...chosen, ...change });
  const compare = (id) => pick({ versus: id === chosen.versus ? null : id });
  while (list.children.length > data.rows.length) list.lastChild.remove();
  data.rows.forEach((row, place) => fillRow(list.children[place] ?? buildRow(list), row, data, pick, compare));
  const shown = list.querySelector("li.shown"), key = data.shown + data.rows.length;
  if (shown && root.key !== key) {  // follow the choice inside of the list, without moving the page
    const top = shown.offsetTop - list.offsetTop, bottom = top + shown.offsetHeight;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
  }
  root.key = key;
}
