"""The loop: what it computes, what it leaves alone, and that it resumes to the same numbers."""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
)

from caveat import data
from caveat.data import augment
from caveat.errors import CaveatError, DataError, OptionError
from caveat.objectives import cross_entropy
from caveat.training import History, ResumableTracker, Tracker, fit
from caveat.training import checkpoint as checkpoints


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network() -> nn.Sequential:
    """Batch norm and dropout: both kinds of state that are easily forgotten."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(4 * 16, 3)
        )


def pictures(n: int = 30) -> data.Source:
    """Three classes, told apart by brightness."""
    labels = torch.arange(n) % 3
    noise = torch.rand(n, 1, 6, 6, generator=seeded(1))
    return data.from_tensors(0.2 * noise + 0.35 * labels[:, None, None, None], labels)


class Mean:
    """A tracker: running mean of the first weights, and how often it was called."""

    def __init__(self) -> None:
        self.count, self.mean = 0, torch.zeros(4, 1, 3, 3)

    def update(self, model: nn.Module) -> None:
        self.count += 1
        self.mean = self.mean + (next(model.parameters()).detach() - self.mean) / self.count

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.mean = state["count"], state["mean"]


class KilledError(Exception):
    pass


Schedule = Callable[[torch.optim.Optimizer], LRScheduler | None]


def run(
    *,
    optimizer: Callable[[Any], torch.optim.Optimizer],
    schedule: Schedule = lambda optimizer: None,
    checkpoint: Path | None = None,
    every: int | None = None,
    die_at: int | None = None,
    epochs: int = 4,
    shared: bool = True,
) -> tuple[nn.Module, History, Mean]:
    """One training run from scratch, perhaps killed before step `die_at` (counted over all epochs)."""
    model, generator, tracker = network(), seeded(5), Mean()
    own = generator if shared else seeded(6)
    batches = data.shuffled(pictures(), batch=8, generator=own, augment=lambda x, g: augment.crop(x, g, pad=1))
    steps = 0

    def objective(model: nn.Module, inputs: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        nonlocal steps
        steps += 1
        if steps == die_at:
            raise KilledError
        noise = 0.05 * torch.randn(inputs.shape, generator=generator)  # an objective that draws
        return cross_entropy(model, inputs + noise, labels, generator)

    stepper = optimizer(model.parameters())
    history = fit(
        model,
        batches,
        objective,
        optimizer=stepper,
        schedule=schedule(stepper),
        epochs=epochs,
        trackers=[tracker],
        checkpoint=checkpoint,
        checkpoint_every=every,
        generator=generator,
    )
    return model, history, tracker


def same(left: nn.Module, right: nn.Module) -> bool:
    pairs = zip(left.state_dict().values(), right.state_dict().values(), strict=True)
    return all(torch.equal(one, two) for one, two in pairs)


def momentum(parameters: Any) -> torch.optim.Optimizer:
    return SGD(parameters, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return Adam(parameters, lr=0.01, amsgrad=True)


SCHEDULES: dict[str, Schedule] = {
    "none": lambda optimizer: None,
    "cosine": lambda optimizer: CosineAnnealingLR(optimizer, 16),
    "steps": lambda optimizer: MultiStepLR(optimizer, [3, 3, 9]),
    "one cycle": lambda optimizer: OneCycleLR(optimizer, 0.1, total_steps=20),
    "lambda": lambda optimizer: LambdaLR(optimizer, lambda step: 1 / (1 + step)),
    "sequence": lambda optimizer: SequentialLR(
        optimizer, [LinearLR(optimizer, total_iters=4), CosineAnnealingLR(optimizer, 12)], [4]
    ),
}


STOPS = [(None, 10, True), (3, 8, True), (3, 16, False), (1, 4, False), (1, 5, True)]
"""4 batches an epoch: after an epoch (10, 5), in the middle of one (8, 16), right before its last step (4)."""
CASES = [(name, adam, 3, 8, True) for name in SCHEDULES] + [("steps", momentum, *stop) for stop in STOPS]


@pytest.mark.parametrize(("schedule", "optimizer", "every", "die_at", "shared"), CASES)
def test_killed_and_resumed_is_as_if_nothing_had_happened(
    tmp_path: Path, schedule: str, optimizer: Callable, every: int | None, die_at: int, shared: bool
):
    options: dict[str, Any] = {"optimizer": optimizer, "schedule": SCHEDULES[schedule], "shared": shared}
    model, history, tracker = run(**options)
    path = tmp_path / "deep" / "run.safetensors"
    with pytest.raises(KilledError):
        run(**options, checkpoint=path, every=every, die_at=die_at)
    assert [file.name for file in path.parent.iterdir()] == ["run.safetensors"]
    resumed, its_history, its_tracker = run(**options, checkpoint=path, every=every)
    assert same(model, resumed)
    assert (history.loss, history.accuracy) == (its_history.loss, its_history.accuracy)
    assert len(its_history.seconds) == 4
    assert tracker.count == its_tracker.count == 16
    assert torch.equal(tracker.mean, its_tracker.mean)


def test_a_finished_run_is_read_back_and_can_be_prolonged(tmp_path: Path):
    path = tmp_path / "run.safetensors"
    model, history, _ = run(optimizer=adam, epochs=2, checkpoint=path)
    again, its_history, _ = run(optimizer=adam, epochs=2, checkpoint=path, die_at=1)
    assert same(model, again)
    assert history == its_history
    longer, _, _ = run(optimizer=adam, epochs=4, checkpoint=path)
    assert same(longer, run(optimizer=adam, epochs=4)[0])


def test_a_run_read_back_leaves_the_generator_where_the_run_left_it(tmp_path: Path):
    states = []
    for _ in range(2):
        model, generator = network(), seeded()
        batches, optimizer = data.shuffled(pictures(), generator=generator), SGD(model.parameters(), lr=0.1)
        options: dict[str, Any] = {"optimizer": optimizer, "epochs": 2, "checkpoint": tmp_path / "run"}
        fit(model, batches, cross_entropy, generator=generator, **options)
        states.append(generator.get_state())
    assert torch.equal(*states)
    assert not torch.equal(states[0], seeded().get_state())


def test_another_run_would_have_been_another(tmp_path: Path):
    """So that the tests above can fail: dropping the generator's state changes the weights."""
    path = tmp_path / "run.safetensors"
    run(optimizer=adam, epochs=2, checkpoint=path)
    state = checkpoints.load(path)
    state["now"]["generators"] = state["start"]["generators"] = [seeded(99).get_state()] * 2
    checkpoints.save(path, state)
    assert not same(run(optimizer=adam, checkpoint=path)[0], run(optimizer=adam)[0])


def test_one_step_is_gradient_descent():
    """w = 2, loss (w x - y)^2 / 2 with x = 3, y = 1: gradient (6 - 1) 3 = 15, so w = 2 - 0.1 * 15 = 0.5."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 2.0)

    def half_square(model: nn.Module, inputs: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return (model(inputs) - labels[:, None]).square().mean() / 2

    batch = (torch.tensor([[3.0]]), torch.tensor([1]))  # float32: goes to the model's dtype
    history = fit(model, [batch], half_square, optimizer=SGD(model.parameters(), lr=0.1), epochs=1, generator=seeded())
    assert model.weight.item() == pytest.approx(0.5, abs=1e-12)
    assert history.loss == (12.5,)  # before the step
    assert history.accuracy == (0.0,)  # one output: class 0, the label is 1


def test_the_schedule_goes_by_steps():
    model, rates = nn.Linear(1, 2), []
    optimizer = SGD(model.parameters(), lr=1.0)
    batch = (torch.ones(2, 1), torch.tensor([0, 1]))

    class Spy:
        def update(self, model: nn.Module) -> None:
            rates.append(optimizer.param_groups[0]["lr"])

    schedule = LambdaLR(optimizer, lambda step: 1 / (1 + step))
    fit(
        model,
        [batch] * 3,
        cross_entropy,
        optimizer=optimizer,
        schedule=schedule,
        epochs=1,
        generator=seeded(),
        trackers=[Spy()],
    )
    assert rates == [1, 1 / 2, 1 / 3]  # each the rate that made the step


def test_history_means_are_over_samples():
    """Logits fixed at (0, ln 3): p = (1/4, 3/4). Batches of 3 and 1: losses ln 4 and ln(4/3)."""
    model = nn.Linear(1, 2)
    nn.init.zeros_(model.weight)
    model.bias.data = torch.tensor([0.0, math.log(3)])
    batches = [(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64)), (torch.zeros(1, 1), torch.tensor([1]))]
    history = fit(
        model, batches, cross_entropy, optimizer=SGD(model.parameters(), lr=1e-9), epochs=2, generator=seeded()
    )
    assert history.loss == pytest.approx([(3 * math.log(4) + math.log(4 / 3)) / 4] * 2)
    assert history.accuracy == (0.25, 0.25)
    assert all(seconds > 0 for seconds in history.seconds)


def test_accuracy_is_none_when_the_model_never_saw_the_inputs():
    def flattened(model: nn.Module, inputs: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return cross_entropy(model, inputs * 1, labels, generator)

    model = nn.Linear(1, 2)
    batch = (torch.ones(2, 1), torch.tensor([0, 1]))
    history = fit(model, [batch], flattened, optimizer=SGD(model.parameters(), lr=1.0), epochs=1, generator=seeded())
    assert history.accuracy == (None,)


def test_it_learns():
    model, history, _ = run(optimizer=adam, epochs=12)
    model.eval()
    inputs, labels = next(iter(pictures()))
    assert (model(inputs).argmax(1) == labels).double().mean() > 0.9
    assert history.loss[-1] < 0.5 * history.loss[0]


def test_the_callers_world_is_left_as_it_was():
    model = network()
    model.eval()
    model[1].train()
    modes = [module.training for module in model.modules()]
    frozen = model[0].weight.requires_grad_(False)
    before, weights = torch.get_rng_state(), frozen.clone()
    seen = []

    def after(epoch: int, model: nn.Module) -> None:
        seen.append(epoch)
        model.eval()  # the next epoch must train all the same

    optimizer = SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    inputs = next(iter(pictures()))
    fit(model, [inputs], cross_entropy, optimizer=optimizer, epochs=3, generator=seeded(), after_epoch=after)
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(frozen, weights)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model._forward_hooks
    assert seen == [1, 2, 3]
    assert model[1].num_batches_tracked.item() == 3


def test_dropout_follows_the_generator_not_the_global_state():
    results = []
    for state in (1, 2):
        torch.set_rng_state(seeded(state).get_state())
        results.append(run(optimizer=adam, epochs=1)[0])
    assert same(*results)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_before_the_step(broken: float):
    model = network().eval()
    good, bad = torch.rand(3, 1, 6, 6, generator=seeded()), torch.full((3, 1, 6, 6), broken)
    labels = torch.tensor([0, 1, 2])
    batches = [(good, labels), (bad, labels)]
    with pytest.raises(CaveatError, match="objective: the loss is nan at step 2 of epoch 1: lower the learning rate"):
        fit(model, batches, cross_entropy, optimizer=momentum(model.parameters()), epochs=1, generator=seeded())
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert not model.training
    assert not model._forward_hooks


def test_mistakes_of_the_caller(tmp_path: Path):
    model, batch = network(), next(iter(pictures()))
    optimizer = SGD(model.parameters(), lr=0.1)

    def start(**changes: Any) -> History:
        options = {"batches": [batch], "objective": cross_entropy, "optimizer": optimizer, "epochs": 1, **changes}
        return fit(model, generator=seeded(), **options)

    class Watcher:
        def update(self, model: nn.Module) -> None: ...

    assert isinstance(Watcher(), Tracker)
    assert not isinstance(Watcher(), ResumableTracker)
    assert isinstance(Mean(), ResumableTracker)
    for changes, kind, message in [
        ({"epochs": 0}, OptionError, "epochs: expected at least 1, got 0"),
        ({"batches": []}, DataError, "expected at least one batch"),
        ({"optimizer": SGD(network().parameters(), lr=0.1)}, OptionError, "none of its parameters belongs"),
        ({"checkpoint_every": 2}, OptionError, "a checkpoint to write"),
        ({"checkpoint_every": 0, "checkpoint": tmp_path / "x"}, OptionError, "expected at least 1"),
        ({"trackers": [Watcher()], "checkpoint": tmp_path / "x"}, OptionError, "Watcher has no state_dict"),
        ({"objective": lambda m, x, y, g: m(x)}, CaveatError, r"expected a scalar .*got shape \(30, 3\)"),
        ({"objective": lambda m, x, y, g: x.sum()}, CaveatError, "expected a scalar with a gradient"),
    ]:
        with pytest.raises(kind, match=message):
            start(**changes)


def test_checkpoints_of_something_else(tmp_path: Path):
    path = tmp_path / "run.safetensors"
    run(optimizer=adam, epochs=1, checkpoint=path)
    batch = next(iter(pictures()))
    other, weights = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), None
    weights = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(DataError, match="is of another network, schedule or trackers"):
        fit(
            other,
            [batch],
            cross_entropy,
            optimizer=SGD(other.parameters(), lr=0.1),
            epochs=1,
            generator=seeded(),
            checkpoint=path,
        )
    assert all(torch.equal(value, weights[key]) for key, value in other.state_dict().items())
    with pytest.raises(DataError, match="another network, schedule"):
        run(optimizer=adam, schedule=SCHEDULES["cosine"], checkpoint=path)
    whole = path.read_bytes()
    for broken in (whole[:-10], whole[:100], b"", b"junk"):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"^checkpoint: cannot read .*run.safetensors"):
            run(optimizer=adam, checkpoint=path)


def test_what_a_checkpoint_keeps(tmp_path: Path):
    from collections import Counter

    shared = torch.rand(3, generator=seeded())
    state = {
        "tied": [shared, shared],
        "transposed": torch.arange(6).reshape(2, 3).T,
        "bytes": torch.arange(4, dtype=torch.uint8),
        "none": None,
        "numbers": (1, 0.1, True, "text", math.inf),
        "by number": {0: {"step": torch.tensor(3.0)}, 1: {}},
        "counter": Counter([3, 3, 9]),
    }
    checkpoints.save(tmp_path / "a", state)
    back = checkpoints.load(tmp_path / "a")
    assert torch.equal(back["tied"][1], shared)
    assert torch.equal(back["transposed"], state["transposed"])
    assert torch.equal(back["bytes"], state["bytes"])
    assert back["numbers"] == state["numbers"]
    assert isinstance(back["numbers"], tuple)
    assert back["by number"][0]["step"].item() == 3.0
    assert back["by number"][1] == {}
    assert list(back["counter"].elements()) == [3, 3, 9]
    assert back["none"] is None
    with pytest.raises(CaveatError, match="a/b is a object: only tensors and plain values"):
        checkpoints.save(tmp_path / "b", {"a": {"b": object()}})
    assert not (tmp_path / "b").exists()


def test_a_file_of_another_kind_is_no_checkpoint(tmp_path: Path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(DataError, match="another program or version of Caveat wrote it"):
        checkpoints.load(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    ("terminal", "wanted", "shown"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_the_bar_is_for_terminals(monkeypatch: pytest.MonkeyPatch, terminal: bool, wanted: bool, shown: bool):
    stream = io.StringIO()
    monkeypatch.setattr(
        "caveat.training.progress.Console", lambda stderr: Console(file=stream, force_terminal=terminal, width=120)
    )
    model, batch = network(), next(iter(pictures()))
    optimizer = SGD(model.parameters(), lr=0.1)
    fit(model, [batch], cross_entropy, optimizer=optimizer, epochs=2, generator=seeded(), progress=wanted)
    assert ("epoch 2/2: loss" in stream.getvalue()) == shown


def test_real_labels_are_no_classes(generator: torch.Generator):
    """y = 2x + 1 with noise of deviation 0.5: both are learnt, and no accuracy is made up."""
    from caveat.objectives import heteroscedastic

    inputs = torch.rand(400, 1, generator=generator)
    labels = (2 * inputs[:, 0] + 1 + 0.5 * torch.randn(400, generator=generator)).double()
    model = nn.Linear(1, 2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    batches = list(zip(inputs.split(100), labels.split(100), strict=True))
    history = fit(model, batches, heteroscedastic, optimizer=optimizer, epochs=150, generator=generator)
    assert history.accuracy == (None,) * 150
    mean, s = model(torch.tensor([[0.5]]))[0].tolist()
    assert mean == pytest.approx(2.0, abs=0.1)
    assert s == pytest.approx(2 * torch.tensor(0.5).log().item(), abs=0.4)
