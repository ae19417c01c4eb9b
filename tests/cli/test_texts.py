"""Texts from the command line: train, audit, guard, verdicts; and the sentences where they do not fit."""

import json
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from caveat.cli.main import app
from caveat.errors import CaveatError

MODEL = "caveat.models:text_classifier(classes=3, buckets=500, width=16)"
WORDS = {
    "greeting": ["hello", "hi there", "good morning", "hey"],
    "weather": ["will it rain", "is it sunny", "how cold is it", "a storm"],
    "alarm": ["wake me", "set an alarm", "ring at noon", "remind me"],
}


def texts(path: Path, count: int, seed: int) -> str:
    draw = random.Random(seed)
    rows = [(draw.choice(words), label) for label, words in list(WORDS.items()) * count]
    draw.shuffle(rows)
    tail = ["please", "now", "today", "for me", "again", "soon", "my friend"]
    lines = [f'"{text}, {draw.choice(tail)} {draw.choice(tail)} {draw.choice(tail)}",{label}' for text, label in rows]
    path.write_text("text,intent\n" + "\n".join(lines) + "\n")
    return f"csv:{path}"


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    folder = tmp_path_factory.mktemp("texts")
    train, test = texts(folder / "train.csv", 100, 0), texts(folder / "test.csv", 100, 1)
    (folder / "ood.csv").write_text("text\n" + "".join(f"buy {k} shares of gold\n" for k in range(50)))
    invoke(
        "train", "--model", MODEL, "--data", train, "--test", test, "--ood", f"money=csv:{folder}/ood.csv",
        "--epochs", 4, "--batch", 30, "--rate", 0.02, "-o", folder / "run",
    )  # fmt: skip
    return folder, train, test


def test_from_texts_to_a_record(trained: tuple[Path, str, str]) -> None:
    record = json.loads((trained[0] / "run" / "audit" / "record.json").read_text())
    assert record["classes"] == ["alarm", "greeting", "weather"]
    assert record["calibrations"][0]["summary"]["accuracy"]["value"] > 0.95
    assert max(each["auroc"]["value"] for each in record["detections"]) > 0.8
    assert record["pictures"] == []


def test_the_same_audit_from_the_weights(trained: tuple[Path, str, str]) -> None:
    folder, train, test = trained
    invoke(
        "audit", "--model", MODEL, "--weights", folder / "run" / "model.safetensors", "--train", train, "--test", test,
        "--ood", f"money=csv:{folder}/ood.csv", "-o", folder / "again",
    )  # fmt: skip
    one, two = (json.loads((folder / place / "record.json").read_text()) for place in ("run/audit", "again"))
    assert one["calibrations"] == two["calibrations"]
    assert one["detections"] == two["detections"]


def test_verdicts_name_the_text(trained: tuple[Path, str, str]) -> None:
    folder, _, _ = trained
    invoke("guard", "fit", folder / "run" / "audit", "-o", folder / "guard", "--score", "msp")
    output = folder / "verdicts.parquet"
    invoke("guard", "run", folder / "guard", f"csv:{folder}/ood.csv", "--model", MODEL, "--batch", 7, "-o", output)
    found = pq.read_table(output)
    assert found["text"].to_pylist() == [f"buy {k} shares of gold" for k in range(50)]
    assert "file" not in found.schema.names


class ByKeyword(nn.Module):
    """Takes what tokenizers give: several tensors, by keyword."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(256, 8), nn.Linear(8, 3)

    def encode(self, texts: list[str]) -> dict[str, Tensor]:
        rows = [torch.tensor(list(text.encode())) for text in texts]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head((self.embed(input_ids) * attention_mask[..., None]).sum(1))


def test_inputs_of_several_parts_are_audited_and_not_trained_on(trained: tuple[Path, str, str], tmp_path: Path) -> None:
    _, train, test = trained
    model = f"{__name__}:ByKeyword"
    invoke("audit", "--model", model, "--test", test, "--score", "msp", "-o", tmp_path / "audit")
    record = json.loads((tmp_path / "audit" / "record.json").read_text())
    assert record["sets"][0]["count"] == 300
    result = CliRunner().invoke(app, ["train", "--model", model, "--data", train, "-o", str(tmp_path / "out")])
    assert isinstance(result.exception, CaveatError), result.output
    assert "training needs one tensor" in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("more", [["--members", "2"], ["--track", "swag"]])
def test_posteriors_of_networks_of_texts(trained: tuple[Path, str, str], tmp_path: Path, more: list[str]) -> None:
    _, train, test = trained
    invoke(
        "train", "--model", MODEL, "--data", train, "--test", test, "--epochs", 2, "--batch", 20, "--rate", 0.02,
        "-o", tmp_path / "run", *more,
    )  # fmt: skip
    record = json.loads((tmp_path / "run" / "audit" / "record.json").read_text())
    assert {"mutual_information", "expected_entropy"} <= {each["name"] for each in record["scores"]}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--objective", "acet"], "acet changes its inputs or makes others"),
        (["--objective", "mixup"], "mixup changes its inputs"),
        (["--objective", "adversarial"], "adversarial changes its inputs"),
        (["--augment", "flip"], "flip changes pictures"),
        (["--objective", "outlier_exposure", "--outliers", "letters"], "letters: made of pictures"),
        (["--outliers", "digits", "--objective", "outlier_exposure"], "--outliers: expected pictures"),
        (["--normalize", "mnist"], "--normalize: the network takes texts"),
        (["--model", "caveat.models:lenet"], "the network has no method encode"),
        (["--data", "digits:train"], "the network takes texts"),
        (["--ood", "x=digits"], "digits: holds pictures, but the network takes texts"),
    ],
)
def test_what_is_for_pictures_is_refused_before_any_work(
    trained: tuple[Path, str, str], tmp_path: Path, more: list[str], told: str
) -> None:
    _, train, test = trained
    given = {"--model": MODEL, "--data": train, "--test": test}
    given |= {more[k]: more[k + 1] for k in range(0, len(more), 2)}
    arguments = [word for pair in given.items() for word in pair]
    result = CliRunner().invoke(app, ["train", *arguments, "-o", str(tmp_path / "out")])
    assert isinstance(result.exception, CaveatError), result.output
    assert told in str(result.exception)
    assert not (tmp_path / "out").exists()
