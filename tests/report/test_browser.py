"""The page in a real browser: it must work there, quietly, and show numbers of the record only."""

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from caveat.records.record import Record
from caveat.report import compare, write
from caveat.report.assets import PLACE
from caveat.report.shown import shown

sync_api = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no program called chromium on the path"),
]
KINDS = ["percent", "share", "fine", "fine share", "plain", "score", "count", "seconds"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def place(record: Record, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write(record, path)
    return path


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page; at the end, the console must have been silent and nothing asked for beyond the file."""
    contexts: list[Any] = []
    trouble: list[str] = []

    def go(path: Path, *, width: int = 1200, height: int = 900, scheme: str = "light", touch: bool = False) -> Any:
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, has_touch=touch, reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: trouble.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else trouble.append(r.url))
        page.goto(path.as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert trouble == []


def numbers(page: Any, selector: str) -> list[float]:
    return [float(x) for x in page.eval_on_selector_all(selector, "all => all.map(e => e.value)")]


def move(page: Any, step: int) -> None:
    page.eval_on_selector(
        "#slider", f"e => {{ e.value = {step}; e.dispatchEvent(new Event('input', {{bubbles: true}})); }}"
    )


def test_the_slider_starts_at_95_percent_and_changes_the_numbers(
    record: Record, place: Path, visit: Callable[..., Any]
) -> None:
    page = visit(place)
    sweep = next(item for item in record.sweeps if item.score == "knn")
    kept = [right + wrong for right, wrong in zip(sweep.accepted_correct, sweep.accepted_wrong, strict=True)]
    start = next(i for i, share in enumerate(kept) if share >= 0.95 - 1e-5)

    def check(at: int) -> None:
        assert numbers(page, "#threshold-value data") == [sweep.thresholds[at]]
        share, error = numbers(page, "#slider-says data")
        assert share == pytest.approx(kept[at])
        assert error == pytest.approx(sweep.accepted_wrong[at] / kept[at])
        for name, column in sweep.accepted_ood.items():
            assert numbers(page, f"[data-bar='{name}'] data") == [column[at]]
            width = page.eval_on_selector(f"[data-bar='{name}'] .wrong", "e => e.style.width")
            assert float(width.removesuffix("%")) == pytest.approx(column[at] * 100, abs=0.01)

    check(start)
    page.focus("#slider")
    page.keyboard.press("ArrowLeft")
    check(start - 1)
    move(page, 40)
    check(40)
    page.click("text=accept 99 %")
    check(next(i for i, share in enumerate(kept) if share >= 0.99 - 1e-5))
    move(page, 0)
    assert numbers(page, "#threshold-value data") == [sweep.thresholds[0]]


def unfold(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")


def curve(page: Any, name: str) -> str:
    page.wait_for_selector(f"[data-chart={name}] svg path[stroke='var(--accent)']", state="attached")
    return page.eval_on_selector(f"[data-chart={name}] svg path[stroke='var(--accent)']", "e => e.getAttribute('d')")


def until(page: Any, expression: str, wanted: Any) -> None:
    # Playwright's own wait polls with eval, which the page's policy rightly refuses.
    for _ in range(100):
        if page.evaluate(expression) == wanted:
            return
        page.wait_for_timeout(50)
    pytest.fail(f"{expression} is {page.evaluate(expression)}, not {wanted}")


def settled(page: Any, score: str, ood: str) -> None:
    until(page, "['score', 'set'].map(x => document.querySelector(`[data-show=${x}]`).textContent)", [score, ood])
    page.wait_for_timeout(150)  # the chart runs on the next frame


def test_a_cell_shows_its_curves_and_values(record: Record, place: Path, visit: Callable[..., Any]) -> None:
    page = visit(place)
    unfold(page)
    for name in ("roc", "precision_recall"):
        page.locator(f"[data-chart={name}]").scroll_into_view_if_needed()
    settled(page, "knn", "kmnist")
    before = {name: curve(page, name) for name in ("roc", "precision_recall")}
    row = next(i for i, item in enumerate(record.scores) if item.name == "msp")
    page.click(f"[data-score='{row}'] [data-set='0']")
    settled(page, "msp", "notmnist")
    found = next(d for d in record.detections if (d.score, d.ood) == ("msp", "notmnist"))
    estimates = [found.auroc, found.aupr_in, found.aupr_out, found.fpr_at_95_tpr]
    wanted = [x for e in estimates for x in (e.value, e.low, e.high)] + [found.detection_error, found.base_rate]
    assert numbers(page, "#values data") == wanted
    assert all(curve(page, name) != before[name] for name in before)
    assert page.eval_on_selector_all("[data-pick=score]", "all => all.map(e => e.value)") == [str(row)] * 3
    # Keys: one cell down and one to the right, and its curves come without a click.
    page.focus(f"[data-score='{row}'] [data-set='0']")
    page.keyboard.press("ArrowRight")
    settled(page, "msp", "fashion-mnist")
    # Pointing at a cell shows it; leaving brings the chosen one back.
    page.hover("[data-score='0'] [data-set='4']")
    settled(page, "knn", "noise")


def test_the_metric_and_the_order_of_the_heat_map(record: Record, place: Path, visit: Callable[..., Any]) -> None:
    page = visit(place)
    page.check("[name=metric][value=fpr]")
    column = [numbers(page, f"#heat [data-score='{i}'] [data-set='2'] > data")[0] for i in range(9)]
    assert column == [
        next(d for d in record.detections if (d.score, d.ood) == (s.name, "kmnist")).fpr_at_95_tpr.value
        for s in record.scores
    ]
    page.click("#heat thead th:nth-child(4) .sort")
    assert numbers(page, "#heat [data-set='2'] > data") == sorted(column, reverse=True)
    page.click("#heat thead th:nth-child(4) .sort")
    assert numbers(page, "#heat [data-set='2'] > data") == sorted(column)
    assert page.get_attribute("#heat thead th:nth-child(4)", "aria-sort") == "ascending"
    # The fewest accepted OOD inputs wear the strongest colour.
    steps = page.eval_on_selector_all(
        "#heat [data-set='2']", "all => all.map(e => Number(e.className.match(/g(\\d+)/)[1]))"
    )
    assert steps == sorted(steps, reverse=True)
    assert steps[0] > steps[-1]


def test_every_number_after_use_is_in_the_record_or_says_how_it_was_made(
    record: Record, place: Path, visit: Callable[..., Any]
) -> None:
    page = visit(place)
    page.check("[name=metric][value=aupr_in]")
    page.select_option("#threshold [data-pick=score]", label="vim")
    move(page, 77)
    sweep = next(item for item in record.sweeps if item.score == "vim")
    right, wrong = sweep.accepted_correct[77], sweep.accepted_wrong[77]
    derived = {"right + wrong": right + wrong, "wrong / (right + wrong)": wrong / (right + wrong)}
    known = set[float]()

    def gather(node: Any) -> None:
        if isinstance(node, dict | list):
            for item in node.values() if isinstance(node, dict) else node:
                gather(item)
        elif isinstance(node, int | float):
            known.add(float(node))

    gather(record.model_dump())
    elements = page.eval_on_selector_all(
        "data", "all => all.map(e => [Number(e.value), e.dataset.as, e.dataset.derived ?? null, e.textContent])"
    )
    assert len(elements) > 500
    assert {formula for _, _, formula, _ in elements} == {None, *derived}
    for value, kind, formula, text in elements:
        assert text == shown(value, kind)
        assert value in known if formula is None else math.isclose(value, derived[formula])


def test_script_and_python_write_numbers_alike(place: Path, visit: Callable[..., Any]) -> None:
    page = visit(place)
    grid = [x * 10.0**e for x in (1, -2.5, 0.8125, 9.9995, 3.14159) for e in range(-8, 8)] + [0, 0.0005, 0.99949]
    cases = [[value, kind] for value in grid for kind in KINDS]
    source = PLACE.joinpath("shown.js").read_text(encoding="utf-8")
    written = page.evaluate(f"cases => {{ {source}; return cases.map(([v, k]) => shown(v, k)); }}", cases)
    assert written == [shown(value, kind) for value, kind in cases]  # pyright: ignore[reportArgumentType]  (kinds)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_charts_are_drawn_in_the_scheme_s_colours(scheme: str, place: Path, visit: Callable[..., Any]) -> None:
    page = visit(place, scheme=scheme)
    unfold(page)
    assert page.locator(".chart svg").count() < 7  # lazily
    height = "document.documentElement.scrollHeight"
    before = page.evaluate(height)
    for i in range(page.locator(".chart").count()):
        page.locator(".chart").nth(i).scroll_into_view_if_needed()
    until(page, "document.querySelectorAll('.chart svg').length", 7)
    assert abs(page.evaluate(height) - before) < 3  # the room was kept
    light = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor,"
        " getComputedStyle(document.querySelector('[data-chart=roc] path[stroke^=var]')).stroke]"
        ".map(c => c.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0) / 3)"
    )
    paper, line = light
    assert (paper > 240 and line < 140) if scheme == "light" else (paper < 40 and line > 140)


@pytest.mark.parametrize("width", [360, 768])
def test_a_narrow_screen_has_no_sideways_scroll(
    width: int, build: Callable[..., Record], tmp_path: Path, visit: Callable[..., Any]
) -> None:
    long = build(scores=3, sets=8, rename=lambda text: text + "_with_a_very_long_name" * 3, full=True)
    write(long, tmp_path / "long.html")
    page = visit(tmp_path / "long.html", width=width, height=780, touch=True)
    unfold(page)
    for i in range(page.locator(".chart").count()):
        page.locator(".chart").nth(i).scroll_into_view_if_needed()
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.locator(".term").first.tap()
    box = page.locator("#tip").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width


@pytest.mark.parametrize("options", [{"scores": 1, "sets": 0}, {"scores": 1, "sets": 1}, {"scores": 0, "sets": 0}])
def test_poor_records_open_quietly(
    options: dict[str, int], build: Callable[..., Record], tmp_path: Path, visit: Callable[..., Any]
) -> None:
    write(build(**options, calibrated=False, pictures=False), tmp_path / "poor.html")
    page = visit(tmp_path / "poor.html")
    page.wait_for_timeout(200)
    assert page.locator("#bars .bar").count() == (1 + options["sets"] if options["scores"] else 0)


def test_hostile_names_do_nothing(build: Callable[..., Record], tmp_path: Path, visit: Callable[..., Any]) -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    write(build(scores=2, sets=2, rename=lambda text: text + evil, full=True), tmp_path / "evil.html")
    page = visit(tmp_path / "evil.html")
    page.on("dialog", lambda dialog: pytest.fail("a name ran as script"))
    unfold(page)
    page.locator("[data-chart=quantiles]").scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    assert page.locator("img[src=x]").count() == 0
    assert page.inner_text("[data-show=score]") == "mahalanobis" + evil


def test_a_large_page_answers_at_once(large: Record, tmp_path: Path, visit: Callable[..., Any]) -> None:
    write(large, tmp_path / "large.html")
    page = visit(tmp_path / "large.html")
    page.locator("[data-chart=risk_coverage]").scroll_into_view_if_needed()
    page.wait_for_selector("[data-chart=risk_coverage] svg")
    page.evaluate("performance.mark('a')")
    page.select_option("#threshold [data-pick=score]", index=17)
    # Generous: a tenth of it is usual.
    assert page.evaluate("performance.measure('m', 'a').duration") < 3000
    assert page.locator("#bars .bar").count() == 9


def test_all_the_optional_parts_open_quietly(full: Record, tmp_path: Path, visit: Callable[..., Any]) -> None:
    write(full, tmp_path / "full.html")
    page = visit(tmp_path / "full.html", scheme="dark")
    unfold(page)
    charts = page.locator(".chart")
    for i in range(charts.count()):
        charts.nth(i).scroll_into_view_if_needed()
    until(page, "document.querySelectorAll('.chart svg').length", 12)  # seven reliability diagrams, five others
    assert page.inner_text("[data-show=score]") == "mahalanobis"  # the chosen score leads
    # The static bars wear the page's colours, and are as long as they say.
    bar = page.locator(".guard .stack").first
    whole, part = bar.bounding_box(), bar.locator("rect.right").bounding_box()
    guard = full.operating[1]
    assert part["width"] / whole["width"] == pytest.approx(guard.accepted["mnist"] * (1 - guard.error), abs=0.01)
    fill = bar.locator("rect.right").evaluate("e => getComputedStyle(e).fill")
    assert fill == "rgb(111, 177, 255)"  # the accent of the dark scheme


def test_scores_are_filtered_by_family(full: Record, tmp_path: Path, visit: Callable[..., Any]) -> None:
    write(full, tmp_path / "full.html")
    page = visit(tmp_path / "full.html")

    def seen() -> set[str]:
        rows = page.locator("#heat tbody tr:visible th code")
        return set(rows.all_inner_texts())

    families = {item.name: item.family for item in full.scores}
    assert seen() == set(families)
    page.check("[name=family][value=logits]")
    assert seen() == {name for name, family in families.items() if family == "logits"}
    # One stop for the tab key, and arrows pass over what is hidden.
    assert page.locator("#heat .cell[tabindex='0']:visible").count() == 1
    assert page.locator("#heat .cell[tabindex='0']").count() == 1
    page.click("#heat thead th:first-child .sort")
    order = page.locator("#heat tbody tr:visible th code").all_inner_texts()
    page.focus("#heat tbody tr:not([hidden]) .cell")
    assert order == ["msp", "max_logit", "margin", "entropy", "energy"]  # between margin and entropy two are hidden
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    settled(page, "entropy", "notmnist")
    page.check("[name=family][value='']")
    assert seen() == set(families)
    groups = page.eval_on_selector_all("#threshold optgroup", "all => all.map(e => [e.label, e.children.length])")
    assert groups == [["from features", 3], ["from head", 1], ["from logits", 5]]


def test_a_comparison_opens_quietly_and_sorts(full: Record, build: Callable[..., Record], tmp_path: Path,
                                              visit: Callable[..., Any]) -> None:  # fmt: skip
    compare.write({"nine": full, "eight": build(scores=8, full=True)}, tmp_path / "compare.html")
    page = visit(tmp_path / "compare.html")
    page.click("#ood details summary >> nth=0")
    table = "#ood details table >> nth=0"
    page.click(f"{table} >> thead th:nth-child(2) .sort")
    values = page.eval_on_selector(
        "#ood details table", "t => [...t.tBodies[0].rows].map(r => Number(r.cells[1].querySelector('data').value))"
    )
    assert values == sorted(values, reverse=True)
    assert len(values) == 8
    page.locator("#known .term").first.scroll_into_view_if_needed()
    page.wait_for_timeout(150)  # scrolling hides the explanation
    page.hover("#known .term >> nth=0")
    assert page.locator("#tip").is_visible()
    assert page.locator("nav a[aria-current]").count() == 1


def test_a_comparison_of_many_has_no_sideways_scroll(
    build: Callable[..., Record], tmp_path: Path, visit: Callable[..., Any]
) -> None:
    long = build(scores=2, sets=2, rename=lambda text: text + "_with_a_very_long_name" * 3, full=True)
    compare.write({f"run{i}" + "_of_a_long_name" * 4: long for i in range(6)}, tmp_path / "compare.html")
    for width in (1200, 360):
        page = visit(tmp_path / "compare.html", width=width, height=780)
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_slider_starts_at_the_guard_s_threshold(full: Record, tmp_path: Path, visit: Callable[..., Any]) -> None:
    write(full, tmp_path / "full.html")
    page = visit(tmp_path / "full.html")
    guard = full.operating[1]
    assert numbers(page, "#threshold-value data") == [guard.threshold]
    share, error = numbers(page, "#slider-says data")
    assert share == pytest.approx(guard.accepted["mnist"])
    assert error == pytest.approx(guard.error)
    for item in full.sets:
        if item.role == "ood":
            assert numbers(page, f"[data-bar='{item.name}'] data") == [guard.accepted[item.name]]
    assert page.inner_text("[data-mark='1']") == "the guard\N{RIGHT SINGLE QUOTATION MARK}s"
    assert page.get_attribute("[data-mark='1']", "aria-pressed") == "true"
    page.select_option("#threshold [data-pick=score]", label="msp")  # no guard is previewed with it
    assert page.inner_text("[data-mark='1']") == "accept 95 %"


@pytest.mark.parametrize(("width", "most"), [(1200, 9000), (390, 14_500)])
def test_a_page_is_not_endless_and_nothing_is_cut_off(
    width: int, most: int, full: Record, tmp_path: Path, visit: Callable[..., Any]
) -> None:
    write(full, tmp_path / "full.html")
    page = visit(tmp_path / "full.html", width=width)
    # About 8,000 for the demo; this record has every optional part, too.
    assert page.evaluate("document.documentElement.scrollHeight") < most
    assert page.evaluate("document.documentElement.scrollWidth") == width
    unfold(page)
    cut = page.evaluate(
        """() => [...document.querySelectorAll('table')].filter(t => {
            const box = t.closest('.wide');
            return !box || (t.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX !== 'auto');
        }).length"""
    )
    assert cut == 0
    # What is written fits into its card.
    out = page.evaluate(
        """() => [...document.querySelectorAll('.card .much, .bar .much, .tiles dd')].filter(e => {
            const card = e.closest('.card, .tiles > div').getBoundingClientRect();
            return e.getBoundingClientRect().right > card.right + 1 || e.scrollWidth > e.clientWidth + 1;
        }).map(e => e.textContent)"""
    )
    assert out == []


def test_the_heat_map_s_legend_is_as_wide_as_its_words(full: Record, tmp_path: Path, visit: Callable[..., Any]) -> None:
    write(full, tmp_path / "full.html")
    page = visit(tmp_path / "full.html")
    box, ramp = page.locator("p.scale").bounding_box(), page.locator(".ramp").bounding_box()
    assert box["width"] > 300
    assert 0 < ramp["x"] - box["x"] < box["width"]
    assert box["height"] < 40


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(scheme: str, full: Record, tmp_path: Path, visit: Callable[..., Any]) -> None:
    write(full, tmp_path / "full.html")
    page = visit(tmp_path / "full.html", scheme=scheme)
    unfold(page)
    low = page.evaluate(CONTRAST)
    assert low == []


CONTRAST = """() => {
    // WCAG 2: relative luminance; the canvas turns any CSS colour into sRGB.
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    canvas.canvas.width = canvas.canvas.height = 1;
    const layers = (colours) => {
        canvas.clearRect(0, 0, 1, 1);
        for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map(v => v / 255);
    };
    const light = (rgb) => rgb.map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const found = [];
    for (const element of document.querySelectorAll('main *, header *, nav *, footer *')) {
        const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
        if (!own || !element.checkVisibility() || element.closest('svg, select, noscript')) continue;
        const style = getComputedStyle(element), below = [];
        let opacity = 1;
        for (let at = element; at; at = at.parentElement) {
            below.unshift(getComputedStyle(at).backgroundColor);
            opacity *= Number(getComputedStyle(at).opacity);
        }
        const back = layers(below), ink = layers([...below, style.color]);
        const mixed = ink.map((v, i) => v * opacity + back[i] * (1 - opacity));
        const [a, b] = [light(mixed), light(back)].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        const text = element.textContent.trim().slice(0, 30);
        if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${element.tagName}.${element.className} ${text}`);
    }
    return [...new Set(found)].slice(0, 20);
}"""


def test_ten_classes_are_shown_whole(visit: Callable[..., Any]) -> None:
    page = visit(Path(__file__).parents[2] / "docs" / "gallery" / "cifar10-resnet20" / "report.html")
    for label in ("Confusion matrix", "Figures per class"):
        wide = page.locator(f'.wide[aria-label="{label}"]')
        assert wide.evaluate("e => [e.scrollWidth - e.clientWidth, e.scrollHeight - e.clientHeight]") == [0, 0]
