"""Scores that are evaluated together share what they need of the same samples."""

import torch

from caveat.observations import Observations
from caveat.once import remembering, shared
from caveat.scores.knn import bank_of, nearness
from caveat.scoring import catalog
from caveat.scoring.kinds import Material


def test_two_scores_search_one_bank_and_give_what_each_gives_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(2 * catalog.CHUNK + 300, 12, generator=generator)
    weight, bias = torch.randn(3, 12, generator=generator), torch.zeros(3)
    logits = features @ weight.T
    known = Observations(logits, logits.argmax(1), features=features)
    fitted = catalog.fit(["knn", "nnguide"], Material(known, (weight, bias), known))
    banks = [getattr(fitted[name].fitted, "bank", None) for name in ("knn", "nnguide")]
    assert banks[0] is banks[1] is not None
    together, seconds = catalog.evaluate(fitted, {"test": known})
    assert min(seconds.values()) > 0
    for name, score in fitted.items():
        assert score.fitted is not None
        torch.testing.assert_close(together[name]["test"], score.fitted(features).double(), rtol=0, atol=1e-6)


def test_nothing_is_remembered_of_other_tensors_or_later() -> None:
    features = torch.rand(8, 3)
    bank = bank_of(features, 5)
    with remembering():
        first = shared(nearness, features, bank)
        assert shared(nearness, features, bank) is first
        assert shared(nearness, features[:4], bank).shape == (4, 5)
        again = shared(nearness, features, bank)
        assert again is not first  # only the last is kept
        assert shared(bank_of, features, 5) is not shared(bank_of, features, 4)
    assert shared(nearness, features, bank) is not shared(nearness, features, bank)
