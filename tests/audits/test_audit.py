"""An audit's figures are those computed by hand from the model, and what it refuses it refuses at once."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.utils.data import DataLoader, TensorDataset

import caveat
from caveat.audits import cache
from caveat.audits.assess import split
from caveat.errors import DataError, ModelError, OptionError
from caveat.guard import Guard, decision
from caveat.inputs import fingerprints, take
from caveat.records.record import Record
from caveat.scoring import catalog

LOGIT_SCORES = ["msp", "entropy", "margin", "gen", "max_logit", "energy"]


def numbers(record):
    """All of a record that must not depend on the clock."""
    data = json.loads(record.model_dump_json(exclude={"created", "seconds"}))
    for score in data["scores"]:
        score["seconds_fit"] = score["seconds_score"] = 0
    return data


KEPT = []
"""One audit for all tests that only read it: the fixtures give the same sets every time."""


@pytest.fixture
def record(model, known, ood):
    if not KEPT:
        KEPT.append(caveat.audit(model, known, ood=ood, replicas=50))
    return KEPT[0].model_copy(deep=True)


def judged(known, record, share=0.2, seed=0):
    """The evaluation split, chosen here again by the documented rule."""
    inputs, labels = torch.cat([x for x, _ in known]), torch.cat([y for _, y in known])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    rows = order[round(share * len(labels)) :].sort().values
    return inputs[rows], labels[rows], rows


def test_figures_on_known_data_are_the_models_own(model, known, record):
    inputs, labels, _ = judged(known, record)
    with torch.no_grad():
        probs = model(inputs).double().softmax(1)
    plain = record.calibrations[0].summary
    assert plain.accuracy.value == pytest.approx((probs.argmax(1) == labels).double().mean().item(), rel=1e-5)
    assert plain.nll.value == pytest.approx(-probs[torch.arange(len(labels)), labels].log().mean().item(), rel=1e-5)
    one_hot = torch.nn.functional.one_hot(labels, 4)
    assert plain.brier.value == pytest.approx((probs - one_hot).square().sum(1).mean().item(), rel=1e-5)
    assert plain.brier_calibration - plain.brier_refinement + plain.brier_uncertainty == pytest.approx(
        plain.brier.value, rel=1e-4
    )
    assert plain.accuracy.low < plain.accuracy.value < plain.accuracy.high


def test_detection_is_scikit_learns(model, known, ood, record):
    inputs, _, _ = judged(known, record)
    foreign = torch.cat([x for x, _ in ood["grey"]])
    with torch.no_grad():
        scores = 1 - torch.cat([model(inputs), model(foreign)]).double().softmax(1).amax(1)
    truth = np.r_[np.zeros(len(inputs)), np.ones(len(foreign))]
    found = next(d for d in record.detections if (d.score, d.ood) == ("msp", "grey"))
    assert found.auroc.value == pytest.approx(roc_auc_score(truth, scores), rel=1e-5)
    assert found.aupr_out.value == pytest.approx(average_precision_score(truth, scores), rel=1e-5)
    assert found.aupr_in.value == pytest.approx(average_precision_score(1 - truth, -scores), rel=1e-5)
    assert found.base_rate == pytest.approx(300 / 780, rel=1e-5)
    assert found.auroc.low < found.auroc.value < found.auroc.high


def test_every_score_is_in_the_record_with_every_set(record):
    names = catalog.resolve(None)
    assert [s.name for s in record.scores] == names
    assert {(d.score, d.ood) for d in record.detections} == {(n, u) for n in names for u in ("grey", "noise")}
    assert [s.score for s in record.selective] == names
    for score in record.scores:
        assert set(score.histogram) == {"correct", "wrong", "grey", "noise"}
        for shares in score.histogram.values():
            assert sum(shares) == pytest.approx(1, abs=1e-4)


def test_higher_scores_mean_less_trust(record):
    # grey pictures lie between the clusters: unsure answers; noise lies off them, where answers are sure
    plain = {
        "msp",
        "entropy",
        "margin",
        "gen",
        "max_logit",
        "energy",
        "mahalanobis",
        "relative_mahalanobis",
        "knn",
        "vim",
    }
    for found in (d for d in record.detections if d.score in plain):
        logits = catalog.families()[found.score] == "logits"
        if logits == (found.ood == "grey"):
            assert found.auroc.value > 0.6, (found.score, found.ood)


def test_a_sweep_counts_what_a_threshold_accepts(model, known, ood, record):
    inputs, labels, _ = judged(known, record)
    with torch.no_grad():
        probs, foreign = model(inputs).softmax(1), model(ood["noise"][0][0])
    sweep = next(s for s in record.sweeps if s.score == "msp")
    i = len(sweep.thresholds) // 2
    accepted = 1 - probs.amax(1) <= sweep.thresholds[i] * (1 + 1e-5)
    right = probs.argmax(1) == labels
    assert sweep.accepted_correct[i] == pytest.approx((accepted & right).double().mean().item(), abs=2 / len(labels))
    assert sweep.accepted_wrong[i] == pytest.approx((accepted & ~right).double().mean().item(), abs=2 / len(labels))
    assert foreign.shape[0] == 64
    assert sweep.accepted_ood["noise"][-1] >= sweep.accepted_ood["noise"][0]
    assert sweep.accepted_correct[-1] + sweep.accepted_wrong[-1] == pytest.approx(1, abs=1e-5)


def test_pictures_are_the_ones_they_claim_to_be(model, known, record):
    all_inputs, all_labels = torch.cat([x for x, _ in known]), torch.cat([y for _, y in known])
    _, _, rows = judged(known, record)
    mistakes = [p for p in record.pictures if p.kind == "confident error" and p.score == "msp"]
    values = [p.value for p in mistakes]
    assert values == sorted(values)
    for picture in mistakes:
        assert picture.index in rows.tolist()
        with torch.no_grad():
            logits = model(all_inputs[picture.index][None])[0]
        assert picture.predicted == str(int(logits.argmax()))
        assert picture.label == str(int(all_labels[picture.index]))
        assert picture.predicted != picture.label
        assert picture.confidence == pytest.approx(logits.softmax(0).max().item(), rel=1e-4)
    passing = [p for p in record.pictures if p.kind == "accepted OOD"]
    assert {p.set for p in passing} == {"grey", "noise"}


def test_the_same_seed_gives_the_same_record(model, known, ood, record):
    assert numbers(record) == numbers(caveat.audit(model, known, ood=ood, replicas=50))
    other = caveat.audit(model, known, ood=ood, replicas=50, seed=1)
    assert numbers(record)["calibrations"] != numbers(other)["calibrations"]


def test_a_record_survives_saving(record, tmp_path: Path):
    record.save(tmp_path / "record.json")
    assert numbers(Record.load(tmp_path / "record.json")) == numbers(record)


def test_kept_observations_are_used_again_only_for_the_same_pass(model, known, ood, tmp_path: Path):
    quick = {"scores": ["msp", "mahalanobis", "knn"], "replicas": 10, "folder": tmp_path}
    first = caveat.audit(model, known, ood=ood, **quick)
    seen: list[int] = []
    handle = model.register_forward_hook(lambda *call: seen.append(len(call[2])))
    again = caveat.audit(model, known, ood=ood, **quick)
    assert numbers(again) == numbers(first)
    assert sum(seen) < 400, "only the first batches were asked for again"
    with torch.no_grad():
        model[3].weight[0] *= 0.5  # another network of the same class
    seen.clear()
    changed = caveat.audit(model, known, ood=ood, **quick)
    handle.remove()
    assert sum(seen) > 1200
    assert numbers(changed)["detections"] != numbers(first)["detections"]


def test_fingerprint_sees_every_weight(model):
    before = cache.fingerprint(model)
    assert before == cache.fingerprint(model)
    with torch.no_grad():
        model[1].bias[3] += 1e-6
    assert cache.fingerprint(model) != before


def test_logit_scores_need_no_head(known, model):
    record = caveat.audit(torch.nn.Sequential(model, torch.nn.Softplus()).eval(), known, scores=["msp", "energy"])
    assert record.head == ""
    assert [s.family for s in record.scores] == ["logits", "logits"]


def test_loaders_of_torch_and_shuffled_ones(model, known):
    images, labels = torch.cat([x for x, _ in known]), torch.cat([y for _, y in known])
    data = TensorDataset(images, labels)
    ordered = DataLoader(data, batch_size=50)
    prints = fingerprints(images)
    for loader in (ordered, DataLoader(data, batch_size=50, shuffle=True)):  # found wherever they come
        assert torch.equal(take(loader, torch.tensor([7, 3]), prints, "test"), images[[7, 3]])
    noisy = [(inputs + torch.rand_like(inputs), labels) for inputs, labels in known]
    with pytest.raises(DataError, match="test: inputs read again are not those that were observed"):
        take(noisy, torch.tensor([7, 3]), prints, "test")
    record = caveat.audit(model, ordered, scores=["msp"], replicas=5)
    assert record.notes == [
        "Only 480 samples were judged: read the intervals, not the values.",
        "No OOD set was given: nothing is known of how the network answers what it has never seen.",
    ] or any("judged answers are wrong" in note for note in record.notes)


def with_label(batches, label):
    (inputs, labels), *rest = batches
    return [(inputs, torch.cat([torch.tensor([label]), labels[1:]])), *rest]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (
            {"test": lambda b: with_label(b, 4)},
            DataError,
            r"test: expected labels in \[0, 3\] as the model has 4 classes",
        ),
        ({"test": lambda b: with_label(b, -1)}, DataError, r"got -1 at sample 0 \(1 of 600"),
        ({"test": lambda _: []}, DataError, "test: expected at least one batch"),
        ({"test": lambda b: [(x * math.nan, y) for x, y in b]}, DataError, "test: expected finite inputs"),
        ({"scores": ["entrpy"]}, OptionError, "scores: there is no 'entrpy'; did you mean 'entropy'"),
        ({"calibrations": ["temprature"]}, OptionError, "calibrations: .* did you mean 'temperature'"),
        ({"calibration_share": 1.0}, OptionError, "calibration_share: expected a share"),
        ({"calibration_share": 0.001}, OptionError, "calibration_share: 0.001 of 600 samples leaves 1"),
        ({"head": "9"}, ModelError, "head: the model has no layer '9'"),
        ({"ood": {"test": []}}, OptionError, "ood: the name 'test' is taken"),
    ],
)
def test_bad_input_is_refused_in_one_line(model, known, change, kind, message, tmp_path: Path):
    options = {"ood": {}, **change}
    test = options.pop("test", lambda b: b)(known)
    with pytest.raises(kind, match=message) as raised:
        caveat.audit(model, test, folder=tmp_path, **options)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "record.json").exists()


def test_sets_of_another_size_are_refused(model, known, ood):
    ood["large"] = [(torch.rand(8, 3, 6, 6), torch.zeros(8, dtype=torch.long))]
    with pytest.raises(DataError, match=r"large: expected inputs of shape \(1, 4, 4\) .* \+4x4 and \+grey"):
        caveat.audit(model, known, ood=ood)


def test_a_model_in_training_mode_is_refused(model, known):
    with pytest.raises(ModelError, match=r"call model.eval\(\)"):
        caveat.audit(model.train(), known)


def test_the_choice_of_a_score_looks_at_known_data_only(model, known, ood, record):
    other = {"other": ood["noise"]}
    again = caveat.audit(model, known, ood=other, replicas=5)
    assert again.choice == record.choice
    assert set(record.choice.figures) == set(catalog.resolve(None))
    assert record.choice.figures[record.choice.score] == max(record.choice.figures.values())
    assert {o.score for o in record.operating} == {record.choice.score, "msp"}


def test_the_preview_keeps_what_it_promises(record):
    for preview in record.operating:
        # 120 calibration samples: the promise holds within three standard errors
        assert preview.accepted["test"] > 0.95 - 3 * (0.95 * 0.05 / 120) ** 0.5
        assert preview.error <= preview.error_of_all + 0.02


def test_the_preview_is_the_guard_that_is_fitted_on_the_same_data(model, known, ood, record, tmp_path: Path):
    rows = split(600, 0.2, 0)[0]
    held_out = [(torch.cat([x for x, _ in known])[rows], torch.cat([y for _, y in known])[rows])]
    guard = Guard.fit(model, held_out)
    preview = next(item for item in record.operating if item.score == record.choice.score)
    made = guard.decision
    assert (made.score.name, made.calibration) == (preview.score, preview.calibration)
    assert made.promise.threshold == pytest.approx(preview.threshold, rel=1e-4)
    for name, batches in ood.items():
        accepted = torch.cat([guard(inputs).accepted for inputs, _ in batches]).double().mean()
        assert float(accepted) == pytest.approx(preview.accepted[name], abs=0.01)
    few = {"scores": ["energy"], "classes": [0, 1], "replicas": 2}  # two classes: nothing to choose by
    two = [(inputs[labels < 2], labels[labels < 2]) for inputs, labels in known]
    first = caveat.audit(model, two, folder=tmp_path, **few).operating[0]
    seen, train, head, about = cache.load(cache.folder(tmp_path))
    again = decision.fit(seen, train, head, among=about["scores"], seed=about["seed"])
    assert (again.score.name, again.promise.threshold) == (first.score, pytest.approx(first.threshold, rel=1e-4))


def test_conformal_sets_hold_the_promised_rate(record):
    assert [c.name for c in record.conformal] == ["lac", "aps", "raps", "class_conditional"]
    for found in record.conformal:
        assert found.coverage.high >= 0.9
        assert found.coverage.low <= found.coverage.value <= found.coverage.high
        for shares in found.size_shares.values():
            assert sum(shares) == pytest.approx(1, abs=1e-4)
        assert found.mean_size["grey"] > found.mean_size["test"]


def test_accuracy_is_estimated_without_labels(model, known, ood):
    hidden = [(x, torch.full_like(y, -1)) for x, y in known]
    record = caveat.audit(model, known, unlabelled={"new": hidden, "strange": ood["noise"]}, replicas=5)
    sets = {s.name: s for s in record.sets}
    assert sets["new"].role == "unlabelled"
    assert sets["new"].estimated_accuracy == pytest.approx(record.calibrations[0].summary.accuracy.value, abs=0.04)
    assert sets["test"].estimated_accuracy == pytest.approx(sets["new"].estimated_accuracy, abs=0.02)
    assert any("strange" in note and "can't be relied on" in note for note in record.notes)
    assert not any("Of new" in note for note in record.notes)


def conv_net(generator):
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 6, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(6, 8, 3, padding=1), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 4),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return net.eval()


def test_all_scores_with_those_that_ask_the_network_again(generator, known, ood, tmp_path: Path):
    net = conv_net(generator)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    first = caveat.audit(net, known, ood=ood, scores=["all"], replicas=5, folder=tmp_path)
    assert [s.name for s in first.scores] == catalog.resolve(["all"])
    missing = {catalog.families()[name] for name in set(catalog.families()) - {s.name for s in first.scores}}
    assert missing == {"draws", "reconstruction", "model"}  # of the last, those from dropout
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    again = caveat.audit(net, known, ood=ood, scores=["all"], replicas=5, folder=tmp_path)
    assert numbers(again) == numbers(first)


def test_scores_over_layers_need_layers(model, known):
    with pytest.raises(DataError, match="its features are no averages of feature maps"):
        caveat.audit(model, known, scores=["rankfeat"])
    with pytest.raises(DataError, match="gram: the model has no feature maps"):
        caveat.audit(model, known, scores=["gram"])


def test_a_fit_set_of_an_earlier_audit_does_not_count(model, known, tmp_path: Path):
    train = [(inputs.flip(-1), labels) for inputs, labels in known[:3]]
    caveat.audit(model, known, train=train, scores=["msp"], replicas=5, folder=tmp_path)
    assert cache.load(cache.folder(tmp_path))[1] is not None
    caveat.audit(model, known, scores=["msp"], replicas=5, folder=tmp_path)
    assert cache.load(cache.folder(tmp_path))[1] is None


MISTAKEN = """
import torch, caveat
from torch.utils.data import DataLoader, TensorDataset
loader = DataLoader(TensorDataset(torch.rand(8, 4), torch.arange(8) % 2))
for option in ("ood", "unlabelled"):
    try:
        caveat.audit(torch.nn.Linear(4, 2).eval(), loader, **{option: loader})
    except ValueError as error:
        print(error)
"""


def test_a_set_without_a_name_is_refused_in_one_line() -> None:
    """In a process of its own: here the types of arguments are checked before any code runs."""
    told = subprocess.run([sys.executable, "-c", MISTAKEN], capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == [
        f"{option}: expected a dict of name to set, got a DataLoader" for option in ("ood", "unlabelled")
    ]
