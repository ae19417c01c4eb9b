import json
from collections.abc import Iterator
from typing import Any

import altair as alt
import pytest
from jsonschema.exceptions import ValidationError

from caveat.report.figures import FIGURES

FIELDS = {
    "attacked": {"radius", "accuracy", "low", "high", "verified"},
    "uncertainty": {"set", "part", "value"},
    "gain": {"draws", "value", "set", "label"},
    "histogram": {"edge", "share", "group", "at"},
    "precision_recall": {"x", "y", "i"},
    "quantiles": {"set", "role", "q5", "q25", "q50", "q75", "q95"},
    "reliability": {"confidence", "accuracy", "share", "x", "y"},
    "risk_coverage": {"score", "x", "y", "i"},
    "roc": {"x", "y", "i"},
}
DATA = {
    "attacked": {"radii"},
    "uncertainty": {"parts"},
    "gain": {"curves"},
    "histogram": {"bins", "threshold"},
    "precision_recall": {"curve", "chance"},
    "quantiles": {"ranges"},
    "reliability": {"bins"},
    "risk_coverage": {"curves"},
    "roc": {"curve"},
}


def walk(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield key, value
            yield from walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk(value)


@pytest.mark.parametrize("name", FIGURES)
def test_the_spec_is_valid_and_the_same_every_time(name: str) -> None:
    spec = FIGURES[name]()
    assert alt.LayerChart.from_dict(spec, validate=True).to_dict() == spec
    assert json.dumps(FIGURES[name]()) == json.dumps(spec)
    with pytest.raises(ValidationError):
        alt.LayerChart.from_dict(spec | {"height": "tall"}, validate=True)


@pytest.mark.parametrize("name", FIGURES)
def test_the_spec_asks_for_the_rows_that_the_page_gives(name: str) -> None:
    pairs = list(walk(FIGURES[name]()))
    assert {value for key, value in pairs if key == "field"} == FIELDS[name]
    assert {value["name"] for key, value in pairs if key == "data" and "name" in value} == DATA[name]


@pytest.mark.parametrize("name", FIGURES)
def test_colours_are_the_page_s_variables(name: str) -> None:
    painted = {"fill", "stroke", "domainColor", "gridColor", "labelColor", "tickColor", "titleColor"}
    colours = [value for key, value in walk(FIGURES[name]()) if key in painted and isinstance(value, str)]
    assert len(colours) >= 5
    assert all(value.startswith("var(--") for value in colours)


@pytest.mark.parametrize("name", FIGURES)
def test_axes_are_labelled(name: str) -> None:
    encodings = [value for key, value in walk(FIGURES[name]()) if key == "encoding"]
    titles = {axis: {e[axis]["title"] for e in encodings if e.get(axis, {}).get("title")} for axis in "xy"}
    assert titles["x"]
    assert titles["y"] or name in ("quantiles", "uncertainty")  # there the sets' names are the axis
