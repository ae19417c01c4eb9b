"""Arrays of any framework give the record the model itself would have given; what does not fit is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.audits.test_audit import numbers

import caveat
from caveat.audits import arrays
from caveat.audits.audit import audit_arrays
from caveat.errors import DataError, OptionError
from caveat.observations import observe


@pytest.fixture
def said(model, known, ood):
    seen, foreign = observe(model, known), observe(model, ood["grey"])
    return {
        "logits": seen.logits.numpy(), "labels": seen.labels.numpy(), "features": seen.features.numpy(),
        "weight": model[3].weight.detach().numpy(), "bias": model[3].bias.detach().numpy(),
        "grey/logits": foreign.logits.numpy(), "grey/features": foreign.features.numpy(),
    }  # fmt: skip


def test_arrays_give_the_record_of_the_model(model, known, ood, said, tmp_path: Path):
    np.savez(tmp_path / "said.npz", **said)
    found = numbers(audit_arrays(tmp_path / "said.npz", replicas=20))
    direct = numbers(caveat.audit(model, known, ood={"grey": ood["grey"]}, replicas=20))
    for part in ("calibrations", "detections", "selective", "sweeps", "conformal", "choice", "operating"):
        assert found[part] == direct[part], part


def test_logits_alone_are_enough(said, tmp_path: Path):
    np.savez(tmp_path / "said.npz", logits=said["logits"], labels=said["labels"])
    record = audit_arrays(tmp_path / "said.npz", replicas=5)
    assert {s.family for s in record.scores} == {"logits"}
    with pytest.raises(OptionError, match="scores: knn needs features"):
        audit_arrays(tmp_path / "said.npz", scores=["knn"])


def test_draws_are_averaged_as_probabilities(said, tmp_path: Path):
    draws = np.stack([said["logits"], -said["logits"], said["logits"] * 2])
    np.savez(tmp_path / "said.npz", draws=draws, labels=said["labels"])
    seen = arrays.observed(tmp_path / "said.npz").known
    expected = torch.from_numpy(draws).softmax(2).mean(0)
    torch.testing.assert_close(seen.logits.softmax(1), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": None}, r"--logits: test \(the arrays without a prefix\) needs logits or draws"),
        ({"labels": None}, "needs labels: give the array 'labels'"),
        (
            {"labels": np.zeros(600)},
            r"--logits: the array 'labels': expected integers of shape \(n,\), got float64 \(600,\)",
        ),
        ({"labels": np.zeros(5, int)}, "has 600 logits but 5 labels"),
        ({"logits": np.full((600, 4), np.nan)}, "the array 'logits' holds NaN"),
        ({"logits": np.zeros((600, 4), int)}, "the array 'logits': expected floats with 2 axes"),
        ({"grey/logits": np.zeros((300, 7))}, "grey has 7 classes, the in-distribution data 4"),
        ({"grey/logits": np.zeros(4)}, "the array 'grey/logits': expected floats with 2 axes"),
        ({"weight": np.array([None], dtype=object)}, r"whole npz archive of plain arrays \(pickled ones are refused\)"),
        ({"grey/features": None}, "every OOD set needs them too"),
        ({"weight": np.ones((4, 3))}, r"expected a weight \(4, 8\)"),
        ({"weight": np.ones((4, 8))}, "the logits are not features @ weight"),
        ({"logit": np.zeros(3)}, "there is no 'logit'; did you mean 'logits'"),
        ({"classes": np.array(["a"])}, "expected 4 names in classes, got 1"),
        ({"labels": np.full(600, 9)}, r"test: expected labels in \[0, 3\]"),
    ],
)
def test_what_does_not_fit_is_refused(said, change, message, tmp_path: Path):
    changed = {name: array for name, array in (said | change).items() if array is not None}
    np.savez(tmp_path / "said.npz", **changed)
    with pytest.raises(DataError, match=message):
        audit_arrays(tmp_path / "said.npz", replicas=5)


def test_a_file_that_is_no_npz_is_refused(tmp_path: Path):
    (tmp_path / "x.npz").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"--logits: .*x.npz is not a whole npz archive"):
        audit_arrays(tmp_path / "x.npz")


def test_content_tells_the_labels_and_not_the_file(said, tmp_path: Path):
    one, other = ({**said, "labels": said["labels"] if same else said["labels"][::-1].copy()} for same in (True, False))
    found: dict[str, list[str]] = {}
    for name, given in {"one": one, "renamed": one, "other": other}.items():
        np.savez(tmp_path / f"{name}.npz", **given)
        found[name] = [item.content for item in audit_arrays(tmp_path / f"{name}.npz", replicas=5).sets]
    assert found["one"] == found["renamed"]
    assert found["one"][0] != found["other"][0]
    assert [len(text) for text in found["one"]] == [64, 0]  # nothing tells the inputs of an OOD set of arrays


def test_content_tells_the_inputs_in_any_order():
    from caveat.audits.content import content
    from caveat.observations import Observations

    logits, labels, prints = torch.zeros(3, 2), torch.tensor([0, 1, 1]), torch.tensor([7, -5, 9])
    seen = Observations(logits, labels, fingerprints=prints)
    turned = seen.part(torch.tensor([2, 0, 1]))
    swapped = Observations(logits, torch.tensor([1, 0, 1]), fingerprints=prints)
    replaced = Observations(logits, labels, fingerprints=torch.tensor([7, -5, 8]))
    known = [content(item, labelled=True) for item in (seen, turned, swapped, replaced)]
    assert known[0] == known[1]
    assert len(set(known)) == 3
    ood = [content(item, labelled=False) for item in (seen, swapped, replaced)]
    assert ood[0] == ood[1] != ood[2]
