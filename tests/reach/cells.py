"""The columns: what a user does with a network, each checked against numbers that are made without Caveat."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

import caveat
from caveat import attacks, heads, inputs, posteriors
from caveat.audits import attacked
from caveat.audits.assess import split
from caveat.batches import given
from caveat.errors import CaveatError, CaveatWarning
from caveat.models import adapted
from caveat.observations import observe
from caveat.scoring import catalog
from caveat.scoring.kinds import Material, kind_of
from caveat.scoring.plan import plan
from tests.reach.kinds import MANY, Kind, built

RADIUS = 0.1


def size(batch: Any) -> int:
    return (
        len(next(iter(batch.values())))
        if isinstance(batch, Mapping)
        else len(batch[0] if isinstance(batch, tuple) else batch)
    )


def rows_of(batch: Any, rows: Any) -> Any:
    """Some of the samples of a batch of any form."""
    if isinstance(batch, Mapping):
        return {name: part[rows] for name, part in batch.items()}
    return tuple(part[rows] for part in batch) if isinstance(batch, tuple) else batch[rows]


def asked(model: Any, batch: Any) -> Any:
    """What the network returns, called as its author would; on a copy, since it may write into its inputs."""
    own = next((weight for weight in getattr(model, "parameters", tuple)() if weight.is_floating_point()), None)
    batch = rows_of(batch, torch.arange(size(batch)))
    if own is not None and isinstance(batch, Tensor) and batch.is_floating_point():
        batch = batch.to(own.dtype)
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, tuple) else model(batch)


@dataclass
class Case:
    """One network of a kind with samples, and what it says by hand."""

    kind: Kind

    @cached_property
    def both(self) -> tuple[Any, Any]:
        return built(self.kind, 1)

    @property
    def model(self) -> Any:
        """As it is given away."""
        return self.both[0]

    @property
    def plain(self) -> Any:
        """The same network without wrapper, in the same precision."""
        return self.both[1]

    def by_hand(self, batch: Any) -> Tensor:
        with torch.no_grad():
            return self.kind.logits(asked(self.plain, batch)).double()

    def samples(self, seed: int) -> tuple[Any, Tensor]:
        """Inputs, and labels of which some four in ten are not what the network says."""
        generator = torch.Generator().manual_seed(seed)
        batch = self.kind.inputs(MANY, generator)
        logits = self.by_hand(batch)
        labels = torch.randint(min(logits.shape[1], 4), (MANY,), generator=generator)
        right = torch.rand(MANY, generator=generator) < 0.6
        return batch, torch.where(right, logits.argmax(1), labels) if logits.ndim == 2 else labels

    @cached_property
    def test(self) -> tuple[Any, Tensor]:
        return self.samples(2)

    def batches(self, seed: int = 2) -> list[Any]:
        batch, labels = self.test if seed == 2 else self.samples(seed)
        parts = [(rows_of(batch, rows), labels[rows]) for rows in torch.arange(MANY).split(40)]
        return [{**x, "labels": y} if isinstance(x, Mapping) else (x, y) for x, y in parts]

    def taken(self) -> tuple[nn.Module, Any]:
        """The network as Caveat adapts it, and the inputs in its form."""
        batch = given(self.test[0], "test")
        return adapted(self.model, batch, name="test"), inputs.moved(batch, self.model)

    def near(self, found: Any, right: Any, what: str, *, slack: float | None = None) -> None:
        slack = self.kind.slack if slack is None else slack
        one, other = torch.as_tensor(found).double(), torch.as_tensor(right).double()
        assert one.shape == other.shape, f"{what}: {tuple(one.shape)}, by hand {tuple(other.shape)}"
        size = 1 + float(other.abs().max()) if other.numel() else 1.0
        worst = float((one - other).abs().max()) if other.numel() else 0.0
        assert worst <= slack * size, f"{what}: off by {worst:.3g} of {size:.3g}"


def audit(case: Case) -> None:
    """Accuracy, NLL and Brier score of the judged samples."""
    record = caveat.audit(case.model, case.batches(), scores=["msp"], calibrations=["temperature"], replicas=2)
    rows = split(MANY, 0.2, 0)[1]
    logs, labels = case.by_hand(case.test[0])[rows].log_softmax(1), case.test[1][rows]
    own = record.calibrations[0].summary
    case.near(own.accuracy.value, (logs.argmax(1) == labels).double().mean(), "accuracy")
    case.near(own.nll.value, -logs.gather(1, labels[:, None]).mean(), "NLL")
    hot = nn.functional.one_hot(labels, logs.shape[1])
    case.near(own.brier.value, (logs.exp() - hot).square().sum(1).mean(), "Brier")


def scores(case: Case) -> str:
    """Every score of the tables, or the reason why it can't be had."""
    # those that learn from mistakes see the columns of the gradients' check, and take longer than all others together
    names = [name for name in catalog.resolve(["all"]) if not kind_of(name).learns_mistakes]
    model, batch = case.taken()
    labels = case.test[1]
    planned = plan(names, model, batch, options=lambda: (batch, labels))
    look = {"features": planned.head is not None, "head": planned.head, "probes": planned.probes}
    seen, train, far = (observe(model, case.batches(seed), **look) for seed in (2, 3, 4))
    inputs.check_labels(seen.labels, seen.logits, "test")
    weights = None if planned.head is None else planned.head.weights
    left_out = dict(planned.left_out)
    material = Material(train, weights, train, far)
    fitted = catalog.fit(planned.names, material, planned.probes, left_out=left_out)
    right = case.by_hand(case.test[0])
    _check_logits(case, fitted, seen, right)
    if weights is not None and seen.features is not None:
        case.near(seen.features.double() @ weights[0].double().T + weights[1].double(), right, "the head")
        if "mahalanobis" in fitted:
            _check_features(case, fitted, seen, train)
    for name, score in fitted.items():
        whole, one = score(seen), score(seen.part(torch.arange(3, 4)))
        assert bool(torch.isfinite(whole).all()), f"{name}: not finite"
        case.near(one, whole[3:4], f"{name} of one sample alone", slack=1e-4)
    return "; ".join(_told(left_out))


def _check_logits(case: Case, fitted: Mapping[str, Any], seen: Any, right: Tensor) -> None:
    probs = right.softmax(1)
    formulas = {
        "msp": 1 - probs.amax(1),
        "entropy": -(probs * probs.clamp_min(1e-300).log()).sum(1),
        "max_logit": -right.amax(1),
        "energy": -right.logsumexp(1),
    }
    for name in formulas.keys() & fitted.keys():
        case.near(fitted[name](seen), formulas[name], name)


def _check_features(case: Case, fitted: Mapping[str, Any], seen: Any, train: Any) -> None:
    """Mahalanobis distance, in NumPy."""
    known, labels, asked_for = (part.double().numpy() for part in (train.features, train.labels, seen.features))
    classes = np.unique(labels)
    means = np.stack([known[labels == one].mean(0) for one in classes])
    inner = known - means[np.searchsorted(classes, labels)]
    spread = inner.T @ inner / len(known)
    spread += 1e-6 * np.trace(spread) / len(spread) * np.eye(len(spread))
    gaps = asked_for[:, None] - means
    own = np.einsum("nkd,de,nke->nk", gaps, np.linalg.inv(spread), gaps).min(1)
    found = fitted["mahalanobis"](seen).double().numpy()
    worst = np.abs(np.log1p(found) - np.log1p(own)).max()
    assert worst < 0.05, f"mahalanobis: off by {worst:.3g} of its logarithm"


def _told(left_out: Mapping[str, str]) -> list[str]:
    """The reasons, each with the scores that it keeps out."""
    reasons: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        reasons.setdefault(reason.removeprefix(f"{name}: "), []).append(name)
    return [f"{_some(names)}: {reason}" for reason, names in reasons.items()]


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{len(names)} scores from {names[0]} to {names[-1]}"


def guard(case: Case) -> None:
    """Answers by hand; the same verdicts after saving, and loading around a network of other weights."""
    fitted = caveat.Guard.fit(case.model, case.batches(), train=case.batches(3), keep=0.9)
    batch, _ = case.samples(5)
    found = fitted(batch)
    right = case.by_hand(batch)
    case.near(found.probs, fitted.decision.calibrated(right).softmax(1), "probabilities")
    assert torch.equal(found.accepted, found.score <= found.threshold), "accepted"
    assert float(found.accepted.double().mean()) > 0.6, "hardly anything is accepted"
    sure = right.topk(2).values.diff().abs().squeeze(1) > case.kind.slack
    assert torch.equal(found.predicted[sure], right.argmax(1)[sure]), "predicted"
    with TemporaryDirectory() as folder:
        fitted.save(Path(folder) / "guard")
        again = caveat.Guard.load(Path(folder) / "guard", built(case.kind, 7)[0])(batch)
    for name in ("label", "accepted", "probs", "score"):
        case.near(getattr(again, name), getattr(found, name), f"{name} after loading", slack=1e-6)


def gradients(case: Case) -> None:
    """Length of every sample's gradient by the weights, beside autograd on the network itself."""
    model, batch = case.taken()
    planned = plan(["grad_l2"], model, batch, options=lambda: (batch, case.test[1]), explicit=["grad_l2"])
    seen = observe(model, case.batches(), features=False, probes=planned.probes)
    probe = planned.probes["gradients"]
    column = list(probe.columns).index("all/l2")
    weights = [weight for weight in case.plain.parameters() if weight.is_floating_point()]
    before = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    right: list[Tensor] = []
    for row in range(6):
        logits = case.kind.logits(asked(case.plain, rows_of(case.test[0], slice(row, row + 1))))
        loss = nn.functional.cross_entropy(logits, logits.argmax(1))
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        right.append(sum(g.double().square().sum() for g in found if g is not None).sqrt())
    for weight, needed in zip(weights, before, strict=True):
        weight.requires_grad_(needed)
    case.near(
        seen.probed["gradients"][:6, column], torch.stack(right), "length of the gradient", slack=20 * case.kind.slack
    )


def ensemble(case: Case) -> None:
    """The mean probability of two networks."""
    model, batch = case.taken()
    other_given, other = built(case.kind, 8)
    two = posteriors.ensemble.of([model, adapted(other_given, batch)])
    joined = posteriors.Predictive(model, two)
    seen = observe(joined, case.batches(), features=False)
    with torch.no_grad():
        theirs = case.kind.logits(asked(other, case.test[0])).double()
    right = (case.by_hand(case.test[0]).softmax(1) + theirs.softmax(1)) / 2
    case.near(seen.logits.double().softmax(1), right, "mean probability")
    record = caveat.audit(
        joined, case.batches(), scores=["mutual_information"], calibrations=["temperature"], replicas=2
    )
    hits = (right.argmax(1) == case.test[1])[split(MANY, 0.2, 0)[1]]
    case.near(record.calibrations[0].summary.accuracy.value, hits.double().mean(), "accuracy")


def laplace(case: Case) -> None:
    """Draws of the last layer: their logits from features and drawn weights by hand."""
    model, batch = case.taken()
    seen = observe(model, case.batches(), head=(head := heads.find(model, batch[:16])))
    bias = getattr(model.get_submodule(head.name), "bias", None) is not None
    fitted = posteriors.laplace.fit(
        seen.features, seen.labels, head.head, layer=head.name, structure="kronecker", bias=bias
    )
    draws = posteriors.sample(fitted, model, draws=3, generator=torch.Generator().manual_seed(0))
    found = posteriors.predict(draws, model, batch, generator=torch.Generator())
    weight = next(value for name, value in draws.weights.items() if name.endswith("weight")).flatten(2).double()
    right = torch.einsum("nd,scd->snc", seen.features.double(), weight)
    bias = next((value for name, value in draws.weights.items() if name.endswith("bias")), None)
    case.near(found, right if bias is None else right + bias.double()[:, None], "logits of draws")
    assert float((found - found[:1]).abs().max()) > 0, "all draws are one"


def attack(case: Case) -> None:
    """Every attacked input lies in its ball and box, and the accuracy is that of the network itself on them."""
    kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def spy(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(model: nn.Module, clean: Tensor, labels: Tensor, ball: Any, **options: Any) -> Tensor:
            found = function(model, clean, labels, ball, **options)
            assert len(clean), "the network was asked about no inputs"
            kept.append((clean, found, labels))
            return found

        return run

    with (
        patch.object(attacked, "pgd", spy(attacks.pgd)),
        patch.object(attacked, "without_gradient", spy(attacks.without_gradient)),
    ):
        record = caveat.audit(
            case.model, case.batches(), scores=["msp"], calibrations=["temperature"], replicas=2,
            attack_radii=(RADIUS,),
        )  # fmt: skip
    rows = split(MANY, 0.2, 0)[1]
    hits = (case.by_hand(case.test[0]).argmax(1) == case.test[1])[rows]
    shares = {one.radius: one.accuracy for one in record.attacked[0].radii}
    case.near(shares[0.0], hits.double().mean(), "accuracy")
    assert sum(len(clean) for clean, _, _ in kept) == int(hits.sum()), "not every right answer was attacked"
    standing = 0
    for clean, found, labels in kept:
        # of numbers up to 1, which are rounded to the precision of the network
        assert float((found - clean).abs().max()) <= RADIUS + torch.finfo(clean.dtype).eps, "ball"
        assert 0 <= float(found.min()) <= float(found.max()) <= 1, "box"
        losses = [attacks.losses.margin(case.by_hand(part), labels) for part in (clean, found)]  # what it climbs
        assert bool((losses[1] >= losses[0] - 10 * case.kind.slack).all()), "an attack lowered the loss"
        standing += int((case.by_hand(found).argmax(1) == labels).sum())
    case.near(shares[RADIUS], standing / len(rows), "accuracy under attack")


COLUMNS: dict[str, Callable[[Case], str | None]] = {
    "audit": audit,
    "all scores": scores,
    "guard": guard,
    "gradients": gradients,
    "ensemble": ensemble,
    "Laplace": laplace,
    "attack": attack,
}


def cell(kind: Kind, column: str, case: Case | None = None) -> str:
    """`yes`, `yes; what is left out`, or `refused: the sentence`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CaveatWarning)  # of scores that are slow, or that so few samples fit ill
            told = COLUMNS[column](case or Case(kind))
    except CaveatError as error:
        return f"refused: {error}"
    return f"yes; {told}" if told else "yes"


__all__ = ["COLUMNS", "Case", "cell"]
