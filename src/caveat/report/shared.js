// What every page of ours can do: explain a term, sort a table, mark the section in view.
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (selector, root = document) => root.querySelector(selector);
const tip = document.getElementById("tip");

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

function showTip(lines, x, y) {
  tip.replaceChildren(...lines.map(([label, text]) => {
    const row = document.createElement("div");
    if (label) {
      const name = document.createElement("span");
      name.textContent = label;
      row.append(name);
    }
    row.append(text);
    return row;
  }));
  tip.hidden = false;
  const box = tip.getBoundingClientRect(), gap = 12;
  const above = y - box.height - gap;
  tip.style.left = `${Math.max(gap, Math.min(x - box.width / 2, document.documentElement.clientWidth - box.width - gap))}px`;
  tip.style.top = `${above > gap ? above : y + gap + 12}px`;
}

function hideTip() { tip.hidden = true; }

function listenToTips() {
  const termOf = (event) => event.target.closest?.(".term");
  const open = (term) => {
    const box = term.getBoundingClientRect();
    showTip([["", term.dataset.tip]], box.left + box.width / 2, box.top);
    term.setAttribute("aria-describedby", "tip");
  };
  for (const kind of ["pointerover", "focusin", "click"]) {
    document.addEventListener(kind, (event) => { if (termOf(event)) open(termOf(event)); else if (kind === "click") hideTip(); });
  }
  for (const kind of ["pointerout", "focusout"]) document.addEventListener(kind, (event) => { if (termOf(event)) hideTip(); });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
  window.addEventListener("scroll", hideTip, { passive: true });
}

function sortBy(button) {
  const head = button.closest("th"), table = head.closest("table"), body = table.tBodies[0];
  const down = head.getAttribute("aria-sort") !== "descending";
  all("th", table.tHead).forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = (row) => {
    const cell = row.children[head.cellIndex], number = one("data", cell);
    return number ? Number(number.value) : cell.textContent.trim();
  };
  const order = (a, b) => (typeof a === "number" && typeof b === "number" ? b - a : String(b).localeCompare(String(a)));
  const rows = [...body.rows].sort((a, b) => (down ? 1 : -1) * order(key(a), key(b)));
  body.append(...rows);
}

function listenToSorting() {
  for (const button of all(".sort")) button.addEventListener("click", () => sortBy(button));
}

function markSection() {
  const links = all("nav a"), strip = one("nav div");
  const sections = links.map((link) => one(link.hash));
  let current = null, asked = false;
  const look = () => {
    asked = false;
    const above = sections.filter((section) => section.getBoundingClientRect().top < window.innerHeight * 0.4);
    const link = links[Math.max(0, above.length - 1)];
    if (link === current) return;
    current?.removeAttribute("aria-current");
    link.setAttribute("aria-current", "true");
    strip.scrollTo({ left: link.offsetLeft - strip.clientWidth / 3 });
    current = link;
  };
  window.addEventListener("scroll", () => { if (!asked) { asked = true; requestAnimationFrame(look); } }, { passive: true });
  look();
}
