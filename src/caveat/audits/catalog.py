"""All scores by name, with what each needs; and fitting and evaluating any number of them on observations."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Literal

import torch
from torch import Tensor

from caveat import scores
from caveat.errors import OptionError
from caveat.observations import Observations
from caveat.types import Head

__all__ = ["Family", "FittedScore", "describe", "families", "fit", "known_name"]

Family = Literal["logits", "features", "head"]
CHUNK = 4096


@dataclass(frozen=True)
class FittedScore:
    """A score ready to be applied to observations."""

    name: str
    family: Family
    function: Callable[[Tensor], Tensor]
    seconds: float
    """Time of fitting."""

    def __call__(self, observations: Observations) -> Tensor:
        """Score every sample, in chunks; `(n,)` on the CPU."""
        signal = observations.logits if self.family == "logits" else observations.features
        assert signal is not None, "scores from features are fitted only where features were observed"
        return torch.cat([self.function(signal[start : start + CHUNK]) for start in range(0, len(signal), CHUNK)])


def families() -> dict[str, Family]:
    """Name and family of every score, in the order of the tables."""
    tables: list[tuple[Family, Iterable[str]]] = [
        ("logits", [*scores.FROM_LOGITS, *scores.FROM_RAW_LOGITS, *scores.FROM_KNOWN_LOGITS]),
        ("features", [*scores.FROM_MOMENTS, *scores.FROM_FEATURES]),
        ("head", scores.FROM_HEAD),
    ]
    return {name: family for family, names in tables for name in names}


def known_name(option: str, name: str, names: Iterable[str]) -> str:
    """Return `name` if it is one of `names`; else say which is nearest.

    Raises
    ------
    OptionError
        If it is not.
    """
    names = list(names)
    if name in names:
        return name
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(names)}"
    raise OptionError(f"{option}: there is no {name!r}; {hint}")


def describe(name: str) -> tuple[str, str]:
    """First line and source of a score, from its docstring."""
    own = scores.FROM_LOGITS | scores.FROM_RAW_LOGITS
    table = own | scores.FROM_KNOWN_LOGITS | scores.FROM_MOMENTS | scores.FROM_FEATURES | scores.FROM_HEAD
    function = table[name]
    module = import_module(function.__module__)
    # a variant that is a function of its own says itself what it is; else the module's first line does
    plain = name in own or function.__name__ not in ("fit", "from_moments")
    summary = ((function.__doc__ if plain else module.__doc__) or "").strip().split("\n")[0]
    text = (function if name in own else module.fit).__doc__ or ""
    source = text.partition("Source:")[2].partition("\n\n")[0].partition(">>>")[0]
    return summary, " ".join(source.split())


def fit(names: Iterable[str], known: Observations, head: Head | None) -> dict[str, FittedScore]:
    """Fit the scores called `names` on known observations; moments are gathered once for all that use them."""
    family = families()
    fitted: dict[str, FittedScore] = {}
    features, moments, gathering = known.features, None, 0.0
    for name in names:
        started = time.perf_counter()
        if name in scores.FROM_KNOWN_LOGITS:
            function = scores.FROM_KNOWN_LOGITS[name](known.logits, known.labels)
        elif family[name] == "logits":
            function = (scores.FROM_LOGITS | scores.FROM_RAW_LOGITS)[name]
        else:
            assert features is not None
            if name in scores.FROM_MOMENTS:
                if moments is None:
                    moments = scores.moments.of(features, known.labels)
                    gathering = time.perf_counter() - started
                    started += gathering
                function = scores.FROM_MOMENTS[name](moments, dtype=features.dtype)
                started -= gathering  # each would have needed it
            elif name in scores.FROM_FEATURES:
                function = scores.FROM_FEATURES[name](features, known.labels)
            else:
                assert head is not None
                function = scores.FROM_HEAD[name](features, known.labels, head)
        fitted[name] = FittedScore(name, family[name], function, time.perf_counter() - started)
    return fitted


def evaluate(
    fitted: Mapping[str, FittedScore], sets: Mapping[str, Observations]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, float]]:
    """Apply every score to every set: `{score: {set: (n,)}}` in float64, and the seconds each score took."""
    values: dict[str, dict[str, Tensor]] = {}
    seconds: dict[str, float] = {}
    for name, score in fitted.items():
        started = time.perf_counter()
        values[name] = {set_name: score(observed).double() for set_name, observed in sets.items()}
        seconds[name] = time.perf_counter() - started
    return values, seconds
