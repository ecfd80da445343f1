// The end of a log. Lines go in as text, never as HTML; lines that stay keep their elements, and so what is selected.
const AT_END = 24;  // pixels from the end that still count as there

// How many of the first lines are gone: what is left of the old ones is what the new ones begin with.
function numGone(before, after) {
  for (let gone = 0; gone < before.length; gone += 1) {
    if (before.length - gone > after.length) continue;
    let same = 0;
    while (gone + same < before.length && before[gone + same] === after[same]) same += 1;
    if (gone + same === before.length) return gone;
  }
  return before.length;
}

export default function ({ data, parentElement }) {
  let frame = parentElement.querySelector(".lark-log");
  if (!frame) {
    frame = document.createElement("div");
    frame.className = "lark-log";
    frame.tabIndex = 0;
    frame.setAttribute("role", "log");
    frame.setAttribute("aria-live", "off");  // a line a second is no announcement
    frame.lines = [];
    parentElement.appendChild(frame);
  }
  frame.setAttribute("aria-label", data.label);
  const follows = frame.lines.length === 0 || frame.scrollHeight - frame.scrollTop - frame.clientHeight < AT_END;
  const gone = numGone(frame.lines, data.lines);
  for (let i = 0; i < gone; i += 1) frame.firstChild.remove();
  const added = document.createDocumentFragment();
  for (const line of data.lines.slice(frame.lines.length - gone)) {
    const row = document.createElement("div");
    row.textContent = line || "\u00a0";
    added.appendChild(row);
  }
  frame.appendChild(added);
  frame.lines = data.lines;
  if (follows) frame.scrollTop = frame.scrollHeight;
}
