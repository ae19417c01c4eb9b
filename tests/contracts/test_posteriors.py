"""What every posterior promises, over the whole tables."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from caveat import posteriors
from caveat.errors import DataError, OptionError
from caveat.objectives import cross_entropy
from caveat.posteriors import FROM_HEAD, FROM_MODEL, FROM_MODELS, FROM_TRAINING, KINDS, Dropout, Ensemble
from caveat.training import fit

KNOWN = {*FROM_TRAINING, *FROM_MODEL, *FROM_MODELS, *FROM_HEAD}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = [nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.4), nn.Linear(8, 3)]
        return nn.Sequential(*layers).double().eval()


BATCHES = [
    (torch.randn(20, 5, generator=seeded(k), dtype=torch.float64), torch.randint(3, (20,), generator=seeded(50 + k)))
    for k in range(8)
]
INPUTS = torch.randn(9, 5, generator=seeded(99), dtype=torch.float64)


def tracker_of(name: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
    if name == "tradi":
        return posteriors.tradi.start(model, optimizer, burn_in=3)
    return FROM_TRAINING[name](model, every=2)


def trained(name: str, checkpoint: Path | None = None, batches: Any = BATCHES) -> tuple[nn.Module, Any]:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    tracker = tracker_of(name, model, optimizer)
    fit(
        model, batches, cross_entropy, optimizer=optimizer, epochs=3, generator=seeded(1), trackers=[tracker],
        checkpoint=checkpoint, checkpoint_every=5 if checkpoint else None,
    )  # fmt: skip
    return model, tracker.posterior()


def head_laplace(precision: float | None) -> tuple[nn.Module, Any]:
    model = network()
    inputs, labels = torch.cat([x for x, _ in BATCHES]), torch.cat([y for _, y in BATCHES])
    features = model[:3](inputs).detach()
    head = (model[3].weight.detach(), model[3].bias.detach())
    return model, FROM_HEAD["laplace"](features, labels, head, layer="3", prior_precision=precision)


def several() -> tuple[nn.Module, Any]:
    models = [network() for _ in range(3)]
    for number, model in enumerate(models):
        model[0].weight.data += 0.1 * number
    return models[0], FROM_MODELS["ensemble"](models)


WITH_SPREAD: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "swag": lambda: trained("swag"),
    "tradi": lambda: trained("tradi"),
    "snapshots": lambda: trained("snapshots"),
    "perturbation": lambda: (network(), FROM_MODEL["perturbation"](network(), scale=0.1)),
    "dropout": lambda: (network(), FROM_MODEL["dropout"](network())),
    "ensemble": several,
    "laplace": lambda: head_laplace(None),
}


def standing(name: str) -> tuple[nn.Module, Any]:
    """What a tracker makes of a training that does not move."""
    model = network()
    tracker = tracker_of(name, model, torch.optim.SGD(model.parameters(), lr=0.0))
    for _ in range(12):
        tracker.update(model)
    return model, tracker.posterior()


WITHOUT_SPREAD: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "swag": lambda: standing("swag"),
    "tradi": lambda: standing("tradi"),
    "snapshots": lambda: standing("snapshots"),
    "perturbation": lambda: (network(), FROM_MODEL["perturbation"](network(), scale=0.0)),
    "ensemble": lambda: (network(), FROM_MODELS["ensemble"]([network(), network()])),
    "laplace": lambda: head_laplace(1e24),
}
"""All but dropout, whose spread is that of the layers."""


def test_every_row_is_tested() -> None:
    assert set(WITH_SPREAD) == KNOWN == {*WITHOUT_SPREAD, "dropout"}
    assert {"snapshots"} == KNOWN - set(KINDS)  # its posterior is an ensemble


@pytest.mark.parametrize("name", WITHOUT_SPREAD)
def test_no_spread_gives_the_point_prediction(name: str) -> None:
    model, posterior = WITHOUT_SPREAD[name]()
    draws = posteriors.predict(posterior, model, INPUTS, generator=seeded(0), draws=2)
    torch.testing.assert_close(draws, model(INPUTS).detach().expand_as(draws))


@pytest.mark.parametrize("name", sorted(KNOWN - {"dropout", "ensemble", "snapshots"}))
def test_the_mean_of_draws_tends_to_the_mean_weights(name: str) -> None:
    _, posterior = WITH_SPREAD[name]()
    generator, count = seeded(0), 4000
    sums: dict[str, Tensor] = {}
    squares: dict[str, Tensor] = {}
    for _ in range(count):
        for key, value in posterior.draw(generator).items():
            sums[key] = sums.get(key, torch.zeros_like(value)) + value
            squares[key] = squares.get(key, torch.zeros_like(value)) + value.square()
    means = (
        {"3.weight": posterior.mean[:, :-1], "3.bias": posterior.mean[:, -1]} if name == "laplace" else posterior.mean
    )
    assert set(sums) == set(means)
    for key, total in sums.items():
        spread = (squares[key] / count - (total / count).square()).clamp_min(0).sqrt()
        apart = (total / count - means[key]).abs()
        assert (apart <= 6 * spread / count**0.5 + 1e-12).all(), key
        assert float(spread.max()) > 0, key


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_the_same_seed_gives_the_same_draws(name: str) -> None:
    model, posterior = WITH_SPREAD[name]()
    one = posteriors.predict(posterior, model, INPUTS, generator=seeded(7), draws=3)
    assert one.shape == (3, 9, 3)
    assert torch.equal(one, posteriors.predict(posterior, model, INPUTS, generator=seeded(7), draws=3))
    if not isinstance(posterior, Ensemble):
        assert not torch.equal(one, posteriors.predict(posterior, model, INPUTS, generator=seeded(8), draws=3))
    assert float(one.std(dim=0).min()) > 0


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_it_survives_saving(name: str, tmp_path: Path) -> None:
    model, posterior = WITH_SPREAD[name]()
    posteriors.save(posterior, tmp_path / "p.safetensors")
    again = posteriors.load(tmp_path / "p.safetensors")
    assert type(again) is type(posterior)
    one = posteriors.predict(posterior, model, INPUTS, generator=seeded(7), draws=2)
    two = posteriors.predict(again, model, INPUTS, generator=seeded(7), draws=2)
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)  # a file keeps numbers, not the layout they round in


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_the_model_is_left_as_it_was(name: str) -> None:
    model, posterior = WITH_SPREAD[name]()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    hooks = [dict(layer._forward_hooks) for layer in model.modules()]
    posteriors.predict(posterior, model, INPUTS, generator=seeded(7), draws=2)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert hooks == [dict(layer._forward_hooks) for layer in model.modules()]
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())
    assert not any(layer.training for layer in model.modules())


@pytest.mark.parametrize("name", sorted(KNOWN - {"dropout"}))
def test_it_shares_no_memory_with_the_model(name: str) -> None:
    model, posterior = WITH_SPREAD[name]()
    one = posteriors.predict(posterior, model, INPUTS, generator=seeded(7), draws=2)
    weights = posterior.draw(seeded(0))
    kept = {key: value.clone() for key, value in posterior.draw(seeded(0)).items()}
    for weight in weights.values():
        if not isinstance(posterior, Ensemble):  # whose members are views
            weight.detach().clone().zero_()
    own = [weight for key, weight in model.named_parameters() if key in kept]
    before = [weight.detach().clone() for weight in own]
    for weight in own:
        weight.data.zero_()
    assert all(torch.equal(value, kept[key]) for key, value in posterior.draw(seeded(0)).items())
    for weight, value in zip(own, before, strict=True):
        weight.data.copy_(value)
    assert torch.equal(one, posteriors.predict(posterior, model, INPUTS, generator=seeded(7), draws=2))


class Interrupted:
    """Batches that stop the process in the middle of a run."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __iter__(self):
        for batch in BATCHES:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            yield batch


@pytest.mark.parametrize("name", sorted(FROM_TRAINING))
@pytest.mark.parametrize("after", [7, 13, 21])
def test_interrupted_and_resumed_training_gives_the_same_posterior(name: str, after: int, tmp_path: Path) -> None:
    _, whole = trained(name)
    with pytest.raises(KeyboardInterrupt):
        trained(name, tmp_path / "c.safetensors", Interrupted(after))
    model, again = trained(name, tmp_path / "c.safetensors")
    draws = [posteriors.predict(p, model, INPUTS, generator=seeded(7), draws=2) for p in (whole, again)]
    assert torch.equal(draws[0], draws[1])


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"nothing")
    with pytest.raises(DataError, match="safetensors"):
        posteriors.load(tmp_path / "x")
    with pytest.raises(DataError, match="cannot read"):
        posteriors.load(tmp_path / "none")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "y")
    with pytest.raises(DataError, match="no posterior"):
        posteriors.load(tmp_path / "y")
    with pytest.raises(OptionError, match="expected one of"):
        posteriors.save(object(), tmp_path / "z")
    assert isinstance(Dropout(), Dropout)
