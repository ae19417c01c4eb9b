"""Every fact has one home: a second place that writes a file, reads tensors or decides what evaluation mode is, fails.

A row says what is looked for and where it may stand, and why. Whoever needs the same thing elsewhere calls the home.
"""

import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "caveat"

HOMES: dict[str, tuple[str, tuple[str, ...]]] = {
    "reading and writing tensors": (r"safe_open\(|SafetensorError|from safetensors", ("tensors.py",)),
    "tensors past their home": (r"load_file\(|save_file\(|torch\.save\(|pickle\.\w|allow_pickle=True", ()),
    "files of torch": (r"torch\.load\(", ("weights.py",)),
    "parsing JSON": (
        r"json\.loads?\(|JSONDecodeError",
        ("files.py", "cli/guard/export.py", "bounds/checker.py", "guard/portable.py"),
    ),  # the second in lines that it prints, the others stand alone
    "temporary names": (
        r"\.tmp\b",
        ("files.py",),
    ),  # a guard's folder may hold some of a killed run
    "renaming into place": (
        r"os\.(replace|rename)\(|\b(temporary|path|file|output)\.(replace|rename)\(",
        ("files.py",),
    ),
    "reaching the disk": (r"fsync", ("files.py",)),
    "writing a file at once": (
        r"\.write_(text|bytes)\(|open\([^)]*[\"'][wax]b?[\"']",
        ("files.py", "storage.py", "studies/kit/toy_scenes.py"),  # the second streams into `replacing`, the third plays
    ),
    "unnamed files": (
        r"NamedTemporaryFile|mkstemp|TemporaryFile",
        ("cli/checks.py", "storage.py"),
    ),  # one that tries a folder; parts to be joined
    "suggesting a name": (r"get_close_matches|SequenceMatcher", ("errors.py",)),
    "base64 of a picture": (r"b64encode\(", ("records/pictures.py", "report/assets.py")),  # there of a hash
    "date of making": (r"datetime\.now|utcnow|date\.today", ("records/base.py",)),
    "configuration of pydantic": (r"ConfigDict\(", ("records/base.py",)),
    "thinning by linspace": (r"linspace\(0, len|linspace\(0\.?0?, [^)]*\)\.(long|int)\(", ()),
    "thinning": (r"5\*\*0\.5 - 1", ("sampling.py",)),
    "modes": (
        r"\.training\b(?! import)(?!\.)|_DropoutNd",
        # what is random in training, layer by layer; batch norm alone; that over several processes
        ("evaluation.py", "posteriors/masks.py", "posteriors/renew.py", "training/ranks.py"),
    ),
    "whether a norm has statistics": (r"running_mean\b.*\bis None", ("evaluation.py",)),
    "hooks of torch": (r"_forward_(pre_)?hooks", ("evaluation.py",)),
    "seconds of a training": (r"\[\"history\"\]\[\"seconds\"\]", ("training/checkpoint.py",)),
    "the conformal order statistic": (
        r"def (conformal_quantile|keeping_threshold|exact_share)\b",
        ("calibration/_rank.py",),
    ),
    "the regularised fit of a calibration": (r"_regularised\.fit\(", ("calibration/linear.py",)),
}


def text(path: Path) -> str:
    """A module without its comments, which may name anything."""
    return re.sub(r"(?m)(^|\s)#.*$", "", path.read_text(encoding="utf-8"))


TEXTS = {path.relative_to(SOURCE).as_posix(): text(path) for path in sorted(SOURCE.rglob("*.py"))}


@pytest.mark.parametrize("fact", HOMES)
def test_a_fact_has_one_home(fact: str):
    pattern, homes = HOMES[fact]
    found = {name for name, module in TEXTS.items() if re.search(pattern, module)}
    assert found <= set(homes), f"{fact}: {sorted(found - set(homes))} should call {homes or 'what its home offers'}"
    assert found == set(homes), f"{fact}: {sorted(set(homes) - found)} no longer needs an exception"


@pytest.mark.parametrize(
    ("fact", "line"),
    [
        ("reading and writing tensors", "    with safe_open(path, framework='pt') as file:"),
        ("tensors past their home", "    state = load_file(path)"),
        ("parsing JSON", "    return json.loads(path.read_text())"),
        ("temporary names", '    temporary = path.with_name(f".{path.name}.tmp")'),
        ("renaming into place", "    temporary.replace(path)"),
        ("writing a file at once", "    (folder / 'x').write_text(text)"),
        ("writing a file at once", '    with open(path, "wb") as file:'),
        ("suggesting a name", "    near = get_close_matches(name, names)"),
        ("base64 of a picture", "    return base64.b64encode(buffer.getvalue()).decode()"),
        ("date of making", "    created=datetime.now(UTC).isoformat(),"),
        ("thinning by linspace", "    return values[torch.linspace(0, len(values) - 1, limit).long()]"),
        ("modes", "    if model.training:"),
        ("modes", "    modes = [module.training for module in model.modules()]"),
        ("whether a norm has statistics", "        if norm and layer.running_mean is None:"),
    ],
)
def test_the_patterns_see_what_once_stood_twice(fact: str, line: str):
    assert re.search(HOMES[fact][0], line)


def test_the_patterns_pass_what_is_meant_otherwise():
    for line in (
        "from caveat.training import fit",
        "    text.replace('-', '_')",
        "    dataclasses.replace(fitted, **new)",
    ):
        assert not any(re.search(pattern, line) for pattern, _ in HOMES.values())
