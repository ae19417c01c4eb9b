// The page: pickers, the heat map, sorting, the threshold.
const state = { score: DATA.start.score, set: DATA.start.set, metric: "auroc", step: 0 };
// A number of the record; `derived` names the sum or ratio when it is computed here from several of them.
function figure(value, kind, derived) {
  const element = document.createElement("data");
  element.value = String(value);
  element.dataset.as = kind;
  if (derived) element.dataset.derived = derived;
  element.textContent = shown(value, kind);
  return element;
}

const interval = ([, low, high], kind = "share") => low === null ? ["(too few to give an interval)"] : ["(", figure(low, kind), "\u2013", figure(high, kind), ")"];

// --- Out-of-distribution inputs ---

const METRICS = {
  auroc: { title: "AUROC", floor: 0.5, up: true },
  aupr_in: { title: "AUPR-In", floor: 0, up: true },
  aupr_out: { title: "AUPR-Out", floor: 0, up: true },
  fpr: { title: "FPR at 95 % TPR", floor: 0, up: false },
};

function paintHeat() {
  const { floor, up } = METRICS[state.metric];
  for (const cell of all(".cell")) {
    const found = DATA.detections[cell.closest("tr").dataset.score][cell.dataset.set];
    const value = found[state.metric];
    const good = Math.max(0, Math.min(1, up ? (value[0] - floor) / (1 - floor) : 1 - value[0]));
    cell.className = `cell g${Math.round(good * 10)}`;
    cell.replaceChildren(figure(value[0], "share"), make("small", "", ...interval(value)));
  }
  const direction = one("#metric-direction");
  if (direction) direction.textContent = `In %; ${up ? "higher" : "lower"} is better.`;
}

function showDetail(score, set) {
  for (const cell of all(".cell")) {
    const here = Number(cell.closest("tr").dataset.score) === score && Number(cell.dataset.set) === set;
    cell.classList.toggle("picked", here);
    if (here) cell.setAttribute("aria-current", "true"); else cell.removeAttribute("aria-current");
  }
  const list = one("#values");
  if (!list) return;
  one("[data-show=score]").textContent = DATA.scores[score];
  one("[data-show=set]").textContent = DATA.ood[set].name;
  const about = DATA.about[score];
  one("[data-about]").textContent = [about.summary, about.source].filter(Boolean).join(" ");
  const found = DATA.detections[score][set];
  list.replaceChildren();
  if (found) {
    for (const [key, { title }] of Object.entries(METRICS)) {
      list.append(make("div", "", make("dt", "", title), make("dd", "", figure(found[key][0], "percent"), " ", make("small", "", ...interval(found[key])))));
    }
    list.append(make("div", "", make("dt", "", "Detection error"), make("dd", "", figure(found.detection_error, "percent"))));
    list.append(make("div", "", make("dt", "", "Share of OOD inputs"), make("dd", "", figure(found.base_rate, "percent"))));
  }
  const empty = { x: [], y: [] };
  draw(one("[data-chart=roc]"), { curve: points(found ? found.roc : empty) });
  draw(one("[data-chart=precision_recall]"), {
    curve: points(found ? found.pr : empty), chance: found ? [{ y: found.base_rate }] : [],
  });
  const sweep = DATA.sweeps[score];
  draw(one("[data-chart=histogram]"), {
    bins: histogramRows(score, set), threshold: sweep ? [{ at: sweep.thresholds[sweep.marks[1]] }] : [],
  });
  draw(one("[data-chart=quantiles]"), { ranges: rangeRows(score) });
}

let waiting = 0;
function preview(cell) {
  clearTimeout(waiting);
  const [score, set] = cell ? [Number(cell.closest("tr").dataset.score), Number(cell.dataset.set)] : [state.score, state.set];
  waiting = setTimeout(() => showDetail(score, set), 50);
}

function showFamily(family, cells) {
  for (const row of all("#heat tbody tr")) row.hidden = Boolean(family) && row.dataset.family !== family;
  // The tab key needs one stop among the rows that are left.
  const stop = all("#heat tbody tr:not([hidden]) .cell")[0];
  cells.forEach((cell) => { cell.tabIndex = cell === stop ? 0 : -1; });
}

function listenToHeat() {
  const heat = one("#heat");
  if (!heat) return;
  const cellOf = (event) => event.target.closest?.(".cell");
  heat.addEventListener("pointerover", (event) => { if (event.pointerType === "mouse" && cellOf(event)) preview(cellOf(event)); });
  heat.addEventListener("pointerleave", () => preview(null));
  heat.addEventListener("focusin", (event) => { if (cellOf(event)?.matches(":focus-visible")) preview(cellOf(event)); });
  heat.addEventListener("focusout", () => preview(null));
  heat.addEventListener("click", (event) => {
    const cell = cellOf(event);
    if (cell) choose({ score: Number(cell.closest("tr").dataset.score), set: Number(cell.dataset.set) });
  });
  // One stop for the tab key; arrows move inside.
  const cells = all(".cell", heat);
  cells.forEach((cell, i) => { cell.tabIndex = i ? -1 : 0; });
  heat.addEventListener("keydown", (event) => {
    const cell = cellOf(event);
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!cell || !move) return;
    event.preventDefault();
    const row = cell.closest("tr"), rows = [...row.parentNode.children].filter((other) => !other.hidden);
    const target = rows[rows.indexOf(row) + move[0]]?.children[cell.parentNode.cellIndex + move[1]];
    const next = target && one(".cell", target);
    if (next) { cell.tabIndex = -1; next.tabIndex = 0; next.focus(); }
  });
  for (const radio of all("[name=family]")) radio.addEventListener("change", () => showFamily(radio.value, cells));
  for (const radio of all("[name=metric]")) {
    radio.addEventListener("change", () => { state.metric = radio.value; paintHeat(); showDetail(state.score, state.set); });
  }
}

// --- Threshold ---

function showThreshold() {
  const slider = one("#slider");
  if (!slider) return;
  const sweep = DATA.sweeps[state.score], step = Number(slider.value);
  const says = one("#slider-says"), bars = one("#bars"), output = one("#threshold-value");
  for (const button of all("[data-mark]")) {
    button.disabled = !sweep;
    if (button.dataset.mark === "1") button.textContent = sweep?.guard ? "the guard\u2019s" : "accept 95 %";
    button.setAttribute("aria-pressed", String(Boolean(sweep) && sweep.marks[button.dataset.mark] === step));
  }
  slider.disabled = !sweep;
  bars.replaceChildren();
  output.replaceChildren();
  if (!sweep) { says.textContent = "The record has no sweep of this score."; return; }
  const right = sweep.right[step], wrong = sweep.wrong[step], accepted = right + wrong;
  output.append(figure(sweep.thresholds[step], "score"));
  says.replaceChildren("Accepts ", figure(accepted, "percent", "right + wrong"), " of in-distribution inputs");
  if (accepted > 0) says.append("; of those, ", figure(wrong / accepted, "percent", "wrong / (right + wrong)"), " are wrong.");
  else says.append(".");
  slider.setAttribute("aria-valuetext", says.textContent);
  bars.append(bar("in-distribution", [["right", right], ["wrong", wrong]], [figure(accepted, "percent", "right + wrong"), " accepted"]));
  DATA.ood.forEach((set, at) => {
    const passed = sweep.accepted_ood[at];
    if (passed) bars.append(bar(set.name, [["wrong", passed[step]]], [figure(passed[step], "percent"), " accepted"], set.generated));
  });
}

function bar(name, parts, text, generated) {
  const bed = make("div", "bed", ...parts.map(([kind, share]) => {
    const part = make("i", kind);
    part.style.width = `${share * 100}%`;
    return part;
  }));
  bed.setAttribute("aria-hidden", "true");
  const label = make("span", "who", make("code", "", name));
  if (generated) label.append(" ", make("span", "tag", "generated"));
  const row = make("div", "bar", label, bed, make("span", "much", ...text));
  row.dataset.bar = name;
  return row;
}

function resetSlider() {
  const slider = one("#slider"), sweep = DATA.sweeps[state.score];
  if (!slider || !sweep) return;
  slider.max = String(sweep.thresholds.length - 1);
  slider.value = String(sweep.marks[1]);
}

// --- Everything together ---

function choose(change) {
  Object.assign(state, change);
  for (const select of all("[data-pick]")) select.value = String(state[select.dataset.pick]);
  for (const row of all("[data-choose]")) {
    const here = row.dataset.choose === DATA.scores[state.score];
    row.classList.toggle("picked", here);
    one(".choose", row).setAttribute("aria-pressed", String(here));
  }
  if (DATA.ood.length && DATA.scores.length) showDetail(state.score, state.set);
  if (DATA.scores.length) draw(one("[data-chart=risk_coverage]"), { curves: riskRows(state.score) });
  if ("score" in change) resetSlider();
  showThreshold();
}

function byFamily(options) {
  const groups = new Map();
  options.forEach((option, at) => {
    const { family } = DATA.about[at];
    if (!groups.has(family)) groups.set(family, make("optgroup", ""));
    groups.get(family).label = `from ${family}`;
    groups.get(family).append(option);
  });
  return groups.size > 1 ? [...groups.values()] : options;
}

function begin() {
  const names = { score: DATA.scores, set: DATA.ood.map((set) => set.name) };
  for (const select of all("[data-pick]")) {
    const options = names[select.dataset.pick].map((name, at) => new Option(name, String(at)));
    select.append(...(select.dataset.pick === "score" ? byFamily(options) : options));
    select.addEventListener("change", () => choose({ [select.dataset.pick]: Number(select.value) }));
  }
  listenToSorting();
  for (const row of all("[data-choose]")) row.addEventListener("click", () => choose({ score: DATA.scores.indexOf(row.dataset.choose) }));
  for (const chart of all("[data-chart=reliability]")) {
    const { confidence, accuracy, share } = DATA.reliability[chart.dataset.at];
    draw(chart, { bins: confidence.map((value, i) => ({ confidence: value, accuracy: accuracy[i], share: share[i] })) });
  }
  draw(one("[data-chart=uncertainty]"), { parts: DATA.uncertainty });
  draw(one("[data-chart=gain]"), { curves: DATA.gain });
  for (const chart of all("[data-chart=attacked]")) draw(chart, { radii: DATA.attacked[chart.dataset.at] });
  one("#slider")?.addEventListener("input", showThreshold);
  for (const button of all("[data-mark]")) {
    button.addEventListener("click", () => { one("#slider").value = String(DATA.sweeps[state.score].marks[button.dataset.mark]); showThreshold(); });
  }
  paintHeat();
  listenToHeat();
  listenToTips();
  markSection();
  choose({ score: state.score, set: state.set });
}

begin();
