"""The choice of a score says what it rests on."""

import pytest
import torch

from caveat.observations import Observations
from caveat.scoring.choose import choose


@pytest.mark.parametrize(("wrong", "told"), [(1, "1 is misclassified"), (8, "8 are misclassified")])
def test_mistakes_too_few_to_rank_are_counted_on_what_was_looked_at(wrong: int, told: str) -> None:
    labels = torch.arange(60) % 3
    predicted = labels.clone()
    predicted[:wrong] = (labels[:wrong] + 1) % 3
    noise = torch.rand(60, 3, generator=torch.Generator().manual_seed(0))
    logits = 4 * torch.nn.functional.one_hot(predicted, 3) + noise
    found = choose(["msp", "energy"], None, Observations(logits, labels), None)
    assert found is not None
    assert found.why.endswith(f"Of the 60 samples that it was chosen on, {told}, too few to rank scores by.")


def test_a_summary_is_a_whole_sentence() -> None:
    from caveat.scoring.catalog import describe, families

    for name in families():
        summary, _ = describe(name)
        assert summary.endswith("."), name
        assert not {"`", "See "} & {summary[i : i + n] for i in range(len(summary)) for n in (1, 4)}, name
    assert describe("openmax")[0].endswith("by extreme values of the logits' distances.")
