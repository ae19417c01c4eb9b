// Charts: each is compiled when it first comes into view, and after that only given new rows.
const DATA = JSON.parse(document.getElementById("data").textContent);

const AXIS = 53; // pixels that the axis and its title take below a chart
const charts = new Map(); // element -> { figure, view, rows, seen }

function chartTip(_, event, item, value) {
  if (value === null || value === undefined || value === "") { hideTip(); return; }
  showTip(Object.entries(value).map(([label, text]) => [label, String(text)]), event.clientX, event.clientY);
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    charts.get(entry.target).seen = true;
    watcher.unobserve(entry.target);
    redraw(entry.target);
  }
}, { rootMargin: "300px" });

function redraw(element) {
  const chart = charts.get(element);
  if (!chart.seen) return;
  if (!chart.view) {
    const spec = vegaLite.compile(DATA.figures[chart.figure], { logger: vega.logger(vega.Error) }).spec;
    // `ast` and the interpreter: expressions are walked, not compiled, so the policy needs no unsafe-eval.
    chart.view = new vega.View(vega.parse(spec, null, { ast: true }), {
      expr: expressionInterpreter, renderer: "svg", container: element, hover: true, logLevel: vega.Error,
      tooltip: chartTip,
    });
  }
  for (const [name, rows] of Object.entries(chart.rows)) chart.view.data(name, rows);
  chart.view.runAsync();
  element.dataset.drawn = String(Number(element.dataset.drawn || 0) + 1);
}

function draw(element, rows) {
  if (!element) return;
  if (!charts.has(element)) {
    charts.set(element, { figure: element.dataset.chart, view: null, rows, seen: false });
    // The room is kept before the chart is there, so that nothing moves under the reader.
    const { height } = DATA.figures[element.dataset.chart];
    const lines = new Set(Object.values(rows)[0].map((row) => row.set)).size;
    element.style.minHeight = `${AXIS + (height.step ? height.step * lines : height)}px`;
    watcher.observe(element);
  } else {
    charts.get(element).rows = rows;
    redraw(element);
  }
}

// Charts never seen on the screen are drawn before printing.
window.addEventListener("beforeprint", () => {
  for (const [element, chart] of charts) if (!chart.view) { chart.seen = true; redraw(element); }
});

// Vega-Lite listens to the window only; a card may change its width without it.
const resizer = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const view = charts.get(target)?.view;
    const wide = target.clientWidth;
    if (view && wide && target.dataset.wide !== String(wide)) {
      target.dataset.wide = String(wide);
      view.signal("width", wide).runAsync();
    }
  }
});
for (const element of document.querySelectorAll(".chart")) resizer.observe(element);

const points = ({ x, y }, extra = {}) => x.map((value, i) => ({ x: value, y: y[i], i, ...extra }));

function histogramRows(score, set) {
  const edges = DATA.edges[score], groups = DATA.histogram[score];
  const rows = [];
  for (const [group, at] of [["correct", 0], ["wrong", 1], ["OOD", set + 2]]) {
    const shares = groups[at] || [];
    // The last bin is closed by a point at the last edge.
    shares.forEach((share, i) => rows.push({ edge: edges[i], share, group }));
    if (shares.length) rows.push({ edge: edges[shares.length], share: shares[shares.length - 1], group });
  }
  return rows;
}

function rangeRows(score) {
  const roles = new Map(DATA.roles);
  return DATA.ranges.flatMap((set, at) => {
    const q = DATA.quantiles[score][at];
    const role = roles.get(set) || "test";
    return q ? [{ set, role, q5: q[2], q25: q[3], q50: q[4], q75: q[5], q95: q[6] }] : [];
  });
}

function riskRows(picked) {
  const rows = [];
  DATA.selective.forEach((curve, at) => {
    if (curve) rows.push(...points(curve, { score: DATA.scores[at], role: at === picked ? "picked" : "other" }));
  });
  const curve = DATA.selective[picked];
  if (curve) {
    const wrong = curve.y[curve.y.length - 1]; // the error when all are accepted
    const steps = Array.from({ length: 101 }, (_, i) => i / 100);
    const ideal = { x: steps, y: steps.map((x) => (x > 1 - wrong ? 1 - (1 - wrong) / x : 0)) };
    rows.push(...points(ideal, { score: "ideal order", role: "ideal" }));
  }
  return rows;
}
