// Copies the address of the page: the address is the view.
export default function ({ parentElement }) {
  let button = parentElement.querySelector("button");
  if (button) return;
  button = document.createElement("button");
  button.type = "button";
  button.className = "lark-copy-link";
  button.textContent = "Copy link";
  const status = document.createElement("span");
  status.setAttribute("role", "status");
  status.className = "lark-copy-status";
  const byHand = (text) => {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.appendChild(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  };
  button.onclick = async () => {
    const address = window.location.href;
    let copied = true;
    try { await navigator.clipboard.writeText(address); } catch { copied = byHand(address); }
    button.textContent = copied ? "Link copied" : "Copy the address bar";
    status.textContent = button.textContent;
    setTimeout(() => { button.textContent = "Copy link"; status.textContent = ""; }, 1600);
  };
  parentElement.append(button, status);
}
