"""CamVid, StreetHazards and BDD-Anomaly read from small trees in their published layouts."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from caveat.data.scenes import VOID, first, shares, shuffled_scenes
from caveat.data.segmentation import SETS, open_bdd_anomaly, open_camvid, open_street_hazards
from caveat.errors import DataError, OptionError

RANDOM = np.random.default_rng(0)
HEIGHT, WIDTH = 6, 8


def write(picture: Path, labels: Path, values: np.ndarray) -> None:
    """A picture whose red channel is ten times its label map."""
    for path in (picture, labels):
        path.parent.mkdir(parents=True, exist_ok=True)
    image = np.zeros((*values.shape, 3), np.uint8)
    image[..., 0] = 10 * values.astype(int) % 256
    image[..., 2] = 255
    Image.fromarray(image).save(picture, **({"quality": 100, "subsampling": 0} if picture.suffix == ".jpg" else {}))
    Image.fromarray(values.astype(np.uint8)).save(labels)


def maps(low: int, high: int, *extra: int) -> np.ndarray:
    values = RANDOM.integers(low, high, (HEIGHT, WIDTH))
    for place, value in enumerate(extra):
        values[place, :2] = value
    return values


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    root = tmp_path / "CamVid"
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        lines = []
        for number in range(count):
            name = f"{split}{number}"
            write(root / split / f"{name}.png", root / f"{split}annot" / f"{name}.png", maps(0, 8, 8, 9, 10, 11))
            lines.append(f"/SegNet/CamVid/{split}/{name}.png /SegNet/CamVid/{split}annot/{name}.png")
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def hazards(tmp_path: Path) -> Path:
    root = tmp_path / "StreetHazards"
    for archive, part, town, extra in (
        ("train", "training", "t1-3", ()), ("train", "validation", "t4", ()), ("test", "test", "t5", (14,)),
    ):  # fmt: skip
        entries = []
        for number in range(2):
            where = Path("images") / part / town / f"{number}.png", Path("annotations") / part / town / f"{number}.png"
            write(root / archive / where[0], root / archive / where[1], maps(1, 14, *extra))
            entries.append({"dbName": "StreetHazards", "width": WIDTH, "height": HEIGHT,
                            "fpath_img": str(where[0]), "fpath_segm": str(where[1])})  # fmt: skip
        listing = {"training": "train", "validation": "validation", "test": "test"}[part]
        (root / archive / f"{listing}.odgt").write_text(json.dumps(entries))
    return root


@pytest.fixture
def bdd(tmp_path: Path) -> Path:
    root = tmp_path / "BDD-Anomaly"
    for part, name, extra in (
        ("train", "a", (255,)), ("train", "b", (17,)), ("train", "c", (18,)), ("val", "d", (16,)), ("val", "e", ()),
    ):  # fmt: skip
        seg = root / "seg"
        write(
            seg / "images" / part / f"{name}.jpg", seg / "labels" / part / f"{name}_train_id.png", maps(0, 16, *extra)
        )
    return root


def test_camvid(camvid: Path):
    plain = open_camvid("test", root=camvid, batch=1)
    assert len(plain) == 2
    assert plain.classes[0] == "sky"
    assert len(plain.classes) == 11
    pictures, labels = next(iter(plain))
    assert pictures.shape == (1, 3, HEIGHT, WIDTH)
    assert (pictures.min() >= 0) & (pictures.max() == 1)
    assert labels[0, 3, 0] == VOID  # 11
    known = labels < 11
    assert torch.allclose(pictures[0, 0][known[0]] * 255, 10.0 * labels[known], atol=1e-3)  # map and picture agree
    both = torch.cat([y for _, y in plain])
    assert torch.equal(both, torch.cat([y for _, y in open_camvid("test", root=camvid, batch=2)]))


def test_unknown_classes_are_numbered_after_the_known_ones(camvid: Path):
    plain = open_camvid("test", root=camvid, batch=2)
    open_set = open_camvid("test", root=camvid, ood=("pedestrian", "car"), batch=2)
    (_, before), (_, after) = next(iter(plain)), next(iter(open_set))
    assert open_set.classes == tuple(c for c in plain.classes if c not in ("pedestrian", "car"))
    assert open_set.ood == {"pedestrian": (9,), "car": (10,)}
    for old, title in enumerate(plain.classes):
        new = 9 if title == "pedestrian" else 10 if title == "car" else open_set.classes.index(title)
        assert torch.equal(before == old, after == new), title
    assert torch.equal(before == VOID, after == VOID)
    with pytest.raises(OptionError, match="no class 'horse'"):
        open_camvid(root=camvid, ood=("horse",))


def test_training_batches_hide_what_is_unknown(camvid: Path):
    scenes = open_camvid("train", root=camvid, ood=("pedestrian", "bicyclist", "car"))
    plain = {tuple(picture.flatten().tolist()): labels for x, y in scenes for picture, labels in zip(x, y, strict=True)}
    batches = shuffled_scenes(scenes, batch=2, generator=torch.Generator().manual_seed(0))
    assert len(batches) == 2
    seen, mirrored = 0, 0
    for _ in range(4):
        for pictures, labels in batches:
            for picture, truth in zip(pictures, labels, strict=True):
                turned = tuple(picture.flatten().tolist()) not in plain
                key = picture.flip(-1) if turned else picture
                expected = plain[tuple(key.flatten().tolist())].clone()
                expected[expected >= 8] = VOID
                assert torch.equal(truth.flip(-1) if turned else truth, expected)
                seen, mirrored = seen + 1, mirrored + turned
    assert seen == 12
    assert 0 < mirrored < 12
    assert shares(batches, classes=8).sum().item() == pytest.approx(1)
    calm = shuffled_scenes(scenes, batch=2, generator=torch.Generator().manual_seed(0), flip=False)
    assert all(tuple(p.flatten().tolist()) in plain for x, _ in calm for p in x)


def test_resizing_keeps_labels_whole(camvid: Path):
    small = open_camvid("test", root=camvid, size=(3, 4), batch=2)
    pictures, labels = next(iter(small))
    assert pictures.shape == (2, 3, 3, 4)
    _, full = next(iter(open_camvid("test", root=camvid, batch=2)))
    assert torch.equal(labels, full[:, 1::2, 1::2])  # nearest-exact, whose middles are between pixels, takes the next
    assert len(first(small, 1)) == 1
    with pytest.raises(OptionError, match=r"expected 1\.\.2 scenes"):
        first(small, 3)


def test_street_hazards(hazards: Path):
    test = open_street_hazards("test", root=hazards)
    pictures, labels = next(iter(test))
    assert test.ood == {"anomaly": (13,)}
    assert len(test.classes) == 13
    assert bool((labels[:, 0, :2] == 13).all())
    assert torch.allclose(pictures[:, 0] * 255, 10.0 * (labels + 1), atol=1e-3)  # the files begin at 1
    assert len(open_street_hazards("train", root=hazards)) == 2
    assert len(open_street_hazards("val", root=hazards)) == 2
    # without lists, and with one beside the archives, of JSON lines
    text = json.loads((hazards / "test" / "test.odgt").read_text())
    (hazards / "test" / "test.odgt").unlink()
    again = open_street_hazards("test", root=hazards)
    assert again.pictures == test.pictures
    (hazards / "test.odgt").write_text("\n".join(json.dumps(entry) for entry in text[:1]))
    assert open_street_hazards("test", root=hazards).pictures == test.pictures[:1]


def test_bdd_anomaly_sorts_pictures_by_what_they_hold(bdd: Path):
    names = {split: [p.stem for p in open_bdd_anomaly(split, root=bdd).pictures] for split in ("train", "val", "test")}
    assert names == {"train": ["a", "c"], "val": ["e"], "test": ["b", "d"]}
    test = open_bdd_anomaly("test", root=bdd)
    _, labels = next(iter(test))
    assert len(test.classes) == 17
    assert test.ood == {"motorcycle": (17,), "train": (18,)}
    assert bool((labels[0, 0, :2] == 17).all())
    assert bool((labels[1, 0, :2] == 18).all())
    _, train = next(iter(open_bdd_anomaly("train", root=bdd)))
    assert bool((train[0, 0, :2] == VOID).all())
    assert bool((train[1, 0, :2] == 16).all())  # bicycle, 18 in the file
    entry = {"fpath_img": "seg/images/train/a.jpg", "fpath_segm": "seg/labels/train/a_train_id.png"}
    (bdd / "train.odgt").write_text(json.dumps([entry]))
    assert [p.stem for p in open_bdd_anomaly("train", root=bdd).pictures] == ["a"]


@pytest.mark.parametrize("name", SETS)
def test_what_is_not_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(OptionError, match="no split 'all'"):
        SETS[name]("all", root=tmp_path)
    with pytest.raises(DataError, match=name):
        SETS[name]("test", root=tmp_path)
    with pytest.raises(DataError, match=f"{name}: not found"):
        SETS[name]("test", root=tmp_path / "nowhere")
    monkeypatch.delenv("CAVEAT_DATA", raising=False)
    with pytest.raises(DataError, match="set CAVEAT_DATA"):
        SETS[name]()


def test_broken_files(camvid: Path, hazards: Path):
    scenes = open_camvid("test", root=camvid)
    with pytest.raises(DataError, match=r"indices must be in 0\.\.1"):
        scenes.take([2])
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(scenes.maps[0])
    with pytest.raises(DataError, match=r"test0.png is \(3, 3\), its picture \(6, 8\)"):
        scenes.take([0])
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(scenes.maps[0])
    with pytest.raises(DataError, match="expected a PNG of labels"):
        scenes.take([0])
    scenes.maps[0].write_bytes(b"\x89PNG\r\n")
    with pytest.raises(DataError, match="not a readable label map"):
        scenes.take([0])
    scenes.maps[0].unlink()
    with pytest.raises(DataError, match="is listed but not there"):
        open_camvid("test", root=camvid)
    listing = hazards / "test" / "test.odgt"
    for text, message in (
        ("[{]", "is not JSON"),
        (json.dumps([{"fpath_img": "x.png"}]), "expected entries"),
        (json.dumps([{"fpath_img": "../../x.png", "fpath_segm": "y.png"}]), "outside of the set"),
    ):
        listing.write_text(text)
        with pytest.raises(DataError, match=message):
            open_street_hazards("test", root=hazards)


def test_sizes_must_agree_within_a_batch(camvid: Path):
    scenes = open_camvid("train", root=camvid, batch=3)
    write(scenes.pictures[1], scenes.maps[1], np.zeros((4, 4)))
    with pytest.raises(DataError, match="different sizes"):
        next(iter(scenes))
    assert next(iter(open_camvid("train", root=camvid, batch=3, size=(4, 4))))[0].shape == (3, 3, 4, 4)
    with pytest.raises(DataError, match="different sizes"):
        shuffled_scenes(open_camvid("train", root=camvid, batch=1), generator=torch.Generator())


@pytest.mark.skipif("CAVEAT_DATA" not in os.environ, reason="needs CAVEAT_DATA")
def test_the_real_camvid():
    test = open_camvid("test", ood=("pedestrian", "bicyclist", "car"))
    pictures, labels = next(iter(test))
    assert len(test) == 233
    assert pictures.shape == (4, 3, 360, 480)
    assert set(labels.unique().tolist()) <= {*range(11), VOID}
