"""A dense audit counts pixels as if they had been laid side by side, without ever doing so."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn

from caveat.audits.dense import audit_dense
from caveat.errors import DataError, OptionError
from caveat.scores import FROM_LOGITS, FROM_RAW_LOGITS

VOID, STRANGE = 9, 5


@pytest.fixture
def net(generator):
    made = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.9, generator=generator)
    return made


@pytest.fixture
def scenes(net, generator):
    """Labels that mostly agree with the network, some void, some of an unknown kind where the picture is bright."""
    batches = []
    for _ in range(4):
        images = torch.rand(3, 3, 16, 20, generator=generator)
        images[:, :, :4, :4] = 0.5
        with torch.no_grad():
            labels = net(images).argmax(1)
        noise = torch.rand(labels.shape, generator=generator)
        labels = torch.where(noise < 0.15, torch.randint(0, 4, labels.shape, generator=generator), labels)
        labels[:, :4, :4] = STRANGE
        labels[:, -2:] = VOID
        batches.append((images, labels))
    return batches


def test_the_figures_are_those_of_all_pixels(net, scenes):
    record = audit_dense(net, scenes, unknown={"strange": [STRANGE]}, void=VOID, replicas=20)
    with torch.no_grad():
        logits = torch.cat([net(x).permute(0, 2, 3, 1).reshape(-1, 4) for x, _ in scenes]).double()
    labels = torch.cat([y.flatten() for _, y in scenes])
    known, strange = labels < 4, labels == STRANGE
    plain = record.calibrations[0].summary
    right = logits.argmax(1) == labels
    assert plain.accuracy.value == pytest.approx(right[known].double().mean().item(), rel=1e-5)
    probs = logits.softmax(1)
    assert plain.nll.value == pytest.approx(
        -probs[known, :].gather(1, labels[known][:, None]).log().mean().item(), rel=1e-4
    )
    assert {s.name for s in record.scores} == set(FROM_LOGITS | FROM_RAW_LOGITS)
    for name, score in (FROM_LOGITS | FROM_RAW_LOGITS).items():
        values = score(logits).numpy()
        found = next(d for d in record.detections if d.score == name)
        truth, rows = strange.numpy().astype(int), (known | strange).numpy()
        # 2048 bins: ranks are known to one bin
        assert found.auroc.value == pytest.approx(roc_auc_score(truth[rows], values[rows]), abs=2e-3), name
        assert found.aupr_out.value == pytest.approx(average_precision_score(truth[rows], values[rows]), abs=1e-2)
        own = next(s for s in record.selective if s.score == name)
        wrong = (~right[known]).numpy()
        assert own.auroc.value == pytest.approx(roc_auc_score(wrong, values[known.numpy()]), abs=2e-3), name
    for score in record.scores:
        assert all(sum(shares) == pytest.approx(1, abs=1e-4) for shares in score.histogram.values())
    sweep = record.sweeps[0]
    assert sweep.kept_correct[-1] + sweep.kept_wrong[-1] == pytest.approx(1, abs=1e-4)
    assert np.all(np.diff(sweep.passed["strange"]) >= 0)


def test_batches_do_not_matter(net, scenes):
    whole = [(torch.cat([x for x, _ in scenes]), torch.cat([y for _, y in scenes]))]
    a = audit_dense(net, scenes, void=VOID, unknown={"strange": [STRANGE]}, replicas=5)
    b = audit_dense(net, whole, void=VOID, unknown={"strange": [STRANGE]}, replicas=5)
    assert a.detections == b.detections
    assert a.calibrations[0].summary.ece == b.calibrations[0].summary.ece


def test_what_cannot_be_audited_is_refused(net, scenes):
    with pytest.raises(OptionError, match="scores: there is no 'knn'"):
        audit_dense(net, scenes, scores=["knn"])
    with pytest.raises(DataError, match="expected at least one batch"):
        audit_dense(net, [])
    with pytest.raises(DataError, match=r"expected label maps \(n, h, w\)"):
        audit_dense(net, [(scenes[0][0], torch.zeros(3, dtype=torch.long))])
    with pytest.raises(DataError, match="expected pixels with a known label, got none"):
        audit_dense(net, [(x, torch.full_like(y, VOID)) for x, y in scenes], void=VOID)
