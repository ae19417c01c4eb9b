"""What the study of neuron coverage shows: how far coverage goes with error and OOD share, beyond what is known."""

from collections.abc import Mapping, Sequence
from typing import Literal

import altair as alt
import torch
from torch import Tensor

from caveat.records.findings import Cell, Claim, Figure, Findings, Row, Scale, Table
from caveat.studies.kit import common, plots
from caveat.studies.kit.published import published

__all__ = ["CONTROLS", "Measured", "conclude", "partial_correlation", "with_interval"]

Measured = dict[str, float]
TARGETS = ("error", "OOD share")
CONTROLS = ("size", "confidence")
REPLICAS = 1000
WORTH = 0.3
"""From here on a correlation would be of use: it explains a tenth of the ranks' variance."""


def conclude(
    scale: Scale, seed: int, sets: int, sizes: Sequence[int], found: Mapping[str, Sequence[Measured]]
) -> Findings:
    """Findings from every network's figures of every set."""
    names = [name for name in next(iter(found.values()))[0] if name not in (*TARGETS, *CONTROLS)]
    replicas = 50 if scale == "smoke" else REPLICAS
    return common.findings(
        study="neuron-coverage",
        title="Neuron coverage and what it says of a test set",
        source=published("neuron_coverage").source,
        scale=scale,
        seeds=[seed],
        settings={"sets": sets, "sizes": ", ".join(map(str, sizes)), "networks": ", ".join(found),
                  "replicas": replicas},
        claims=[] if scale == "smoke" else [_claim(t, names, found) for t in TARGETS],
        notes=[
            "A set is drawn by its size, a change of its pictures (noise, contrast, blur, occlusion) of any strength, "
            "and a share of OOD inputs. Correlations are Spearman's, in the mean over the networks; partial ones are "
            "of what is left after size and mean confidence have explained what they can (ranks, linearly). Intervals: "
            f"95 % of {replicas} bootstrap replicas of the sets.",
            *(["Smoke: a toy, to see that everything works; the figures mean nothing."] if scale == "smoke" else []),
        ],
        tables=[_table(t, names, found, replicas) for t in TARGETS] + [_of_size(names, found, replicas)],
        figures=[_figure(names, found)],
    )  # fmt: skip


def _ranks(values: Tensor) -> Tensor:
    """Mean ranks along the last axis, ties share theirs: half of how many are less and how many are not more."""
    ordered, values = values.sort(dim=-1).values, values.contiguous()
    ends = [torch.searchsorted(ordered, values, right=right) for right in (False, True)]
    return 0.5 * (ends[0] + ends[1] - 1).double()


def partial_correlation(one: Tensor, other: Tensor, known: Sequence[Tensor] = ()) -> Tensor:
    """Spearman's correlation of what is left of two columns after `known` ones; 0 where nothing varies.

    Columns lie along the last axis; those before it are replicas.

    >>> x = torch.arange(6.0)
    >>> round(float(partial_correlation(x, x**2)), 6), round(float(partial_correlation(x, x**2, [x])), 6)
    (1.0, 0.0)
    """
    columns = [torch.ones_like(one, dtype=torch.float64), *(_ranks(column) for column in known)]
    design = torch.stack(columns, dim=-1)
    ranks = torch.stack([_ranks(one), _ranks(other)], dim=-1)
    rests = ranks - design @ (torch.linalg.pinv(design) @ ranks)
    sizes = rests.square().sum(dim=-2)
    found = rests.prod(dim=-1).sum(dim=-1) / sizes.prod(dim=-1).sqrt()
    return torch.where(sizes.amin(dim=-1) <= 1e-9 * one.shape[-1] ** 3, 0.0, found)


def with_interval(
    column: str, target: str, found: Mapping[str, Sequence[Measured]], known: Sequence[str], *, replicas: int = REPLICAS
) -> tuple[float, float, float]:
    """Mean correlation over the networks, and its interval over replicas of the sets, the same for all networks."""
    tables = [
        {name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in (column, target, *known)}
        for rows in found.values()
    ]
    count = len(tables[0][column])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([torch.randint(count, (count,), generator=generator) for _ in range(replicas)])

    def value(rows: Tensor) -> Tensor:
        return torch.stack([
            partial_correlation(table[column][rows], table[target][rows], [table[name][rows] for name in known])
            for table in tables
        ]).mean(dim=0)  # fmt: skip

    low, high = value(drawn).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return float(value(torch.arange(count))), low, high


def _cell(values: tuple[float, float, float]) -> Cell:
    value, low, high = values
    return Cell(value=value, text=f"{value:.2f} ({low:.2f} to {high:.2f})")


def _table(target: str, names: Sequence[str], found: Mapping[str, Sequence[Measured]], replicas: int) -> Table:
    def shown(name: str, known: Sequence[str]) -> Cell:
        return _cell(with_interval(name, target, found, known, replicas=replicas))

    rows = [
        Row(
            label=name,
            cells=[shown(name, known) for known in ((), ("size",), CONTROLS)],
        )
        for name in names
    ]
    itself = [shown("confidence", ()), shown("confidence", ("size",)), Cell(text="-")]
    plain = [Row(label="(mean confidence itself)", cells=itself)]
    return Table(
        title=f"Correlation of coverage with the {target}", first="coverage",
        columns=["as it is", "given the size", "given size and mean confidence"], rows=[*rows, *plain], digits=2,
    )  # fmt: skip


def _of_size(names: Sequence[str], found: Mapping[str, Sequence[Measured]], replicas: int) -> Table:
    return Table(
        title="Correlation of coverage with the set's size", first="coverage", columns=["as it is"],
        rows=[Row(label=name, cells=[_cell(with_interval(name, "size", found, (), replicas=replicas))])
              for name in names], digits=2,
    )  # fmt: skip


def _claim(target: str, names: Sequence[str], found: Mapping[str, Sequence[Measured]]) -> Claim:
    values = {name: with_interval(name, target, found, CONTROLS) for name in names}
    # of so many criteria one is far off by chance: the interval of each is judged, and its size
    there = {n: v for n, v in values.items() if (v[1] > 0 or v[2] < 0) and abs(v[0]) >= WORTH}
    verdict: Literal["confirmed", "partly", "refuted"] = (
        "refuted" if not there else "confirmed" if len(there) > len(values) / 2 else "partly"
    )
    listed = ", ".join(f"{name} {value[0]:.2f} ({value[1]:.2f} to {value[2]:.2f})" for name, value in values.items())
    return Claim(
        claim=f"A set's neuron coverage says something of its {target} that its size and the network's mean confidence "
        "do not",
        verdict=verdict,
        found=f"Partial correlations given both: {listed}. Of use ({WORTH} or more, its interval without 0): "
        f"{', '.join(there) or 'none'}.",
    )  # fmt: skip


def _figure(names: Sequence[str], found: Mapping[str, Sequence[Measured]]) -> Figure:
    shown = [name for name in ("NC 0.5", "KMNC", "NBC", "TKNC") if name in names]
    values = [
        {"coverage": row[name], "error": row["error"], "criterion": name, "size": row["size"]}
        for rows in found.values() for row in rows for name in shown
    ]  # fmt: skip
    chart = alt.Chart(alt.Data(values=values)).mark_circle(opacity=0.5).encode(
        x=alt.X("coverage:Q", title="Coverage", scale=alt.Scale(zero=False), axis=alt.Axis(format="%")),
        y=alt.Y("error:Q", title="Error on the in-distribution inputs", axis=alt.Axis(format="%")),
        color=alt.Color("criterion:N", title=None,
                        scale=alt.Scale(domain=shown, range=list(plots.COLOURS[: len(shown)]))),
        size=alt.Size("size:Q", legend=None, scale=alt.Scale(range=[15, 120])),
        tooltip=["criterion:N", "size:Q",
                 *(alt.Tooltip(f"{field}:Q", format=".1%") for field in ("coverage", "error"))],
    )  # fmt: skip
    return Figure(
        title="Coverage and error of every set and network",
        spec=plots.finish(alt.layer(chart), description="Error over coverage, by criterion"),
        caption="The larger the set, the larger its point.",
    )
