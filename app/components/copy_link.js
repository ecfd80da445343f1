// Copies an address: of the page, which is the view, or of a saved view.
const SAID_MS = 1600, LONG_SAID_MS = 12000, BEGINS_MS = 120, ENDS_MS = 1500;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// What was typed last is committed by the very click on the button; the address follows within a run of the page.
async function settled() {
  const until = performance.now() + ENDS_MS;
  const runs = () => document.querySelector("[data-testid=stApp]")?.dataset.testScriptState === "running";
  await pause(BEGINS_MS);
  while (runs() && performance.now() < until) await pause(30);
}

function pageAddress() {
  const address = new URL(window.location.href);
  for (const slider of document.querySelectorAll(".lark-slider[data-unwritten]"))
    if (address.searchParams.get(slider.dataset.slider) !== slider.dataset.unwritten)
      address.searchParams.set(slider.dataset.slider, slider.dataset.unwritten);
  return address.href;
}

function byHand(text) {
  const area = document.createElement("textarea");
  area.value = text;
  document.body.appendChild(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
}

function build(parent) {
  const root = document.createElement("div");
  root.className = "lark-copy";
  root.innerHTML = "<code class='lark-copy-text' hidden></code><button type='button' class='lark-copy-link'></button><span role='status' class='lark-copy-status'></span>"
    + "<div class='lark-copy-long' hidden><span></span> <button type='button'>Save view</button></div>";
  parent.append(root);
  return root;
}

export default function ({ data, parentElement }) {
  const root = parentElement.querySelector(".lark-copy") ?? build(parentElement);
  const button = root.querySelector(".lark-copy-link"), status = root.querySelector(".lark-copy-status");
  const long = root.querySelector(".lark-copy-long");
  const target = () => data.link ? new URL(`./${data.link}`, window.location.href).href : pageAddress();
  const text = root.querySelector(".lark-copy-text");
  text.hidden = !data.shown;
  if (data.shown) text.textContent = target();
  if (!root.timer) button.textContent = data.label;
  const rest = () => { root.timer = 0; button.textContent = data.label; status.textContent = ""; long.hidden = true; };
  button.onclick = async () => {
    if (!data.link) await settled();
    const address = target();
    let copied = true;
    try { await navigator.clipboard.writeText(address); } catch { copied = byHand(address); }
    button.textContent = copied ? "Link copied" : data.link ? "Not copied" : "Copy the address bar";
    const isLong = address.length > data.long && !data.link;
    long.hidden = !isLong;
    long.firstElementChild.textContent = `It has ${address.length.toLocaleString("en")} letters, and some programs cut such a link. A saved view has a short one:`;
    status.textContent = isLong ? `${button.textContent}. ${long.textContent}` : button.textContent;
    clearTimeout(root.timer);
    root.timer = setTimeout(rest, isLong ? LONG_SAID_MS : SAID_MS);
  };
  long.querySelector("button").onclick = () => {
    clearTimeout(root.timer);
    rest();
    // After this click has ended: a popover that takes long to open would take its end for a click outside, and close.
    setTimeout(() => document.querySelector(".st-key-save_view button")?.click());
  };
}
