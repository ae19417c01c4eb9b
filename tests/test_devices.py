"""Where a network runs and in which precision: chosen in one place, said, and afterwards everything as it was."""

import threading
from collections import Counter
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

import caveat
from caveat import devices, evaluation
from caveat.errors import ModelError, OptionError
from caveat.observations import observe
from caveat.scoring import catalog
from caveat.scoring.kinds import Material


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 4)).eval()


def labelled(count: int = 400, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 20, generator=generator)
    with torch.no_grad():
        return inputs, (network()(inputs) + 0.2 * torch.randn(count, 4, generator=generator)).argmax(1)


class Watched(nn.Module):
    """A network that notes in what it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()
        self.seen: set[tuple[torch.dtype, bool]] = set()

    def forward(self, inputs: Tensor) -> Tensor:
        made = self.inner[0](inputs)
        self.seen.add((made.dtype, torch.backends.cudnn.allow_tf32))
        return self.inner(inputs)


def test_auto_is_the_fastest_there_is_and_another_is_refused_by_what_there_is(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert devices.choose("auto") == torch.device("cpu")
    with pytest.raises(OptionError, match=r"device: there is no 'cuda' on this machine; expected auto, cpu$"):
        devices.choose("cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert devices.choose("auto") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.choose("auto") == torch.device("cuda")
    assert devices.choose("cuda:1") == torch.device("cuda:1")
    with pytest.raises(
        OptionError, match=r"no 'cuda:2' on this machine; expected auto, cuda, cuda:0, cuda:1, mps, cpu"
    ):
        devices.choose("cuda:2")
    with pytest.raises(OptionError, match=r"dtype: there is no 'bf16'"):
        devices.check("cpu", "bf16")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_autocast_is_on_inside_of_the_network_alone(dtype: str) -> None:
    model, (inputs, labels) = Watched().eval(), labelled()
    whole = observe(model, [(inputs, labels)])
    assert model.seen == {(torch.float32, False)}
    model.seen.clear()
    narrow = observe(model, [(inputs, labels)], dtype=dtype)
    assert {made for made, _ in model.seen} == {getattr(torch, dtype)}
    assert narrow.logits.dtype == narrow.features.dtype == torch.float32
    with torch.autocast("cpu", dtype=getattr(torch, dtype)):
        expected = model(inputs)
        asked = observe(model, [(inputs, labels)])  # as the caller has it
    assert torch.equal(narrow.logits, expected.float())
    assert torch.equal(asked.logits, narrow.logits)
    assert 0 < (narrow.logits - whole.logits).abs().max() < 0.05
    assert next(model.parameters()).dtype == torch.float32
    assert not any(hooks for layer in model.modules() for hooks in evaluation._hooks(layer))


def test_scores_are_in_single_precision_under_a_callers_autocast() -> None:
    model, sets = network(), labelled()
    expected = caveat.audit(model, sets, dtype="bfloat16", replicas=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = caveat.audit(model, sets, replicas=2)
    assert (found.settings["device"], found.settings["dtype"]) == ("cpu", "bfloat16")
    assert [one.model_dump() for one in found.selective] == [one.model_dump() for one in expected.selective]
    whole = caveat.audit(model, sets, device="cpu", replicas=2)
    assert (whole.settings["device"], whole.settings["dtype"]) == ("cpu", "float32")
    assert caveat.audit(network().double(), (sets[0].double(), sets[1]), replicas=2).settings["dtype"] == "float64"


def test_an_ensemble_runs_in_it_too() -> None:
    model, (inputs, labels) = network(), labelled()
    many = caveat.posteriors.Predictive(model, caveat.posteriors.ensemble.of([network(), network()])).eval()
    found = observe(many, [(inputs, labels)], dtype="bfloat16")
    assert torch.equal(found.probed["draws"][:, 0], observe(model, [(inputs, labels)], dtype="bfloat16").logits)


def test_a_guard_decides_in_the_precision_it_was_fitted_in(tmp_path) -> None:
    model, sets = network(), labelled()
    guard = caveat.Guard.fit(model, sets, score="energy", dtype="bfloat16")
    assert guard.decision.dtype == "bfloat16"
    guard.save(tmp_path / "guard")
    again = caveat.Guard.load(tmp_path / "guard", network())
    expected = guard(sets[0]).score
    assert torch.equal(again(sets[0]).score, expected)
    with torch.autocast("cpu", dtype=torch.float16):
        assert torch.equal(again(sets[0]).score, expected)
    whole = caveat.Guard.fit(model, sets, score="energy")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = whole(sets[0])
    assert torch.equal(under.score, whole(sets[0]).score)
    assert not torch.equal(under.score, expected)


def test_everything_is_as_it_was_afterwards_whatever_happens_inside() -> None:
    model = network()
    before = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)

    def failing(_: nn.Module, __: object) -> None:
        raise RuntimeError("inside")

    handle = model[2].register_forward_pre_hook(failing)
    with pytest.raises(RuntimeError, match="inside"), devices.running(model, "cpu", "bfloat16"):
        model(torch.zeros(2, 20))
    handle.remove()
    assert not torch.is_autocast_enabled("cpu")
    assert model(torch.zeros(2, 20)).dtype == torch.float32
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before


def test_threads_that_overlap_leave_the_switches_as_they_were() -> None:
    before = torch.backends.cudnn.allow_tf32
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with devices.running(network()):
            first_in.set()
            second_in.wait(10)
        first_out.set()

    def second() -> None:
        first_in.wait(10)
        with devices.running(network()):
            second_in.set()
            first_out.wait(10)
            assert torch.backends.cudnn.allow_tf32 is False

    threads = [threading.Thread(target=one) for one in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert torch.backends.cudnn.allow_tf32 is before


def test_a_network_of_several_devices_stays_where_it_is() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta"))
    with pytest.raises(ModelError, match=r"device: the network is spread over cpu, meta; leave the device out"):
        observe(model.eval(), [], device="cpu")


# what waits for a GPU, and what only moves numbers off it
WAITING = {
    "item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__", "nonzero", "equal", "allclose",
    "unique",     "masked_select",
}  # fmt: skip


class Far(Tensor):
    """A tensor that says it is on a GPU, and counts who looks at its numbers."""

    counts: ClassVar[Counter[str]] = Counter()

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        name = func.__name__
        if getattr(func, "__self__", None) is Tensor.device:
            return torch.device("cuda")
        masks = name == "__getitem__" and isinstance(args[1], Tensor) and args[1].dtype == torch.bool
        if name in WAITING or masks:
            cls.counts[name] += 1
        if name == "cpu" or (name == "to" and args[1] == "cpu"):
            cls.counts["moved" if (kwargs or {}).get("non_blocking") else "waited for a move"] += 1
            return super().__torch_function__(func, types, args, kwargs).as_subclass(Tensor)
        return super().__torch_function__(func, types, args, kwargs)


class Event:
    """A place in a GPU's queue."""

    def record(self) -> None: ...

    def synchronize(self) -> None:
        Far.counts["waited for a batch"] += 1


class OnGPU(nn.Module):
    """A network whose numbers are on the GPU from its first layer on."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.inner(inputs.as_subclass(Far))


@pytest.fixture
def gpu(monkeypatch) -> Counter[str]:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    Far.counts.clear()
    return Far.counts


def test_within_a_batch_nothing_waits_for_the_network(gpu: Counter[str]) -> None:
    """Two arrays a batch move without waiting, and one wait is for the batch before; the first batch is looked at."""
    inputs, labels = labelled(240)
    model = OnGPU().eval()
    counts = []
    for batches in (3, 6, 12):
        gpu.clear()
        known = observe(model, list(zip(inputs.split(20), labels.split(20), strict=True))[:batches])
        head = (model.inner[2].weight.detach(), model.inner[2].bias.detach())
        fits = catalog.fit(catalog.resolve(None), Material(known, head, known), left_out={})  # of few samples
        catalog.evaluate(fits, {"test": known})
        counts.append(Counter(gpu))
    assert torch.equal(known.logits, observe(network(), [(inputs, labels)]).logits)
    assert type(known.logits) is type(known.features) is Tensor
    for few, more, batches in ((counts[0], counts[1], 3), (counts[1], counts[2], 6)):
        assert more - few == {"moved": 2 * batches, "waited for a batch": batches}
