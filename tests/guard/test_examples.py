"""A guard keeps known examples, finds the nearest, and is refused where their file is not the one that was written."""

from pathlib import Path

import pytest
import torch
from tests.audits.conftest import CLASSES, in_batches, pictures
from tests.guard.test_altered import WAYS
from tests.guard.test_guard import known_set
from torch import Tensor, nn

from caveat import Guard
from caveat.errors import DataError, OptionError
from caveat.guard import artefact


@pytest.fixture
def known(generator) -> tuple[Tensor, Tensor]:
    return known_set(generator, 300)


@pytest.fixture
def guard(model, known) -> Guard:
    return Guard.fit(model, in_batches(*known), score="entropy", examples=40)


def test_the_nearest_of_a_kept_example_is_itself(guard: Guard, known: tuple[Tensor, Tensor]) -> None:
    kept = guard.decision.examples
    assert kept is not None
    assert kept.labels.bincount(minlength=CLASSES).tolist() == [40 // CLASSES] * CLASSES
    prints = known[0].mul(255).round().byte().flatten(1)
    rows = [int((prints == one.flatten()).all(dim=1).nonzero()[0]) for one in kept.pictures]  # where they stood
    found = guard.nearest(known[0][rows], 2)
    assert found.position[:, 0].tolist() == list(range(40))
    assert found.label[:, 0].tolist() == known[1][rows].tolist() == kept.labels.tolist()
    assert torch.equal(found.picture[:, 0], kept.pictures)
    assert (found.similarity[:, 0] > 1 - 1e-6).all()
    assert (found.similarity[:, 1] <= found.similarity[:, 0]).all()


def test_similarity_is_the_cosine_of_the_features(guard: Guard, known: tuple[Tensor, Tensor]) -> None:
    """By hand: the input of the head, and the dot product over both lengths."""
    kept, seen = guard.decision.examples, []
    assert kept is not None
    head = guard.model.get_submodule(str(guard.decision.head))
    handle = head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    guard.model(known[0][:5])
    handle.remove()
    wanted = torch.cosine_similarity(seen[0][:, None], kept.features[None], dim=2)
    found = guard.nearest(known[0][:5], 40)
    assert torch.allclose(found.similarity, wanted.sort(dim=1, descending=True).values, atol=1e-6)
    assert torch.allclose(found.similarity, wanted.gather(1, found.position), atol=1e-6)


def test_what_cannot_be_looked_at_has_no_neighbours(guard: Guard, known: tuple[Tensor, Tensor]) -> None:
    broken = known[0][:2].clone()
    broken[1, 0, 3, 3] = torch.nan
    found = guard.nearest(broken)
    assert found.label[1].tolist() == found.position[1].tolist() == [-1, -1, -1]
    assert found.similarity[1].isnan().all()
    assert torch.equal(found.label[0], guard.nearest(known[0][:1]).label[0])


def test_examples_travel_with_the_guard_and_its_tuning(guard: Guard, model: nn.Module, tmp_path: Path, known) -> None:
    guard.save(tmp_path / "guard")
    artefact.tune(tmp_path / "guard", keep=0.8)
    assert "It holds 40 of the held-out pictures" in artefact.card(tmp_path / "guard")
    loaded, before = artefact.load(tmp_path / "guard", model), guard.nearest(known[0][:9])
    found = loaded.nearest(known[0][:9])
    for name in ("position", "label", "similarity", "picture"):
        assert torch.equal(getattr(found, name), getattr(before, name)), name
    assert torch.equal(guard.tuned(keep=0.8).nearest(known[0][:9]).position, before.position)


def test_a_changed_file_of_examples_is_refused_and_not_run(guard: Guard, model, tmp_path: Path) -> None:
    folder, mark = tmp_path / "guard", tmp_path / "ran"
    guard.save(folder)
    (path,) = folder.glob("examples-*")
    whole = path.read_bytes()
    for name, way in WAYS.items():
        path.write_bytes(way(whole, mark))
        with pytest.raises(DataError, match="guard"):
            artefact.load(folder, model)
        assert not mark.exists(), name
    path.write_bytes(next(folder.glob("guard-*")).read_bytes())
    with pytest.raises(DataError, match="guard"):
        artefact.load(folder, model)
    path.unlink()
    with pytest.raises(DataError, match="guard"):
        artefact.load(folder, model)


def test_pictures_are_kept_small_and_in_their_range(model, generator) -> None:
    """Normalised pictures are brought to bytes by one line for all of them: their order stays."""
    images, labels = pictures(torch.arange(300) % CLASSES, generator), torch.arange(300) % CLASSES
    moved = Guard.fit(Shifted(model).eval(), in_batches(images * 4 - 2, labels), score="msp", examples=10)
    kept = moved.decision.examples
    assert kept is not None
    assert (int(kept.pictures.min()), int(kept.pictures.max())) == (0, 255)
    wide = nn.functional.interpolate(images, size=(96, 48))
    small = Guard.fit(Halved(model).eval(), in_batches(wide, labels), score="msp", examples=3).decision.examples
    assert small is not None
    assert small.pictures.shape == (3, images.shape[1], 64, 32)


class Shifted(nn.Module):
    """The model of pictures that were normalised."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Tensor:
        return self.inner((inputs + 2) / 4)


class Halved(Shifted):
    """The model of pictures that are larger."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.inner(nn.functional.interpolate(inputs, size=(4, 4)))


def test_what_keeps_no_examples_says_so(model, known) -> None:
    plain = Guard.fit(model, in_batches(*known), score="entropy")
    assert plain.decision.examples is None
    with pytest.raises(OptionError, match="nearest: this guard keeps no known examples; fit it with examples=100"):
        plain.nearest(known[0])
    with pytest.raises(OptionError, match=r"n: expected 1 to 7, as many examples as the guard keeps, got 8"):
        Guard.fit(model, in_batches(*known), score="entropy", examples=7).nearest(known[0], 8)
    table = nn.Linear(4, 3).eval()
    rows = torch.randn(300, 4, generator=torch.Generator().manual_seed(0)), torch.arange(300) % 3
    with pytest.raises(OptionError, match=r"examples: expected pictures \(n, 1 or 3, height, width\)"):
        Guard.fit(table, rows, examples=5)
