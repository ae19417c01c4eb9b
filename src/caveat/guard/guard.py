"""A network that answers, or abstains: calibration, score and threshold in one module."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from caveat import devices, evaluation, heads
from caveat.batches import Data, given
from caveat.errors import ModelError, OptionError
from caveat.guard import decision, threshold
from caveat.guard import examples as known_examples
from caveat.guard.answer import answer
from caveat.guard.decision import Decision, mapped
from caveat.guard.entrance import blanked, check_not_traced, invalid_rows
from caveat.guard.examples import Examples, Nearest
from caveat.guard.likeness import answers
from caveat.guard.verdict import Verdict
from caveat.inputs import (
    Opened,
    check_labels,
    check_same_classes,
    check_same_units,
    class_names,
    largest,
    moved,
    opened,
    sampled,
    take,
)
from caveat.models.adapter import Adapted, adapted
from caveat.models.subset import chosen
from caveat.observations import Observations, glance, observe
from caveat.posteriors.network import Predictive
from caveat.scoring import catalog
from caveat.scoring import outliers as generated
from caveat.scoring.plan import plan
from caveat.types import Drawing, Probe
from caveat.weights import state

__all__ = ["Guard"]


class Guard(nn.Module):
    """Puts a decision in front of a model; called on inputs it gives a `Verdict`.

    A module as any other: it moves to a device with everything it has fitted. Made by `Guard.fit` or
    `Guard.load`.
    """

    def __init__(self, model: nn.Module, decision: Decision) -> None:
        """Join a model and a decision fitted for it.

        Raises
        ------
        ModelError
            If the model has not the head that the decision was fitted with.
        """
        super().__init__()
        self.model = model
        anchor = next(model.parameters(), None)  # what was fitted goes where the network is
        self.decision = decision if anchor is None else mapped(decision, lambda tensor: tensor.to(anchor.device))
        self._head: heads.HeadLayer | None = None
        if self.decision.head is not None:
            if decision.head not in dict(model.named_modules()):
                raise ModelError(
                    f"model: the guard takes its features before {decision.head!r}; the model has no such layer"
                )
            no_weights = (torch.empty(0, 0), torch.empty(0))  # the score has its own copy where it needs them
            self._head = heads.HeadLayer(decision.head, decision.pooled, no_weights)
        evaluation.without_mode(self)

    @classmethod
    def fit(  # noqa: PLR0913  # the signature is the configuration
        cls,
        model: nn.Module,
        held_out: Data,
        *,
        train: Data | None = None,
        score: str = "auto",
        calibration: str = "temperature",
        keep: float | None = None,
        max_error: float | None = None,
        each_class: bool = False,
        ood_share: float | None = None,
        classes: Sequence[str | int] | None = None,
        head: str | None = None,
        features: str | None = None,
        seed: int = 0,
        outliers: Data | None = None,
        against: Data | None = None,
        unpack: Callable[[Any], Any] | None = None,
        examples: int = 0,
        device: str | torch.device | None = None,
        dtype: str | None = None,
    ) -> "Guard":
        """Fit a guard on held-out in-distribution data; `train` may hold training data for the score.

        `classes`: names or numbers of the outputs that are the classes of the sets; all by default.

        `outliers`: auxiliary OOD inputs, for a meta classifier; by default 200 of uniform noise.

        `against`: instead of a promise, inputs that stand for OOD ones, as `guard.pseudo_ood` makes them; or, with
        `max_error` and `ood_share`, held-out OOD inputs like those that the promise then holds for too.

        `examples`: keep that many held-out pictures, small, with their labels, for `nearest`; they travel with the
        guard wherever it is saved, which is why none are kept by default.

        Sets and networks may have every form that `audits.audit` takes; `unpack` is the same, and so are `device` and
        `dtype`: the network is on that device while the guard is fitted, and runs in that precision in the guard too.

        See `guard.decision.fit` for the options, what is promised and what is raised.
        """
        evaluation.check_module(model)
        threshold.check(
            keep=keep, max_error=max_error, against=against is not None, each_class=each_class, ood_share=ood_share
        )
        names = catalog.resolve(None if score == "auto" else [score], draws=isinstance(model, Drawing))
        given = {"held_out": held_out, "train": train, "outliers": outliers, "against": against}
        sets = {name: opened(batches, name, unpack) for name, batches in given.items() if batches is not None}
        first = sets["held_out"].first[0]
        with devices.running(model, device, dtype) as place:
            model = adapted(model, first, name="held_out")
            if classes is not None:
                model, _ = chosen(model, classes, sets["held_out"].classes)
            check_same_classes(sets["held_out"], sets.get("train"))
            check_same_units(sets["held_out"], sets.get("train"))
            known_examples.check(sets["held_out"].shape, examples)
            planned = plan(
                names, model, first, head=head, features=features, explicit=[] if score == "auto" else [score],
                featured=examples > 0,
                options=lambda: (
                    sets["train"].first
                    if train is not None
                    else sampled(sets["held_out"], lambda count: decision.halved(count, seed)[0])
                ),
            )  # fmt: skip
            if planned.learns_mistakes and outliers is None:
                sets["outliers"] = opened(generated.like(first, torch.Generator().manual_seed(seed)), "outliers")
            seen = {
                name: observe(
                    model, one.batches, features=planned.head is not None, head=planned.head, name=name,
                    probes=planned.probes_of(training=name == "train"),
                )
                for name, one in sets.items()
                if name != "outliers" or planned.learns_mistakes
            }  # fmt: skip
            for name in [name for name in ("held_out", "train") if name in seen]:
                check_labels(seen[name].labels, seen[name].logits, name)
            made = decision.fit(
                seen["held_out"], seen.get("train"), planned.head, score=score, calibration=calibration, keep=keep,
                max_error=max_error, each_class=each_class, ood_share=ood_share, probes=planned.probes,
                classes=class_names(sets["held_out"], seen["held_out"].logits.shape[1]),
                shape=sets["held_out"].shape, seed=seed, outliers=seen.get("outliers"), against=seen.get("against"),
                dtype=place.autocast,
                columns=getattr(sets["held_out"].batches, "columns", None),
                largest=largest(*(sets[name] for name in ("held_out", "train") if name in sets)),
            )  # fmt: skip
        return cls(model, replace(made, examples=_kept(sets["held_out"], seen["held_out"], examples)))

    def save(self, folder: str | Path, *, model: str = "") -> None:
        """Write the guard and the network's weights to `folder`, where it replaces one that is there.

        See `artefact.save`.

        `model` says, for people, how the network is made: `package.module:callable`.
        """
        from caveat.guard import artefact

        posterior = self.model.description if isinstance(self.model, Predictive) else None
        form = self.model.description if isinstance(self.model, Adapted) else None
        known = answers(self.model, self.decision.shape, self.decision.largest)
        artefact.save(
            self.decision, state(self.model), folder, model=model, posterior=posterior, form=form, answers=known
        )

    @classmethod
    def load(cls, folder: str | Path, model: nn.Module) -> "Guard":
        """Read a guard around `model`, a network of the architecture it was fitted for; see `artefact.load`."""
        from caveat.guard import artefact

        return artefact.load(folder, model)

    def export(self, path: str | Path, *, example: Tensor | None = None) -> dict[str, str]:
        """Write network, calibration, score and threshold as one ONNX graph; see `onnx_file.write` (extra `export`).

        Gives what the file says of itself: classes, promise, score, version.

        `example`: a few inputs, for a network that takes no floating numbers: no inputs can be generated for it.
        """
        from caveat.guard import onnx_file
        from caveat.guard.graph import Graph

        here = onnx_file.on_cpu(self)
        return onnx_file.write(here, Graph(here.model, here.decision, here._head), Path(path), example=example)

    def card(self) -> str:
        """A model card in Markdown; one that names the files too: `caveat guard card`, `artefact.card(folder)`."""
        from caveat.guard import card

        return card.of(mapped(self.decision, lambda tensor: tensor.cpu()))

    def forward(self, inputs: Any) -> Verdict:
        """Answer or abstain for every input `(n, ...)`: a tensor, an array, or what a network of several inputs takes.

        Inputs that hold NaN or infinity abstain, and so do those 50 times as large as what the guard was fitted on: a
        picture in bytes is no picture in [0, 1].

        Raises
        ------
        ModelError
            If the model is in training mode or gives no logits.
        DataError
            If the inputs are no numbers.
        OptionError
            If the inputs have another shape than those the guard was fitted on, or are whole numbers and those not.
        """
        check_not_traced()
        source = catalog.signal(self.decision.score.name)
        probes = {source: self.decision.probe} if self.decision.probe is not None else {}
        with devices.running(self.model, dtype=self.decision.dtype):
            logits, features, probed, invalid = self._seen(inputs, probes)
            return answer(self.decision, logits, features, probed, invalid)

    def nearest(self, inputs: Any, n: int = 3) -> Nearest:
        """The `n` known examples that are most similar to each input, by the cosine of the network's features.

        What the network sees as alike, which may be something else than what a person does. Another forward pass.

        Raises
        ------
        OptionError
            If the guard keeps no examples, or not `n`; and as `forward`.
        ModelError, DataError
            As `forward`.
        """
        kept = self.decision.examples
        if kept is None:
            raise OptionError(
                "nearest: this guard keeps no known examples; fit it with examples=100 (caveat guard fit --examples "
                "100), which stores some held-out pictures in it"
            )
        with devices.running(self.model, dtype=self.decision.dtype):
            _, features, _, invalid = self._seen(inputs, {})
            return known_examples.nearest(kept, cast(Tensor, features), invalid, n)

    def _seen(
        self, inputs: Any, probes: Mapping[str, Probe]
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor], Tensor]:
        """What one pass gives, and which inputs could not be looked at."""
        evaluation.check(self.model)
        known = given(inputs, "inputs")
        invalid = invalid_rows(known, self.decision.shape, self.decision.largest)
        # what can't be looked at is replaced, so that the others are answered; it abstains in any case
        safe = blanked(known, invalid)
        logits, features, probed = glance(self.model, moved(safe, self.model), self._head, probes, "inputs")
        return logits, features, probed, invalid.to(logits.device)

    def tuned(self, *, keep: float | None = None, max_error: float | None = None, each_class: bool = False) -> "Guard":
        """The same guard at another operating point; nothing is fitted again. See `Decision.tuned`."""
        return Guard(self.model, self.decision.tuned(keep=keep, max_error=max_error, each_class=each_class))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Guard":
        """What `.to(...)` and `.float()` call: the fitted tensors go along."""
        super()._apply(fn, recurse)
        self.decision = mapped(self.decision, fn)
        return self


def _kept(one: Opened, seen: Observations, count: int) -> Examples | None:
    if not count:
        return None
    prints = cast(Tensor, seen.fingerprints)  # inputs were seen
    return known_examples.of(seen, count, lambda rows: take(one.batches, rows, prints, one.name))
