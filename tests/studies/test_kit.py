"""What all studies share: a folder belongs to one run, printed figures have their source, the list imports no torch."""

import ast
import subprocess
import sys
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from caveat import studies
from caveat.cli import main
from caveat.errors import DataError, OptionError
from caveat.studies import STUDIES, study
from caveat.studies.kit import published as printed
from caveat.studies.kit.common import findings
from caveat.studies.kit.folder import NAME, claim, stored
from caveat.studies.kit.published import published

HOME = Path(studies.__file__).parent
PACKAGES = [package for package, _ in STUDIES.values()]


@dataclass(frozen=True)
class Size:
    epochs: int
    hidden: tuple[int, ...] = (8,)
    objective: object = len


def mine(folder: Path, *, study="s", scale="smoke", seed=0, size=Size(3)) -> None:  # frozen
    claim(folder, study=study, scale=scale, seed=seed, size=size)


def test_a_run_may_go_on_in_its_own_folder(tmp_path):
    mine(tmp_path / "new")
    (tmp_path / "new" / "findings.json").write_text("{}")
    mine(tmp_path / "new")
    (tmp_path / ".hidden").touch()
    (tmp_path / "new").rename(tmp_path / ".also-hidden")
    mine(tmp_path)  # what is hidden is nobody's result


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"scale": "small"}, "holds s at scale smoke, seed 0 .*, this is s at scale small, seed 0 .*-o"),
        ({"seed": 7}, "holds s at scale smoke, seed 0 .*, this is s at scale smoke, seed 7 .*-o"),
        ({"study": "t"}, "holds s at scale smoke, seed 0 .*, this is t at scale smoke, seed 0 .*-o"),
        ({"size": Size(4)}, "epochs = 3, this run has epochs = 4.*-o"),
        ({"size": Size(3, hidden=(8, 8))}, r"hidden = \[8\], this run has hidden = \[8, 8\].*-o"),
        ({"size": replace(Size(3), objective=sum)}, "objective = len, this run has objective = sum.*-o"),
    ],
)
def test_another_run_is_refused(tmp_path, other, told):
    mine(tmp_path)
    before = (tmp_path / NAME).read_bytes()
    with pytest.raises(OptionError, match=told) as error:
        mine(tmp_path, **other)
    assert "\n" not in str(error.value)
    assert (tmp_path / NAME).read_bytes() == before


def test_another_version_is_refused(tmp_path, monkeypatch):
    mine(tmp_path)
    monkeypatch.setattr("caveat.studies.kit.folder.__version__", "9.9")
    with pytest.raises(OptionError, match=r"Caveat 9\.9"):
        mine(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{}", '{"study": 3}'])
def test_a_folder_that_nothing_vouches_for_is_refused(tmp_path, text):
    (tmp_path / "old.safetensors").touch()
    with pytest.raises(OptionError, match=r"old\.safetensors but no study\.json.*-o"):
        mine(tmp_path)
    assert not (tmp_path / NAME).exists()
    (tmp_path / NAME).write_text(text)
    with pytest.raises(OptionError, match="none of ours"):
        mine(tmp_path)
    (tmp_path / NAME).write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        mine(tmp_path)


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_refuses_the_folder_of_another_scale_before_any_work(name, tmp_path):
    claim(tmp_path, study=name, scale="small", seed=0, size=Size(3))
    with pytest.raises(OptionError, match=f"{name} at scale small, seed 0 .*, this is {name} at scale smoke"):
        study(name)(tmp_path, scale="smoke", seed=0, say=lambda _: pytest.fail("it works"))
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_the_command_refuses_in_one_line(tmp_path, capsys, monkeypatch):
    claim(tmp_path, study="tradi-uci", scale="smoke", seed=0, size=Size(3))
    monkeypatch.setattr(sys, "argv", ["caveat", "study", "tradi-uci", "--scale", "small", "-o", str(tmp_path)])
    with pytest.raises(SystemExit) as error:
        main.main()
    assert error.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_default_folder_of_another_seed_is_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(folder, *, scale, seed, say):
        claim(folder, study="tradi-uci", scale=scale, seed=seed, size=Size(3))
        return findings(study="tradi-uci", title="t", source="x", scale=scale, seeds=[seed], settings={})

    monkeypatch.setattr(studies, "study", lambda _: run)
    for options in ([], ["--seed", "1"], ["--scale", "smoke"], []):
        main.app(["study", "tradi-uci", *options], standalone_mode=False)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "tradi-uci-small", "tradi-uci-small-seed-1", "tradi-uci-smoke",
    ]  # fmt: skip


def test_what_is_stored_is_not_made_again(tmp_path):
    place = tmp_path / "deep" / "figures.json"
    first = stored(place, lambda: {"a": [1.5, float("nan")]})
    again = stored(place, lambda: pytest.fail("made again"))
    assert first["a"][0] == again["a"][0] == 1.5
    assert again["a"][1] != again["a"][1]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_printed_figure_has_its_source(package):
    whole = published(package)
    assert len(whole.source) > 30
    for table in whole.tables.values():
        assert len(table.source) > 10
        assert table.rows
        assert any(table.at(row, column) for row in table.rows for column in table.columns)


def test_a_printed_figure_is_looked_up_by_row_and_column():
    table = published("tradi_camvid").tables["CamVid"]
    assert table.at("TRADI", "AUPR") == "12.8"
    assert table.at("SWAG", "training time") == ""
    assert table.at("TRADI", "NLL") == table.at("Laplace", "AUC") == ""


@pytest.mark.parametrize(
    "text",
    ['columns = ["a"]\nrows = {x = ["1"]}', 'source = ""\ncolumns = ["a"]\nrows = {x = ["1"]}',
     'source = "s"\ncolumns = ["a", "b"]\nrows = {x = ["1"]}', 'source = "s"\ncolumns = ["a"]\nrows = {x = [1]}',
     'source = "s"\ncolumns = ["a"]\nrows = {x = ["1"]}\nother = 1'],
)  # fmt: skip
def test_a_table_without_source_or_with_a_short_row_is_refused(text):
    with pytest.raises(DataError, match="published figures: t: "):
        printed._printed("t", tomllib.loads(text))


def test_the_list_of_studies_has_the_first_line_of_each():
    for package, line in STUDIES.values():
        docstring = ast.get_docstring(ast.parse((HOME / package / "run.py").read_text(encoding="utf-8"))) or ""
        assert docstring.split("\n")[0] == line
    assert sorted(PACKAGES) == sorted(path.parent.name for path in HOME.glob("*/run.py"))
    assert list(STUDIES) == [package.replace("_", "-") for package in PACKAGES] == sorted(STUDIES)


def test_a_study_has_the_four_files_and_no_other():
    for package in PACKAGES:
        names = {path.name for path in (HOME / package).iterdir() if path.is_file()}
        assert names <= {"__init__.py", "run.py", "training.py", "findings.py", "figures.py", "published.toml"}
        assert {"run.py", "findings.py", "published.toml"} <= names


def test_the_list_of_studies_imports_no_torch():
    code = (
        "import sys; from caveat.cli.main import app; app(['list', 'studies'], standalone_mode=False); "
        "heavy = {'torch', 'numpy', 'altair'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in STUDIES)
