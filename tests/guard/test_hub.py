"""A guard goes to the hub in one commit and comes back with the same verdicts; what was altered there is refused."""

import copy
import sys
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from tests.guard.test_watching import guard as fitted
from tests.guard.test_watching import inputs
from torch import nn

from caveat.errors import DataError, MissingExtraError
from caveat.guard import Guard, hub
from caveat.guard.multilabel import MultilabelGuard
from caveat.guard.regression import RegressionGuard

guard = fitted


@dataclass
class Add:
    """As CommitOperationAdd."""

    path_in_repo: str
    path_or_fileobj: str | bytes


@dataclass
class Delete:
    """As CommitOperationDelete."""

    path_in_repo: str


@dataclass
class Hub(ModuleType):
    """The calls of huggingface_hub that are made, with a folder in place of the hub."""

    root: Path
    log: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        super().__init__("huggingface_hub")
        self.__spec__ = ModuleSpec("huggingface_hub", None)
        self.HfApi, self.CommitOperationAdd, self.CommitOperationDelete = lambda: self, Add, Delete

    def create_repo(self, name: str, *, repo_type: str, private: bool, exist_ok: bool) -> None:
        assert (repo_type, exist_ok) == ("model", True)
        self.log.append(f"create private={private}")
        (self.root / name).mkdir(parents=True, exist_ok=True)

    def list_repo_files(self, name: str) -> list[str]:
        return [path.name for path in (self.root / name).iterdir()]

    def create_commit(self, name: str, operations: list[Add | Delete], *, commit_message: str) -> SimpleNamespace:
        self.log.append(commit_message)
        for one in operations:
            place = self.root / name / one.path_in_repo
            if isinstance(one, Delete):
                place.unlink()
            else:
                data = one.path_or_fileobj
                place.write_bytes(data if isinstance(data, bytes) else Path(data).read_bytes())
        return SimpleNamespace(commit_url=f"hub/{name}/1")

    def snapshot_download(self, name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        if not (self.root / name).exists():
            raise OSError(f"404: {name}\nfor url")
        self.log.append(f"download {revision}")
        assert not any(Path("code.py").match(pattern) for pattern in allow_patterns)
        return str(self.root / name)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", made)
    return made


def network() -> nn.Module:
    return nn.Linear(4, 3, bias=False).eval()


def test_it_goes_and_comes_back(guard: tuple[Guard, Path], fake: Hub) -> None:
    made, folder = guard
    assert hub.push_to_hub(folder, "me/guard") == "hub/me/guard/1"
    there = fake.root / "me" / "guard"
    assert (there / "README.md").read_text().startswith("---\nlibrary_name: caveat\n")
    (there / "notes.txt").write_text("somebody's")
    images = inputs(50, 3)[0]
    back = hub.from_hub("me/guard", network(), revision="abc")
    assert torch.equal(back(images).label, made(images).label)
    assert fake.log == ["create private=True", "A guard, with its card", "download abc"]
    hub.push_to_hub(made.tuned(keep=0.5), "me/guard", private=False, model="nets:linear")  # the same tensors
    model = network()
    other = Guard.fit(model, inputs(400, 1), keep=0.9, score="energy")
    hub.push_to_hub(other, "me/guard")  # others: the old ones go
    assert len(list(there.glob("*.safetensors"))) == 2
    assert (there / "notes.txt").exists()
    assert hub.from_hub("me/guard", network()).decision.score.name == "energy"


def _regression() -> tuple[nn.Module, RegressionGuard, torch.Tensor]:
    model = nn.Sequential(nn.Linear(4, 2), nn.Softplus()).eval()
    x, labels = torch.randn(200, 4), torch.randn(200)
    return model, RegressionGuard.fit(model, (x, labels), outputs="gaussian_std", keep=0.9, error=0.2), x


def _multilabel() -> tuple[nn.Module, MultilabelGuard, torch.Tensor]:
    model, x = nn.Linear(4, 3).eval(), torch.randn(200, 4)
    labels = (torch.rand(200, 3) < torch.sigmoid(model(x))).long()
    return model, MultilabelGuard.fit(model, (x, labels), keep=0.9, error=0.2), x


@pytest.mark.parametrize("fit", [_regression, _multilabel])
def test_guards_of_other_tasks_go_and_come_back_too(fit: Any, fake: Hub) -> None:
    torch.manual_seed(0)
    model, made, x = fit()
    hub.push_to_hub(made, "me/other", model="nets:other")
    fresh = copy.deepcopy(model)
    for values in fresh.parameters():
        nn.init.zeros_(values)
    back = hub.from_hub("me/other", fresh)
    assert type(back) is type(made)
    for name, value in vars(made(x)).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(getattr(back(x), name).nan_to_num(-7), value.nan_to_num(-7)), name
    assert "library_name: caveat" in (fake.root / "me" / "other" / "README.md").read_text()


def test_what_is_no_guard_is_neither_sent_nor_loaded(guard: tuple[Guard, Path], fake: Hub, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"repository: cannot download 'me/none' \(404: me/none\); check its name"):
        hub.from_hub("me/none", network())
    guard[0].save(tmp_path / "guard")
    (path,) = (tmp_path / "guard").glob("model-*")
    hub.push_to_hub(tmp_path / "guard", "me/guard")
    there = fake.root / "me" / "guard" / path.name
    there.write_bytes(there.read_bytes()[:-1])
    with pytest.raises(DataError, match="is not the file that was written"):
        hub.from_hub("me/guard", network())
    path.unlink()
    with pytest.raises(DataError, match="guard"):
        hub.push_to_hub(tmp_path / "guard", "me/other")
    assert not (fake.root / "me" / "other").exists()


def test_without_the_library_it_says_what_to_install(
    guard: tuple[Guard, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="huggingface_hub"):
        hub.push_to_hub(guard[1], "me/guard")
