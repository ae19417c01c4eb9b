// The page of a study: its charts carry their own rows.
const FIGURES = JSON.parse(document.getElementById("data").textContent).figures;

for (const element of all("[data-figure]")) {
  const spec = vegaLite.compile(FIGURES[Number(element.dataset.figure)], { logger: vega.logger(vega.Error) }).spec;
  const view = new vega.View(vega.parse(spec, null, { ast: true }), {
    expr: expressionInterpreter, renderer: "svg", container: element, hover: true, logLevel: vega.Error,
    tooltip: (_, event, item, value) => {
      if (value === null || value === undefined || value === "") { hideTip(); return; }
      showTip(Object.entries(value).map(([label, text]) => [label, String(text)]), event.clientX, event.clientY);
    },
  });
  view.runAsync();
  new ResizeObserver(() => { if (element.clientWidth) view.signal("width", element.clientWidth).runAsync(); }).observe(element);
}
listenToTips();
markSection();
