"""The audit of multi-label networks: its figures by hand and by scikit-learn, its warnings, and what it refuses."""

import json

import pytest
import torch
from sklearn import metrics as sk
from torch import nn

from caveat import posteriors
from caveat.audits.multilabel import audit_multilabel
from caveat.errors import DataError, ModelError, OptionError
from caveat.observations import observe_outputs
from caveat.records.multilabel import MultilabelRecord
from caveat.records.record import Record
from caveat.report import multilabel as page
from caveat.report import sections
from caveat.report.figures import INK

NAMES = ["red", "round", "old", "loud"]


class Net(nn.Module):
    """Logits Wx, `factor` times as large as they should be."""

    def __init__(self, factor=2.0, noise=0.0, seed=3):
        super().__init__()
        self.layer, self.factor = nn.Linear(5, 4), factor
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(4, 5, generator=torch.Generator().manual_seed(3))
        self.layer.weight.data = weight + noise * torch.randn(4, 5, generator=generator)
        self.layer.bias.data.zero_()

    def forward(self, inputs):
        return self.factor * self.layer(inputs)


def data(n=800, seed=0):
    """Inputs and labels that are there with the probabilities that `Net(1)` gives."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 5, generator=generator)
    with torch.no_grad():
        return x, (torch.rand(n, 4, generator=generator) < torch.sigmoid(Net(1)(x))).long()


@pytest.fixture(scope="module")
def record():
    return audit_multilabel(Net().eval(), data(), ood={"weak": data(200, 5)[0] * 0.05}, train=data(300, 9))


def test_its_figures_are_scikit_learns_on_the_evaluation_split(record):
    from caveat.audits.assess import split

    x, y = data()
    rows = split(len(x), 0.5, 0)[1]
    with torch.no_grad():
        probs = torch.sigmoid(Net()(x[rows]).double()).numpy()
    truth = y[rows].numpy()
    yes = (probs >= 0.5).astype(int)
    close = {"rel": 1e-5}  # a record keeps six digits
    assert record.f1_micro == pytest.approx(sk.f1_score(truth, yes, average="micro"), **close)
    assert record.f1_macro == pytest.approx(sk.f1_score(truth, yes, average="macro"), **close)
    assert record.hamming_loss.value == pytest.approx(sk.hamming_loss(truth, yes), **close)
    assert record.subset_accuracy.value == pytest.approx(sk.accuracy_score(truth, yes), **close)
    assert record.mean_average_precision == pytest.approx(sk.average_precision_score(truth, probs), **close)
    ranking = sk.label_ranking_average_precision_score(truth, probs)
    assert record.label_ranking_average_precision.value == pytest.approx(ranking, **close)
    assert record.ranking_loss.value == pytest.approx(sk.label_ranking_loss(truth, probs), **close)
    assert record.coverage_error.value == pytest.approx(sk.coverage_error(truth, probs), **close)
    for k, row in enumerate(record.labels):
        assert row.name == str(k)
        assert row.prevalence.value == pytest.approx(truth[:, k].mean(), **close)
        assert row.auroc.value == pytest.approx(sk.roc_auc_score(truth[:, k], probs[:, k]), **close)
        assert row.precision.value == pytest.approx(sk.precision_score(truth[:, k], yes[:, k]), **close)
        assert row.recall.value == pytest.approx(sk.recall_score(truth[:, k], yes[:, k]), **close)
        assert row.accuracy.value == pytest.approx((truth[:, k] == yes[:, k]).mean(), **close)
    loss = sk.log_loss(truth.ravel(), probs.ravel())
    assert record.probabilities[0].cross_entropy.value == pytest.approx(loss, **close)


def test_logits_twice_too_large_are_noticed_and_mended_by_a_temperature_of_two(record):
    assert all(1.5 < row.temperature < 2.7 for row in record.labels)
    before, after = record.probabilities
    assert before.ece > 0.08
    assert after.ece < before.ece / 2
    assert after.ece_labelwise < before.ece_labelwise
    assert after.cross_entropy.value < before.cross_entropy.value
    right = audit_multilabel(Net(1).eval(), data())
    # labels are independent given the input here, so that "any label" is calibrated as each of them is
    assert right.probabilities[0].ece_any.low == 0
    assert before.ece_any.low > 0


def test_label_sets_and_guard_hold_what_is_promised(record):
    assert record.label_sets.found.high > 0.9
    assert record.label_sets.found.value > 0.86
    assert set(record.label_sets.size) == {"test", "weak"}
    preview = record.operating[0]
    assert preview.score == "binary_entropy"  # some inputs have no label
    assert preview.accepted["test"].high > 0.95
    assert preview.coverage.high > 0.9


def test_undecided_inputs_are_told_by_entropy(record):
    found = {item.score: item.auroc.value for item in record.detections}
    assert found["binary_entropy"] > 0.95
    assert set(found) == {"joint_energy", "max_label", "binary_entropy"}


def test_an_ensemble_tells_disagreement():
    nets = [Net(noise=0.4, seed=seed).eval() for seed in range(3)]
    many = posteriors.Predictive(nets[0], posteriors.ensemble.of(nets)).eval()
    found = audit_multilabel(many, data(), ood={"far": data(200, 5)[0] + 4})
    assert found.networks == 3
    assert "label_disagreement" in {item.score for item in found.selective}


@pytest.mark.parametrize("form", ["loader", "dataset", "dictionaries", "three parts", "arrays", "floats", "booleans"])
def test_labels_in_any_form_are_the_same(form, record):
    x, y = data()
    sets = {
        "loader": torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=64),
        "dataset": torch.utils.data.TensorDataset(x, y),
        "dictionaries": [{"inputs": a, "labels": b} for a, b in zip(x.split(100), y.split(100), strict=True)],
        "three parts": [(a, b, torch.arange(len(a))) for a, b in zip(x.split(100), y.split(100), strict=True)],
        "arrays": (x.numpy(), y.numpy()),
        "floats": (x, y.float()),
        "booleans": (x, y == 1),
    }
    net = Net().eval()
    if form == "dictionaries":
        own = Net().eval()
        net = nn.Sequential()
        net.forward = lambda inputs: own(inputs)  # called by keyword
    found = audit_multilabel(net.eval(), sets[form])
    assert found.hamming_loss == record.hamming_loss
    assert found.sets[0].content == record.sets[0].content or form == "dictionaries"


def test_as_many_labels_as_inputs_are_no_second_batch():
    x, y = data()
    square = Net().eval()
    square.layer = nn.Linear(4, 4)
    assert audit_multilabel(square.eval(), (x[:, :4], y)).sets[0].count == 800


def test_a_network_that_returns_a_dictionary():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def forward(self, inputs):
            return {"logits": self.net(inputs), "features": inputs}

    assert audit_multilabel(Named().eval(), data()).hamming_loss.value < 0.35


def test_one_hot_labels_and_columns_in_another_order_are_warned_about():
    x, _ = data()
    with torch.no_grad():
        classes = Net()(x).argmax(dim=1)
    found = audit_multilabel(Net().eval(), (x, nn.functional.one_hot(classes, 4)))
    assert any("exactly one label" in line for line in found.warnings)
    x, y = data()
    shifted = audit_multilabel(Net().eval(), (-x, y))
    assert any("in the order of the network's outputs" in line for line in shifted.warnings)


def test_a_label_that_nobody_has_is_left_out_and_said():
    x, y = data()
    y[:, 1] = 0
    found = audit_multilabel(Net().eval(), (x, y))
    assert found.labels[1].auroc is None
    assert found.labels[1].recall is None
    assert any("mean average precision is without them" in note for note in found.notes)
    assert "\N{EN DASH}" in page.render(found)
    nothing = audit_multilabel(Net().eval(), (x, torch.zeros_like(y)))
    assert nothing.label_sets is None
    assert nothing.mean_average_precision is None
    assert "nothing can be promised" in page.render(nothing)


def bad(change):
    x, y = data(100)
    y = y.double()
    change(y)
    return x, y


class Probabilities(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net()

    def forward(self, inputs):
        return torch.sigmoid(self.net(inputs))


@pytest.mark.parametrize(
    ("test", "sentence"),
    [
        (lambda: bad(lambda y: y[3].fill_(torch.nan)), "got nan for label 0 of sample 3"),
        (lambda: bad(lambda y: y[3, 2].fill_(-1)), "got -1 for label 2 of sample 3"),
        (lambda: bad(lambda y: y[3, 2].fill_(0.5)), "got 0.5 for label 2 of sample 3"),
        (lambda: (data(100)[0], data(100)[1][:, 0]), r"expected labels \(n, c\) of 0 and 1.*got \(100,\)"),
        (lambda: (data(100)[0], data(100)[1][:, :1]), "a network of one label for each input is a classifier"),
        (lambda: (data(100)[0], data(100)[1][:, :3]), r"expected labels \(n, 4\)"),
        (lambda: data(100)[0], "its samples have no labels"),
        (lambda: (data(100)[0], data(99)[1]), "100 inputs and 99 labels"),
        (lambda: [(*data(100), data(100)[1])], "2 could be the labels"),
    ],
)
def test_hostile_labels_are_refused(test, sentence):
    with pytest.raises(DataError, match=sentence):
        audit_multilabel(Net().eval(), test())


def test_networks_and_options_that_do_not_fit_are_refused():
    with pytest.raises(ModelError, match="probabilities, after a sigmoid"):
        audit_multilabel(Probabilities().eval(), data())
    with pytest.raises(ModelError, match="evaluation mode"):
        audit_multilabel(Net().train(), data())
    for option in ("error", "keep", "calibration_share", "threshold"):
        with pytest.raises(OptionError, match=f"{option}: expected a share"):
            audit_multilabel(Net().eval(), data(), **{option: 1.0})


def test_the_record_is_read_back_and_its_page_escapes_names(record, tmp_path):
    record.save(tmp_path / "record.json")
    assert MultilabelRecord.load(tmp_path) == record
    with pytest.raises(DataError, match="of the task multilabel, where one of a classifier is meant"):
        Record.load(tmp_path)
    hostile = record.model_copy(update={"labels": [r.model_copy(update={"name": "<b>x"}) for r in record.labels]})
    text = page.render(hostile)
    assert "<b>x" not in text.partition('<script type="application/json"')[0]
    assert "&lt;b&gt;x" in text
    json.loads((tmp_path / "record.json").read_text())


def test_it_keeps_outputs_for_a_guard_and_sees_train_in_test(tmp_path):
    found = audit_multilabel(Net().eval(), data(), train=data(), folder=tmp_path)
    assert found.observations
    assert any("also in the training set" in line for line in found.warnings)


def test_a_network_that_misses_less_than_is_allowed_is_told_to_ask_for_less():
    x, _ = data()
    with torch.no_grad():
        y = Net()(x) > 0
    assert any("ask for a smaller error" in note for note in audit_multilabel(Net().eval(), (x, y)).notes)
    assert not any("ask for a smaller error" in note for note in audit_multilabel(Net().eval(), data()).notes)


def test_the_time_of_all_is_that_of_all(record):
    assert record.seconds["all"] > 3 * record.seconds["observe"]  # judging takes longer here than the network


def test_labels_are_observed_as_zeros_and_ones_or_as_none():
    assert observe_outputs(Net().eval(), [data()], target="several").labels.shape == (800, 4)
    assert observe_outputs(Net().eval(), [data()[0]], target="several").labels.shape == (800, 0)


def test_labels_of_ood_sets_are_not_looked_at():
    x, y = data(100, 5)
    sets = [(x, y), (x, y[:, 0]), (x, y[:, 0] - 0.5), x, [(x, torch.eye(100))]]
    found = audit_multilabel(Net().eval(), data(), ood={f"set{k}": one for k, one in enumerate(sets)})
    assert len({item.auroc.value for item in found.detections if item.score == "joint_energy"}) == 1
    assert [item.count for item in found.sets] == [800, *[100] * 5]
    square = Net().eval()
    square.layer = nn.Linear(4, 4)
    same = audit_multilabel(square.eval(), (data()[0][:, :4], data()[1]), ood={"as many": (x[:, :4], y)})
    assert same.sets[1].count == 100


def test_legends_of_charts_have_a_colour_of_the_page(record):
    spec = sections.kept(record.selective, "Hamming loss")
    assert spec["layer"][0]["encoding"]["color"]["legend"]["labelColor"] == INK
