"""The audit of regression networks: its figures by hand, its warnings, and what it refuses."""

import json

import pytest
import torch
from tests.conftest import shapes_unchecked
from torch import nn

from caveat import posteriors
from caveat.audits.regression import audit_regression
from caveat.errors import DataError, ModelError, OptionError
from caveat.models.standardized import standardized
from caveat.records.regression import RegressionRecord
from caveat.report import regression as page

NOISE = 0.5


class Line(nn.Module):
    """y = 2x, with the right deviation of its noise: half |x|, at least 0.1."""

    def __init__(self, slope=2.0, factor=1.0):
        super().__init__()
        self.slope, self.factor = nn.Parameter(torch.tensor(slope)), factor

    def forward(self, inputs):
        x = inputs[:, 0]
        return torch.stack([self.slope * x, self.factor * (NOISE * x.abs()).clamp_min(0.1)], dim=1)


def data(n=600, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator)
    scale = (NOISE * x[:, 0].abs()).clamp_min(0.1)
    return x, 2 * x[:, 0] + scale * torch.randn(n, generator=generator)


@pytest.fixture(scope="module")
def record():
    far = data(200, seed=5)[0] * 6
    return audit_regression(Line().eval(), data(), outputs="gaussian_std", ood={"far": far}, seed=3)


def test_the_errors_are_those_of_the_evaluation_split(record):
    from caveat.audits.assess import split

    x, y = data()
    rows = split(600, 0.5, 3)[1]
    off = (y - 2 * x[:, 0])[rows].double()
    assert record.rmse.value == pytest.approx(float(off.square().mean().sqrt()), rel=1e-5)
    assert record.mae.value == pytest.approx(float(off.abs().mean()), rel=1e-5)
    assert record.r2 == pytest.approx(1 - float(off.square().mean() / y[rows].double().var(correction=0)), rel=1e-4)
    assert record.rmse.low < record.rmse.value < record.rmse.high


def test_a_right_network_is_called_right(record):
    none, scaled = record.distributions
    assert scaled.factor == pytest.approx(1, abs=0.1)
    assert none.calibration_error < 0.04
    by_name = {item.name: item for item in record.intervals}
    assert set(by_name) == {"predicted", "split_conformal", "normalised_conformal", "cqr"}
    for item in by_name.values():
        assert 0.86 < item.coverage.value < 0.96
    assert by_name["cqr"].score < by_name["split_conformal"].score  # one width for all serves nobody


def test_what_is_far_away_is_noticed(record):
    (found,) = [item for item in record.detections if item.score == "total_variance"]
    assert found.auroc.value > 0.75
    (preview,) = record.operating
    assert preview.score == "total_variance"  # one network has no epistemic variance
    assert preview.accepted["far"].value < preview.accepted["test"].value
    assert preview.error < preview.error_of_all


def test_overconfident_networks_are_told_and_mended():
    record = audit_regression(Line(factor=0.4).eval(), data(), outputs="gaussian_std")
    none, scaled = record.distributions
    assert scaled.factor == pytest.approx(2.5, rel=0.15)
    assert scaled.nll.value < none.nll.value
    assert scaled.calibration_error < none.calibration_error
    own = next(item for item in record.intervals if item.name == "predicted")
    assert own.coverage.high < 0.9
    text = "".join(str(part) for part in page.bottom_line(record) if isinstance(part, str))
    assert "too narrow" in text


def test_labels_in_other_units_are_noticed():
    x, y = data()
    record = audit_regression(Line().eval(), (x, 100 + 10 * y), outputs="gaussian_std")
    assert any("other units" in line and "10" in line for line in record.warnings)


def test_a_network_worse_than_the_mean_is_told():
    record = audit_regression(Line(slope=-2.0).eval(), data(), outputs="gaussian_std")
    assert any("worse than always predicting the mean" in line or "other units" in line for line in record.warnings)


def test_the_ensemble_splits_its_uncertainty():
    nets = [Line(slope).eval() for slope in (1.9, 2.0, 2.1)]
    many = posteriors.Predictive(nets[0], posteriors.ensemble.of(nets)).eval()
    record = audit_regression(many, data(), outputs="gaussian_std", ood={"far": data(50, seed=9)[0] * 10})
    assert record.networks == 3
    known, far = record.uncertainty
    assert far.epistemic > 5 * known.epistemic > 0
    assert next(iter(record.operating)).score == "epistemic_variance"


def test_standardised_networks_answer_in_the_labels_units():
    x, y = data()
    inner = standardized(nn.Linear(3, 1), x, 50 + 3 * y)
    with torch.no_grad():
        inner.model.weight.copy_(
            torch.tensor([[2 * float(x[:, 0].std(correction=0)) / float(y.std(correction=0)), 0, 0]])
        )
        inner.model.bias.zero_()
    record = audit_regression(inner.eval(), (x, 50 + 3 * y))
    assert record.form == "point"
    assert record.r2 > 0.8
    assert not record.distributions
    assert [item.name for item in record.intervals] == ["split_conformal"]
    assert any(line.startswith("Guard: the network tells nothing of its uncertainty") for line in record.notes)


class Gives(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function, self.one = function, nn.Parameter(torch.zeros(()))

    def forward(self, inputs):
        return self.function(inputs[:, 0] + self.one)


@pytest.mark.parametrize(
    ("function", "outputs"),
    [
        (lambda x: 2 * x, None),
        (lambda x: (2 * x, torch.ones_like(x)), "gaussian_variance"),
        (lambda x: {"mean": 2 * x[:, None], "std": torch.ones_like(x)[:, None]}, "gaussian_std"),
        (lambda x: {"std": torch.ones_like(x), "mean": 2 * x}, None),
        (lambda x: {"loc": 2 * x, "log_var": torch.zeros_like(x)}, None),
        (lambda x: torch.distributions.Normal(2 * x, torch.ones_like(x)), None),
    ],
)
def test_networks_may_answer_in_every_form(function, outputs):
    record = audit_regression(Gives(function).eval(), data(), outputs=outputs)
    assert record.r2 > 0.8
    if record.distributions:
        assert record.distributions[0].sharpness == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("function", "outputs", "error", "word"),
    [
        (
            lambda x: torch.distributions.Normal(x, torch.ones_like(x)),
            "gaussian_variance",
            OptionError,
            "says that they",
        ),
        (lambda x: torch.distributions.Laplace(x, torch.ones_like(x)), None, ModelError, "expected Normal"),
        (lambda x: {"a": x, "b": x}, None, ModelError, "a dictionary of a, b"),
        (lambda x: x.long(), None, ModelError, "expected numbers"),
    ],
)
def test_forms_that_contradict_or_are_unknown_are_refused(function, outputs, error, word):
    with pytest.raises(error, match=word):
        audit_regression(Gives(function).eval(), data(), outputs=outputs)


def test_deviations_of_another_form_are_noticed():
    record = audit_regression(Gives(lambda x: (2 * x, 6 + 0 * x)).eval(), data(), outputs="gaussian")
    assert any("do the outputs have the form" in line for line in record.warnings)


def test_several_networks_are_no_list():
    with shapes_unchecked(), pytest.raises(ModelError, match=r"posteriors\.Predictive"):
        audit_regression([Line().eval()], data(), outputs="gaussian_std")


def test_the_record_is_read_back_and_is_no_record_of_classification(record, tmp_path):
    from caveat.records.record import Record

    record.save(tmp_path / "record.json")
    assert RegressionRecord.load(tmp_path) == record
    with pytest.raises(DataError):
        Record.load(tmp_path)
    found = json.loads((tmp_path / "record.json").read_text())
    (tmp_path / "record.json").write_text(json.dumps(found | {"task": "classification"}))
    with pytest.raises(DataError, match="no record of regression"):
        RegressionRecord.load(tmp_path)


def test_the_page_holds_every_interval_and_is_closed(record):
    text = page.render(record)
    for item in record.intervals:
        assert f"<code>{item.name}</code>" in text
    assert "http://" not in text.split("<script")[0]
    assert "src=" not in text.split("<script")[0]


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        ({"outputs": None}, OptionError, "say what they mean: gaussian"),
        ({"outputs": "mixture"}, OptionError, "a third"),
        ({"error": 0.0}, OptionError, "error"),
        ({"ood": {"other": torch.ones(20, 4)}}, DataError, "shape"),
    ],
)
def test_what_cannot_be_is_refused(change, error, word):
    with pytest.raises(error, match=word):
        audit_regression(Line().eval(), data(), **{"outputs": "gaussian_std"} | change)


def test_labels_must_be_there_and_be_numbers():
    x, y = data()
    with pytest.raises(DataError, match="no labels"):
        audit_regression(Line().eval(), x, outputs="gaussian_std")
    with pytest.raises(DataError, match="NaN or infinity in some"):
        audit_regression(Line().eval(), (x, torch.where(torch.arange(600) == 3, torch.nan, y)), outputs="gaussian_std")
    with pytest.raises(DataError, match="each column"):
        audit_regression(Line().eval(), [(x, torch.stack([y, y], 1))], outputs="gaussian_std")


def test_networks_must_be_functions_of_their_input():
    with pytest.raises(ModelError, match="same outputs"):
        audit_regression(Gives(lambda x: x + torch.randn_like(x)).eval(), data())
    with pytest.raises(ModelError, match="training mode"):
        audit_regression(Line(), data(), outputs="gaussian_std")


def test_samples_in_both_sets_are_told():
    record = audit_regression(Line().eval(), data(), train=data(), outputs="gaussian_std")
    assert any("600 of 600 test samples are also in the training set" in line for line in record.warnings)
