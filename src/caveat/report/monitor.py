"""The page of a monitor: evidence over time against each claim, and the inputs that speak for a change."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt

from caveat.files import write_atomically
from caveat.records.base import stamp
from caveat.records.monitor import Alarm, Bet, State, Watching
from caveat.report import assets, sections
from caveat.report.figures import ACCENT, INK, MUTED, WARN, Spec, finish
from caveat.report.sections import Chart, Row, Section, Table
from caveat.report.shown import Name, Part, Value

__all__ = ["render", "write"]

COLOURS = (ACCENT, WARN, INK)


def render(found: Watching) -> str:
    """Make the page: it needs no network and nothing beside itself; all texts are escaped."""
    state = found.state
    alarms = [sentence for sentence in found.sentences if sentence.startswith("Alarm")]
    verdict: list[Part] = ["No alarm: there is no evidence that the inputs differ from those the guard was fitted on."]
    step: list[Part] = ["call ", Name("caveat guard monitor"), " again when there are more verdicts."]
    if alarms:
        verdict = [" ".join(alarms)]
        step = ["look at the inputs below; where the change is meant, fit the guard again with data of now."]
    parts = [_evidence(found), _accepted(state), _spoke(found)]
    return assets.template("monitor.html.j2", {}).render(
        sections.parts(parts), title=found.model or "a guard", seen=state.seen, made=stamp(), verdict=verdict,
        next_step=step, tiles=_tiles(state),
    )  # fmt: skip


def write(found: Watching, path: str | Path) -> None:
    """Make the page and store it: under a temporary name first, then renamed."""
    write_atomically(Path(path), render(found))


def _tiles(state: State) -> list[tuple[str, Part, Sequence[Part]]]:
    tiles: list[tuple[str, Part, Sequence[Part]]] = []
    for name, bet in state.bets.items():
        aside: list[Part] = [Value(round(math.exp(bet.needed)), "count"), " raises an alarm"]
        tiles.append((f"E-value, {name}", Value(math.exp(min(bet.capital, 700)), "plain"), aside))
    return tiles


def _evidence(found: Watching) -> Section:
    state = found.state
    text: list[Part] = [
        "The e-value (a test martingale) is the evidence against a claim: while the claim holds, it ever exceeds x "
        "with a probability of at most 1/x, however often one looks. All alarms together are false with a "
        "probability of at most ", Value(state.level),
        ". It holds for exchangeable inputs: frames of one film are not. ",
        " ".join(found.sentences),
    ]  # fmt: skip
    rows = [
        {"x": point.seen, "claim": name, "y": value / math.log(10)}
        for point in state.history for name, value in point.capital.items()
    ]  # fmt: skip
    alarms = {alarm.watched: alarm for alarm in state.alarms}
    table = Table(
        ["Claim", "Seen", "Share", "Bound", "Alarm after", "Change since about"],
        [_row(name, bet, alarms.get(name)) for name, bet in state.bets.items()],
    )
    needed = max(bet.needed for bet in state.bets.values()) / math.log(10)
    chart = Chart(
        "Evidence over time", _lines(rows, list(state.bets), needed),
        "Power of ten of each e-value; beyond the dashed line every claim is given up.",
    )  # fmt: skip
    return Section("evidence", "Evidence", text, [table], [chart] if rows else [])


def _row(name: str, bet: Bet, alarm: Alarm | None) -> Row:
    dash: Part = "\N{EN DASH}"
    return Row(
        name,
        [
            Value(bet.seen, "count"),
            dash if bet.bound is None or not bet.seen else Value(bet.hits / bet.seen),
            dash if bet.bound is None else Value(bet.bound),
            dash if alarm is None else Value(alarm.at, "count"),
            dash if alarm is None else Value(alarm.since, "count"),
        ],
    )


def _lines(rows: list[dict[str, Any]], claims: Sequence[str], needed: float) -> Spec:
    base = alt.Chart(alt.Data(values=rows)).mark_line(strokeWidth=2).encode(
        x=alt.X("x:Q", title="Inputs", axis=alt.Axis(format="~s")),
        y=alt.Y("y:Q", title="log10 of the e-value"),
        color=alt.Color(
            "claim:N", title=None, legend=alt.Legend(orient="bottom", labelColor=INK),
            scale=alt.Scale(domain=list(claims), range=list(COLOURS[: len(claims)])),
        ),
        tooltip=[alt.Tooltip("claim:N"), alt.Tooltip("x:Q", format=","), alt.Tooltip("y:Q", format=".2f")],
    )  # fmt: skip
    rule = alt.Chart(alt.Data(values=[{"y": needed}])).mark_rule(stroke=MUTED, strokeDash=[4, 4]).encode(y="y:Q")
    return finish(alt.layer(base, rule), height=230, description="The evidence against each claim over time")


def _accepted(state: State) -> Section:
    rows = [{"x": point.seen, "y": point.accepted} for point in state.history]
    chart = alt.Chart(alt.Data(values=rows)).mark_line(strokeWidth=2, stroke=ACCENT).encode(
        x=alt.X("x:Q", title="Inputs", axis=alt.Axis(format="~s")),
        y=alt.Y("y:Q", title="Share accepted so far", axis=alt.Axis(format="%"), scale=alt.Scale(zero=False)),
        tooltip=[alt.Tooltip("x:Q", format=","), alt.Tooltip("y:Q", format=".2%")],
    )  # fmt: skip
    bound = 1 - (state.bets["abstentions"].bound or 0.0)
    rule = alt.Chart(alt.Data(values=[{"y": bound}])).mark_rule(stroke=MUTED, strokeDash=[4, 4]).encode(y="y:Q")
    spec = finish(alt.layer(chart, rule), height=230, description="The share of accepted inputs over time")
    text: list[Part] = [
        "Of all inputs so far the guard accepted the share shown; it should not stay below ", Value(bound),
        ", the dashed line, which the reference allows.",
    ]  # fmt: skip
    return Section("accepted", "Accepted", text, [], [Chart("Accepted over time", spec)] if rows else [])


def _spoke(found: Watching) -> Section:
    since = next((alarm.since for alarm in found.state.alarms if alarm.watched == "scores"), None)
    when = "so far" if since is None else f"since input {since}, when the change began"
    table = Table(
        ["Input", "File or text", "Predicted", "Score"],
        [
            Row(
                Value(item.index, "count"),
                [
                    Name(item.place) if item.place else "\N{EN DASH}",
                    Name(item.predicted),
                    "no numbers" if item.score is None else Value(item.score, "score"),
                ],
            )
            for item in found.spoke
        ],
    )
    return Section("inputs", "Inputs that speak for a change", [f"The highest scores {when}."], [table])
