"""All scores by name, with what each needs; fitting them, and applying them to observations."""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, get_type_hints

import torch
from torch import Tensor

from caveat.errors import CaveatError, OptionError, known_name
from caveat.observations import Observations
from caveat.once import remembering
from caveat.scoring.kinds import KINDS, Family, Kind, Material, kind_of
from caveat.types import Probe

__all__ = [
    "FittedScore",
    "describe",
    "evaluate",
    "families",
    "fit",
    "fitted_class",
    "probe_class",
    "resolve",
    "restored",
    "signal",
]

CHUNK = 1024
"""Samples scored at once: what the scores share of them stays in the cache."""


@dataclass(frozen=True)
class FittedScore:
    """A score ready to be applied."""

    name: str
    fitted: Callable[..., Tensor] | None
    """What its `fit` returned, or the function itself; None where the probe's numbers are the score."""
    seconds: float = 0.0
    """Time of fitting."""

    @property
    def kind(self) -> Kind:
        """Its row in `KINDS`."""
        return kind_of(self.name)

    def apply(self, logits: Tensor, features: Tensor | None, probed: Tensor | None) -> Tensor:
        """Score samples from the signals it needs."""
        return self.kind.apply(self.fitted, logits, features, probed)

    def __call__(self, observations: Observations) -> Tensor:
        """Score every sample, in chunks; `(n,)` on the CPU."""
        return _scored({self.name: self}, observations)[0][self.name]


def signal(name: str) -> str:
    """Name of the probe that a score takes its numbers from."""
    return kind_of(name).signal_of(name)


def families() -> dict[str, Family]:
    """Name and family of every score, in the order of the tables."""
    return {name: kind.family for kind in KINDS for name in kind.table}


def resolve(names: Iterable[str] | None, *, draws: bool = False) -> list[str]:
    """The scores that are meant: None is all that share one plain pass, `all` is all that any network has.

    Those that need an autoencoder, and those from dropout, which take 20 passes, must be named.

    With `draws`, of an ensemble or another posterior: there are scores from its samples, and none that need one
    network.

    Raises
    ------
    OptionError
        If a name is in no table.
    """
    possible = [
        name for kind in KINDS for name in kind.table if (kind.on_many if draws else not kind.from_draws)
    ]  # fmt: skip
    if names is None:
        return [name for name in possible if kind_of(name).one_pass]
    chosen: list[str] = []
    for name in names:
        if name == "all":
            chosen += [each for each in possible if kind_of(each).in_all]
        else:
            chosen.append(known_name("scores", name, [*families(), "all"]))
    for name in chosen:
        if name not in possible:
            raise OptionError(
                f"scores: {name} needs the {kind_of(name).family} of one network, and this model is an ensemble or "
                "another posterior: use the scores from its samples"
                if draws
                else f"scores: {name} needs the samples of a posterior: audit one (--posterior, --dropout)"
            )
    return list(dict.fromkeys(chosen))


def describe(name: str) -> tuple[str, str]:
    """What a score is and its source, from the first paragraph of its docstring and the line that names it."""
    kind = kind_of(name)
    row = kind.table[name]
    function = kind.fitter(row) or (kind.prober(row) if not kind.own_text else None) or row
    return described(function, row, own_text=kind.own_text)


def described(function: Callable[..., Any], row: Any = None, *, own_text: bool = True) -> tuple[str, str]:
    """The same of a function of a table; `own_text` says that its module does not speak for it."""
    module = import_module(function.__module__)
    # a variant that is a function of its own says itself what it is; else the module's first line does
    own = own_text or function.__name__ not in ("fit", "from_moments", "choose")
    summary = ((function.__doc__ if own else module.__doc__) or "").strip().partition("\n\n")[0]
    summary = re.sub(r"\s+See `\w+`\.", "", summary).replace("`", "")
    text = function.__doc__ or ""
    text = text if "Source:" in text else getattr(module, "fit", row).__doc__ or ""
    source = text.partition("Source:")[2].partition("\n\n")[0].partition(">>>")[0]
    return " ".join(summary.split()), " ".join(source.split())


def fit(
    names: Iterable[str],
    material: Material,
    probes: Mapping[str, Probe] | None = None,
    *,
    left_out: dict[str, str] | None = None,
) -> dict[str, FittedScore]:
    """Fit the scores called `names`.

    Where `left_out` is given, a score that does not fit this network or data is left out, and the reason noted there;
    else it raises.
    """
    fitted: dict[str, FittedScore] = {}
    few = material.held_out.part(torch.arange(len(material.held_out))[:64])
    with remembering():
        for name in names:
            started = time.perf_counter()
            kind, probe = kind_of(name), (probes or {}).get(signal(name))
            try:
                function = kind.fit(kind.table[name], material, signal(name), probe)
                _check_finite(FittedScore(name, function), few)
            except CaveatError as error:
                if left_out is None:
                    raise
                left_out[name] = str(error)
                continue
            fitted[name] = FittedScore(name, function, time.perf_counter() - started)
    return fitted


def _check_finite(score: FittedScore, known: Observations) -> None:
    bad = int((~torch.isfinite(score(known))).sum()) if len(known) else 0
    if bad:
        raise OptionError(
            f"scores: {score.name} gives NaN or infinity for {bad} of {len(known)} in-distribution samples: what it "
            "looks at is too small or too large for single precision; use another score"
        )


def fitted_class(name: str) -> type | None:
    """The class that fitting this score gives; None if nothing is fitted."""
    kind = kind_of(name)
    fitter = kind.fitter(kind.table[name])
    return None if fitter is None else get_type_hints(fitter)["return"]


def probe_class(name: str) -> type:
    """The class of the probe this score needs.

    Raises
    ------
    OptionError
        If it needs none.
    """
    kind = kind_of(name)
    prober = kind.prober(kind.table[name])
    if prober is None:
        raise OptionError(f"score: {name} needs no probe")
    return get_type_hints(prober)["return"]


def restored(name: str, fitted: Callable[..., Tensor] | None) -> FittedScore:
    """A score from what a file held of it: `fitted` is None where nothing is fitted."""
    kind = kind_of(name)
    if fitted is None and kind.own_text:
        return FittedScore(name, kind.table[name])
    return FittedScore(name, fitted)


def evaluate(
    fitted: Mapping[str, FittedScore], sets: Mapping[str, Observations]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, float]]:
    """Apply every score to every set: `{score: {set: (n,)}}` in float64, and the seconds each score took."""
    values: dict[str, dict[str, Tensor]] = {name: {} for name in fitted}
    seconds = dict.fromkeys(fitted, 0.0)
    for set_name, observed in sets.items():
        found, took = _scored(fitted, observed)
        for name in fitted:
            values[name][set_name] = found[name].double()
            seconds[name] += took[name]
    return values, seconds


def _scored(fitted: Mapping[str, FittedScore], observed: Observations) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The scores of all samples, chunk by chunk, so that what several scores need of a chunk is computed once."""
    parts: dict[str, list[Tensor]] = {name: [] for name in fitted}
    seconds = dict.fromkeys(fitted, 0.0)
    probed = {name: observed.probed.get(signal(name)) for name in fitted}
    for start in range(0, len(observed), CHUNK):
        rows = slice(start, start + CHUNK)
        logits, features = observed.logits[rows], None if observed.features is None else observed.features[rows]
        with remembering():
            for name, score in fitted.items():
                started = time.perf_counter()
                numbers = probed[name]
                parts[name].append(score.apply(logits, features, None if numbers is None else numbers[rows]))
                seconds[name] += time.perf_counter() - started
    return {name: torch.cat(found) for name, found in parts.items()}, seconds
