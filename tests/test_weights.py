"""Weights as people have them: every nesting and prefix gives the same network, or one sentence says why not."""

import argparse
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from caveat import weights
from caveat.errors import DataError, ModelError, OptionError
from caveat.tensors import write_tensors
from caveat.training import checkpoint


def net(seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 4)).eval()


def named(prefix: str, model: nn.Module | None = None) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in (model or net()).state_dict().items()}


def same(model: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


FORMS: dict[str, tuple[Callable[[], Any], int]] = {
    "weights alone": (lambda: named(""), 0),
    "under state_dict, as DataParallel names them": (lambda: {"state_dict": named("module."), "best": 91.5}, 2),
    "compiled": (lambda: {"model": named("_orig_mod."), "epoch": 3}, 2),
    "compiled within DataParallel": (lambda: named("module._orig_mod."), 1),
    "lightning": (
        lambda: {"state_dict": named("model.") | {"loss.weight": torch.ones(3)}, "pytorch-lightning_version": "2.4"},
        3,
    ),
    "a wrapper's own name": (lambda: named("backbone.net."), 1),
    "DataParallel within": (lambda: {key.replace("0.", "0.module."): value for key, value in named("").items()}, 1),
    "averaged by torch": (lambda: named("module.") | {"n_averaged": torch.tensor(3)}, 2),
    "with a copy averaged by timm": (lambda: {"state_dict": named(""), "state_dict_ema": named("", net(2))}, 2),
    "three levels deep": (lambda: {"run": {"best": {"net": named("")}}, "epoch": 3}, 1),
    "in a list": (lambda: [{"state_dict": named("")}, {"lr": 0.1}], 1),
    "only the average": (lambda: {"model_ema": named("module."), "optimizer": {"state": {0: torch.ones(2)}}}, 2),
    "beside options and accuracies": (
        lambda: {"model": named(""), "args": argparse.Namespace(lr=0.1, out=Path("x")), "best": np.float64(0.9)},
        1,
    ),
    "without the counters of old files": (
        lambda: {key: value for key, value in named("").items() if "num_batches" not in key},
        0,
    ),
    "in double precision": (lambda: {k: v.double() if v.is_floating_point() else v for k, v in named("").items()}, 0),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("legacy", [False, True])
def test_checkpoints_load_in_every_form(form: str, legacy: bool, tmp_path: Path) -> None:
    made, notes = FORMS[form]
    torch.save(made(), tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    model = net(5)
    told = weights.load(model, tmp_path / "w.pth", name="--weights")
    assert same(model, net())
    assert len(told) == notes
    assert all(note.startswith("--weights: ") for note in told)


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_safetensors_may_have_a_prefix_too(prefix: str, tmp_path: Path) -> None:
    write_tensors(tmp_path / "w.safetensors", named(prefix))
    model = net(5)
    assert len(weights.load(model, tmp_path / "w.safetensors")) == bool(prefix)
    assert same(model, net())


def test_a_prefix_of_the_model_is_put_before_the_names(tmp_path: Path) -> None:
    write_tensors(tmp_path / "w.safetensors", named(""))
    model = nn.Module()
    model.inner = net(5)
    assert "'inner.'" in weights.load(model, tmp_path / "w.safetensors")[0]
    assert same(model.inner, net())


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (lambda: {"model": named("", net(2)), "model_ema": named("")}, "model_ema"),
        (lambda: {"student": named(""), "teacher": named("", net(2))}, "student"),
        (lambda: named("student.") | named("teacher.", net(2)), "student"),
        (lambda: {"state_dict": named("student.") | named("teacher.", net(2))}, "student"),
    ],
)
def test_a_key_names_one_of_several_that_fit(content: Callable[[], Any], key: str, tmp_path: Path) -> None:
    torch.save(content(), tmp_path / "w.pth")
    model = net(5)
    weights.load(model, tmp_path / "w.pth", key=key)
    assert same(model, net())


def test_several_that_fit_are_a_question_and_a_wrong_key_is_told(tmp_path: Path) -> None:
    torch.save({"student": named(""), "teacher": named("", net(2))}, tmp_path / "w.pth")
    torch.save(named("student.") | named("teacher."), tmp_path / "flat.pth")
    for name in ("w.pth", "flat.pth"):
        with pytest.raises(ModelError, match=r"student.*teacher.*--weights-key"):
            weights.load(net(5), tmp_path / name)
    with pytest.raises(OptionError, match="did you mean 'teacher'"):
        weights.load(net(5), tmp_path / "w.pth", key="taecher")


class Private:
    """Something whose pickle names code."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        return Path.touch, (Path("ran"),)  # pyright: ignore[reportReturnType]


def test_nothing_of_a_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(net(), tmp_path / "module.pt")
    torch.save({"model": named(""), "more": Private()}, tmp_path / "code.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Private()))
    for name, reason in (
        ("module.pt", "torch.nn.modules.container.Sequential"),
        ("code.pt", "may run code"),
        ("pickle.pt", "code"),
    ):
        with pytest.raises(DataError, match=rf"--weights: cannot read .*{reason}"):
            weights.load(net(5), tmp_path / name, name="--weights")
    assert not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_networks_and_broken_files_are_told_apart(tmp_path: Path) -> None:
    torch.jit.script(net()).save(str(tmp_path / "s.pt"))
    with pytest.raises(DataError, match="TorchScript, which is code"):
        weights.load(net(5), tmp_path / "s.pt")
    torch.save(named(""), tmp_path / "w.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "w.pth").read_bytes()[:900])
    (tmp_path / "text.pth").write_text("not found")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("cut.pth", "text.pth", "list.pth", "none.pth"):
        with pytest.raises(DataError, match=r"^path: "):
            weights.load(net(5), tmp_path / name)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (lambda: named("") | {"extra": torch.ones(1)}, "the model has no extra"),
        (lambda: {k: v for k, v in named("").items() if k != "3.bias"}, "the file lacks 3.bias"),
        (lambda: named("") | {"3.weight": torch.ones(3, 72)}, r"3.weight has shape \(3, 72\), the model's \(4, 72\)"),
        (lambda: named("") | {"3.weight": torch.ones(4, 72).char()}, ".*whole numbers need the scale"),
        (lambda: named("module.") | {"module.extra": torch.ones(1)}, "the model has no extra"),
        (lambda: named("model.") | {"model.extra": torch.ones(1)}, "the model has no"),
        (lambda: {k: v for k, v in named("module.").items() if not k.endswith("3.bias")}, "the file lacks 3.bias"),
    ],
)
def test_what_does_not_fit_leaves_the_network_as_it_was(state: Any, reason: str, tmp_path: Path) -> None:
    torch.save({"state_dict": state()}, tmp_path / "w.pth")
    model = net(5)
    with pytest.raises(ModelError, match=rf"does not fit the model: {reason}"):
        weights.load(model, tmp_path / "w.pth")
    assert same(model, net(5))


def test_of_tied_weights_one_name_is_enough(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
        model[2].weight = model[0].weight
        return model

    made, model = tied(), tied()
    torch.save({key: value for key, value in made.state_dict().items() if key != "2.weight"}, tmp_path / "w.pth")
    weights.load(model, tmp_path / "w.pth")
    assert same(model, made)


def test_a_checkpoint_of_caveat_train_holds_the_network_too(tmp_path: Path) -> None:
    model, other, path = net(1), net(2), tmp_path / "checkpoint.safetensors"
    optimizer = torch.optim.Adam(model.parameters())
    checkpoint.save(path, {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3})
    assert not same(model, other)
    weights.load(other, path)
    assert same(model, other)
