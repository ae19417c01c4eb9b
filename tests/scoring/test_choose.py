"""The choice of a score says what it rests on."""

import re

import pytest
import torch

from caveat.observations import Observations
from caveat.scoring.choose import choose


@pytest.mark.parametrize(("wrong", "told"), [(0, "0.0%"), (3, "5.0%"), (30, "50.0%")])
def test_a_wrong_answer_weighs_as_much_as_a_sample_of_a_class_left_out(wrong: int, told: str) -> None:
    labels = torch.arange(60) % 3
    predicted = labels.clone()
    predicted[:wrong] = (labels[:wrong] + 1) % 3
    noise = torch.rand(60, 3, generator=torch.Generator().manual_seed(0))
    logits = 4 * torch.nn.functional.one_hot(predicted, 3) + noise
    found = choose(["energy"], None, Observations(logits, labels), None)
    assert found is not None
    few = " An AUROC of so few mistakes (3) says little." if wrong == 3 else ""
    assert found.why.endswith(f"on 60 held-out samples, of which {told} are misclassified.{few}")
    named = [float(text) for text in re.findall(r"AUROC ([01]\.\d{3})", found.why)]
    share = wrong / 60
    expected = named[0] if not wrong else (named[0] + share * named[1]) / (1 + share)
    assert found.figures["energy"] == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(("count", "left_out"), [(60, 8), (4000, 3)])
def test_the_fewer_samples_the_more_classes_are_left_out(count: int, left_out: int) -> None:
    """Of 60 samples three classes are 22: whichever score they favour is chance."""
    labels = torch.arange(count) % 8
    noise = torch.rand(count, 8, generator=torch.Generator().manual_seed(0))
    logits = 2 * torch.nn.functional.one_hot(labels, 8) + noise
    found = choose(["msp", "energy"], None, Observations(logits, labels), None)
    assert found is not None
    assert f"mean over {left_out} classes" in found.why


def test_a_summary_is_a_whole_sentence() -> None:
    from caveat.scoring.catalog import describe, families

    for name in families():
        summary, _ = describe(name)
        assert summary.endswith("."), name
        assert not {"`", "See "} & {summary[i : i + n] for i in range(len(summary)) for n in (1, 4)}, name
    assert describe("openmax")[0].endswith("by extreme values of the logits' distances.")
