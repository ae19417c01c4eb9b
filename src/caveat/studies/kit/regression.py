"""Posteriors for a real label, from one recipe: what the regression studies compare."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from caveat import posteriors
from caveat.data.tabular import Rows
from caveat.models import regressor
from caveat.objectives import Objective, heteroscedastic
from caveat.posteriors import Dropout, Ensemble, dropout, ensemble, swag, tradi
from caveat.scores.regression import Gaussians, from_gaussians
from caveat.training import fit

__all__ = ["DIAGONAL", "ENSEMBLE", "MC_DROPOUT", "ONE", "OURS", "SWAG", "Answer", "Recipe"]

ONE, MC_DROPOUT, ENSEMBLE, OURS, SWAG = "one network", "MC dropout", "Deep ensemble", "TRADI", "SWAG"
DIAGONAL = "TRADI, independent weights"
Answer = Callable[[Tensor], Gaussians]
"""From standardised inputs `(n, d)` to one Gaussian for each draw and sample, `(s, n)`, of standardised labels."""


@dataclass(frozen=True)
class Recipe:
    """How all networks of a comparison are trained: Adam, the rate a tenth in the last quarter.

    TRADI tracks in that quarter, its filters with a memory of an eighth of the run: with the authors' 316 steps the
    tracked mean of so short a run is still that of its beginning.
    """

    hidden: tuple[int, ...] = (50,)
    epochs: int = 40
    rate: float = 0.03
    batch: int = 100
    members: int = 5
    draws: int = 20
    dropout: float = 0.05
    objective: Objective = heteroscedastic
    decay: float = 0.0

    def trained(
        self,
        inputs: Tensor,
        labels: Tensor,
        seed: int,
        *,
        rate: float = 0.0,
        outputs: int = 2,
        tracked: bool = False,
        objective: Objective | None = None,
        checkpoint: Path | None = None,
    ) -> tuple[nn.Module, list[tradi.Tracker | swag.Tracker]]:
        """One network of this seed with dropout of `rate`, and its trackers."""
        model = regressor(
            inputs=inputs.shape[1],
            outputs=outputs,
            hidden=self.hidden,
            dropout=rate,
            generator=torch.Generator().manual_seed(seed),
        )
        batches = Rows(inputs, labels, self.batch, torch.Generator().manual_seed(seed + 1))
        steps = len(batches) * self.epochs
        optimizer = torch.optim.Adam(model.parameters(), lr=self.rate, weight_decay=self.decay)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, max(1, 3 * steps // 4), 0.1)
        trackers: list[tradi.Tracker | swag.Tracker] = []
        if tracked:
            gain = 8 / steps  # in the long run, the share of a step's weights in what is tracked: sqrt(Q / R)
            noise = tradi.Noise(mean=10 * gain**2, variance=10 * gain**2, observed=10.0)
            trackers = [
                tradi.start(model, optimizer, burn_in=3 * steps // 4, noise=noise),
                swag.start(model, burn_in=steps // 2, every=max(1, steps // 80)),
            ]
        fit(
            model,
            batches,
            objective or self.objective,
            optimizer=optimizer,
            schedule=schedule,
            epochs=self.epochs,
            trackers=trackers,
            generator=torch.Generator().manual_seed(seed + 2),
            checkpoint=checkpoint,
            progress=False,
        )
        return model.eval(), trackers

    def answers(self, inputs: Tensor, labels: Tensor, seed: int, *, place: Path | None = None) -> dict[str, Answer]:
        """Every method's Gaussians; networks are stored in `place`."""
        found = self.outputs(inputs, labels, seed, place=place)
        return {name: partial(_gaussians, answer) for name, answer in found.items()}

    def outputs(
        self, inputs: Tensor, labels: Tensor, seed: int, *, place: Path | None = None
    ) -> dict[str, Callable[[Tensor], Tensor]]:
        """Every method's outputs `(s, n, 2)`: two classes' logits, say."""

        def stored(name: str) -> Path | None:
            return None if place is None else place / f"{name}.safetensors"

        model, trackers = self.trained(inputs, labels, seed, tracked=True, checkpoint=stored("tracked"))
        tracked, averaged = trackers
        others = [
            self.trained(inputs, labels, 1000 * (seed + 1) + k, checkpoint=stored(f"member-{k}"))[0]
            for k in range(1, self.members)
        ]
        masked, _ = self.trained(inputs, labels, seed, rate=self.dropout, checkpoint=stored("dropout"))
        draw = torch.Generator().manual_seed(seed)

        assert isinstance(tracked, tradi.Tracker)

        def sampled(posterior: posteriors.Posterior) -> Ensemble:
            return posteriors.sample(posterior, model, draws=self.draws, generator=draw)

        many = ensemble.of([model, *others])
        return {
            ONE: self._answer(many.first(1), model),
            MC_DROPOUT: self._answer(dropout.of(masked), masked),
            ENSEMBLE: self._answer(many, model),
            OURS: self._answer(sampled(tracked.posterior()), model),
            DIAGONAL: self._answer(sampled(tracked.posterior(covariance="diagonal")), model),
            SWAG: self._answer(sampled(averaged.posterior()), model),
        }

    def _answer(self, posterior: Ensemble | Dropout, model: nn.Module) -> Callable[[Tensor], Tensor]:
        count = self.draws if isinstance(posterior, Dropout) else None

        def answer(inputs: Tensor) -> Tensor:
            generator = torch.Generator().manual_seed(0)
            return posteriors.predict(posterior, model, inputs, generator=generator, draws=count)

        return answer


def _gaussians(answer: Callable[[Tensor], Tensor], inputs: Tensor) -> Gaussians:
    return from_gaussians(answer(inputs))
