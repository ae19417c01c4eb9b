"""All scores by name, with what each needs; fitting them, and applying them to observations."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Literal, get_type_hints

import torch
from torch import Tensor

from caveat import scores
from caveat.errors import OptionError, known_name
from caveat.observations import DRAWS, Observations
from caveat.types import Head, Probe

__all__ = [
    "Family",
    "FittedScore",
    "columns",
    "describe",
    "evaluate",
    "families",
    "fit",
    "kind",
    "plain",
    "probe_kind",
    "resolve",
    "signal",
]

Family = Literal["logits", "draws", "features", "head", "layers", "model", "reconstruction", "gradients", "meta"]
CHUNK = 4096
PROBED = scores.FROM_MODEL | scores.FROM_RECONSTRUCTION
"""Scores that are their probe's numbers."""


@dataclass(frozen=True)
class FittedScore:
    """A score ready to be applied."""

    name: str
    family: Family
    fitted: Callable[..., Tensor] | None
    """What its `fit` returned, or the function itself; None where the probe's numbers are the score."""
    seconds: float = 0.0
    """Time of fitting."""

    def apply(self, logits: Tensor, features: Tensor | None, probed: Tensor | None) -> Tensor:
        """Score samples from the signals it needs."""
        if self.family in ("model", "reconstruction"):
            return _there(probed)[:, 0]
        assert self.fitted is not None
        if self.family == "gradients":
            return self.fitted(_there(probed))
        if self.family == "draws":
            return self.fitted(_there(probed).transpose(0, 1))
        if self.family == "meta":
            return self.fitted(columns(_there(probed), logits))
        if self.family == "layers":
            return self.fitted(_there(probed), logits)
        return self.fitted(logits if self.family == "logits" else _there(features))

    def __call__(self, observations: Observations) -> Tensor:
        """Score every sample, in chunks; `(n,)` on the CPU."""
        features, probed = observations.features, observations.probed.get(signal(self.name))
        return torch.cat(
            [
                self.apply(
                    observations.logits[part],
                    None if features is None else features[part],
                    None if probed is None else probed[part],
                )
                for part in (slice(start, start + CHUNK) for start in range(0, len(observations), CHUNK))
            ]
        )


def _there(signal: Tensor | None) -> Tensor:
    if signal is None:
        raise OptionError("scores: these observations lack the signal this score needs; observe again with it")
    return signal


def signal(name: str) -> str:
    """Name of the probe that a score takes its numbers from; those from gradients share one, those from draws too."""
    if name in scores.FROM_DRAWS:
        return DRAWS
    return "gradients" if name in scores.FROM_GRADIENTS or name in scores.FROM_COLUMNS else name


def columns(probed: Tensor, logits: Tensor) -> Tensor:
    """What meta classifiers look at: the statistics of every layer's gradient, and the entropy."""
    return torch.cat([probed, scores.logits.entropy(logits).unsqueeze(1).to(probed.dtype)], dim=1)


def families() -> dict[str, Family]:
    """Name and family of every score, in the order of the tables."""
    tables: list[tuple[Family, Iterable[str]]] = [
        ("logits", [*scores.FROM_LOGITS, *scores.FROM_RAW_LOGITS, *scores.FROM_KNOWN_LOGITS]),
        ("draws", scores.FROM_DRAWS),
        ("features", [*scores.FROM_MOMENTS, *scores.FROM_FEATURES]),
        ("head", scores.FROM_HEAD),
        ("layers", [*scores.FROM_LAYERS, *scores.FROM_MAPS]),
        ("model", scores.FROM_MODEL),
        ("reconstruction", scores.FROM_RECONSTRUCTION),
        ("gradients", scores.FROM_GRADIENTS),
        ("meta", scores.FROM_COLUMNS),
    ]
    return {name: family for family, names in tables for name in names}


def resolve(names: Iterable[str] | None, *, draws: bool = False) -> list[str]:
    """The scores that are meant: None is all that share one plain pass, `all` is all that any network has.

    Those that need an autoencoder must be named.

    With `draws`, of a model that is many networks: there are scores from their draws, and none that need one network.

    Raises
    ------
    OptionError
        If a name is in no table.
    """
    found = families()
    possible = [
        name for name, family in found.items() if (family in ("logits", "draws") if draws else family != "draws")
    ]
    if names is None:
        return [name for name in possible if found[name] in ("logits", "draws", "features", "head")]
    chosen: list[str] = []
    everywhere = [name for name in possible if found[name] != "reconstruction"]
    for name in names:
        chosen += everywhere if name == "all" else [known_name("scores", name, [*found, "all"])]
    for name in chosen:
        if name not in possible:
            raise OptionError(
                f"scores: {name} needs the {found[name]} of one network, and the model is many: use those from draws"
                if draws
                else f"scores: {name} needs the draws of many networks: audit a posterior (--posterior, --dropout)"
            )
    return list(dict.fromkeys(chosen))


def describe(name: str) -> tuple[str, str]:
    """First line and source of a score, from its docstring."""
    own = scores.FROM_LOGITS | scores.FROM_RAW_LOGITS | scores.FROM_GRADIENTS | scores.FROM_DRAWS
    pairs = {key: fit for key, (_, fit) in (scores.FROM_LAYERS | scores.FROM_MAPS).items()}
    fits = scores.FROM_KNOWN_LOGITS | scores.FROM_MOMENTS | scores.FROM_FEATURES | scores.FROM_HEAD
    fits |= scores.FROM_COLUMNS
    function = (own | fits | pairs | PROBED)[name]
    module = import_module(function.__module__)
    # a variant that is a function of its own says itself what it is; else the module's first line does
    plain = name in own or function.__name__ not in ("fit", "from_moments", "choose")
    summary = ((function.__doc__ if plain else module.__doc__) or "").strip().split("\n")[0]
    main = function if name in own | PROBED | scores.FROM_COLUMNS else module.fit
    source = (main.__doc__ or "").partition("Source:")[2].partition("\n\n")[0].partition(">>>")[0]
    return summary, " ".join(source.split())


def fit(
    names: Iterable[str],
    known: Observations,
    head: Head | None,
    probes: Mapping[str, Probe] | None = None,
    *,
    held_out: Observations | None = None,
    outliers: Observations | None = None,
) -> dict[str, FittedScore]:
    """Fit the scores called `names` on known observations; moments are gathered once for all that use them.

    Meta classifiers learn from mistakes: they are fitted on `held_out`, data that the model was not trained on, and on
    `outliers`, which are known to be OOD.
    """
    family = families()
    fitted: dict[str, FittedScore] = {}
    moments: list[scores.moments.Moments] = []
    for name in names:
        started = time.perf_counter()
        probe = (probes or {}).get(signal(name))
        if name in scores.FROM_COLUMNS:
            function = _fit_meta(name, held_out or known, outliers, probe)
        else:
            function = _fit(name, known, head, probe, moments)
        fitted[name] = FittedScore(name, family[name], function, time.perf_counter() - started)
    return fitted


def _fit(
    name: str, known: Observations, head: Head | None, probe: Probe | None, moments: list[scores.moments.Moments]
) -> Callable[..., Tensor] | None:
    if name in PROBED:
        return None
    if (function := plain(name)) is not None:
        return function
    if name in scores.FROM_KNOWN_LOGITS:
        return scores.FROM_KNOWN_LOGITS[name](known.logits, known.labels)
    if name in scores.FROM_LAYERS:
        return scores.FROM_LAYERS[name][1](_there(known.probed.get(name)), known.logits, known.labels, probe)
    if name in scores.FROM_MAPS:
        return scores.FROM_MAPS[name][1](head)
    features = _there(known.features)
    if name in scores.FROM_MOMENTS:
        if not moments:
            moments.append(scores.moments.of(features, known.labels))
        return scores.FROM_MOMENTS[name](moments[0], dtype=features.dtype)
    if name in scores.FROM_FEATURES:
        return scores.FROM_FEATURES[name](features, known.labels)
    return scores.FROM_HEAD[name](features, known.labels, head)


def _fit_meta(
    name: str, known: Observations, outliers: Observations | None, probe: Probe | None
) -> Callable[..., Tensor]:
    wrong = known.logits.argmax(dim=1) != known.labels
    seen = [
        columns(_there(part.probed.get(signal(name))), part.logits) for part in (known, outliers) if part is not None
    ]
    wrong = torch.cat([wrong, wrong.new_ones(sum(map(len, seen)) - len(wrong))])
    names = (*getattr(probe, "columns", ()), "entropy") if probe is not None else ()
    return scores.FROM_COLUMNS[name](torch.cat(seen), wrong, names=names)


def plain(name: str) -> Callable[..., Tensor] | None:
    """The function itself, for scores that need no fitting; else None."""
    return (scores.FROM_LOGITS | scores.FROM_RAW_LOGITS | scores.FROM_GRADIENTS | scores.FROM_DRAWS).get(name)


def kind(name: str) -> type | None:
    """The class that fitting this score gives; None if nothing is fitted."""
    if name in PROBED or plain(name) is not None:
        return None
    fits = scores.FROM_KNOWN_LOGITS | scores.FROM_MOMENTS | scores.FROM_FEATURES | scores.FROM_HEAD
    fits |= {key: fit for key, (_, fit) in (scores.FROM_LAYERS | scores.FROM_MAPS).items()} | scores.FROM_COLUMNS
    return get_type_hints(fits[name])["return"]


def probe_kind(name: str) -> type:
    """The class of the probe this score needs."""
    if signal(name) == "gradients":
        return get_type_hints(scores.gradients.probe)["return"]
    if name in PROBED:
        return get_type_hints(PROBED[name])["return"]
    return get_type_hints((scores.FROM_LAYERS | scores.FROM_MAPS)[name][0])["return"]


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
