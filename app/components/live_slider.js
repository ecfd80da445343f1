// A slider that acts while it is dragged, at the pace of the page: the next value goes out when the last one is painted.
const element = (tag, name, parent) => {
  const made = document.createElement(tag);
  made.className = name;
  parent.appendChild(made);
  return made;
};
const SETTLED_MS = 350, LOST_MS = 1500, NOTHING_PAINTED_MS = 250;

function build(parent) {
  const root = element("div", "lark-slider", parent);
  const head = element("div", "head", root);
  root.name = element("label", "", head);
  root.output = element("output", "", head);
  root.input = element("input", "", root);
  root.input.type = "range";
  root.input.id = root.name.htmlFor = `lark-slider-${Math.random().toString(36).slice(2)}`;
  root.detail = element("div", "detail", root);
  return root;
}

export default function ({ data, parentElement, setStateValue }) {
  const root = parentElement.querySelector(".lark-slider") ?? build(parentElement);
  const { input } = root;
  root.data = data;
  root.dataset.slider = data.param;
  root.name.textContent = data.label;
  root.detail.textContent = data.detail;
  root.detail.hidden = !data.detail;
  input.min = 0; input.max = data.stops.length - 1; input.step = 1; input.disabled = data.disabled;
  const show = (text) => { root.output.textContent = text; input.setAttribute("aria-valuetext", text); };
  const moving = () => root.want !== undefined || root.pressed;
  if (!moving()) {
    input.value = data.place; show(data.text);
    if (root.dataset.unwritten !== data.stops[data.place]) delete root.dataset.unwritten;
  }

  const send = (place, settled) => {
    root.busy = true; root.sent = place; root.sentAt = performance.now();
    setStateValue("moved", { stop: data.stops[place], settled, count: (root.count = (root.count ?? 0) + 1) });
    // What changes nothing on the page brings neither a paint nor a run of this component.
    clearTimeout(root.fallback);
    root.fallback = setTimeout(() => { if (root.busy) root.next(); }, settled ? NOTHING_PAINTED_MS : LOST_MS);
  };
  const next = () => {
    root.busy = false;
    if (root.want === undefined) return;
    if (root.want !== root.sent) send(root.want, false);
    else if (root.calm && !root.pressed) { send(root.want, true); root.want = undefined; }
  };
  const settle = () => { clearTimeout(root.timer); root.timer = setTimeout(() => { root.calm = true; if (!root.busy) next(); }, SETTLED_MS); };

  input.oninput = () => {
    const place = Number(input.value);
    show(root.data.labels[place]);
    root.want = place; root.calm = false;
    root.dataset.unwritten = root.data.stops[place];  // until the address says it, what copies the address adds it
    if (!root.busy || performance.now() - root.sentAt > LOST_MS) send(place, false);
    settle();
  };
  input.onpointerdown = () => { root.pressed = true; };
  // Let go, it rests at once; the keyboard may be pressed again.
  input.onpointerup = input.onpointercancel = () => { root.pressed = false; root.calm = true; if (!root.busy) next(); };
  // This run of the component says that the server saw the value; the charts that show it follow, or none has changed.
  if (root.busy) {
    clearTimeout(root.fallback);
    root.fallback = setTimeout(() => { if (root.busy) next(); }, NOTHING_PAINTED_MS);
  }
  if (!root.listen) {
    root.listen = () => { if (root.busy) { clearTimeout(root.fallback); root.next(); } };
    document.addEventListener("lark:painted", root.listen);
  }
  root.next = next;
  return () => { document.removeEventListener("lark:painted", root.listen); root.listen = null; clearTimeout(root.timer); };
}
