"""A dense audit counts pixels as if they had been laid side by side, without ever doing so."""

import base64
import copy
import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn

from caveat.audits.dense.audit import audit_dense
from caveat.audits.dense.counts import Counts, Reservoir, Sums
from caveat.errors import DataError, OptionError
from caveat.posteriors import Predictive, ensemble
from caveat.report import render
from caveat.scores import FROM_DRAWS, FROM_LOGITS, FROM_RAW_LOGITS

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
    """Labels that mostly agree with the network, some void, some of an OOD kind where the picture is bright."""
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
    record = audit_dense(net, scenes, ood={"strange": [STRANGE]}, void=VOID, replicas=20)
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
        # 1024 bins: ranks are known to one bin
        assert found.auroc.value == pytest.approx(roc_auc_score(truth[rows], values[rows]), abs=2e-3), name
        assert found.aupr_out.value == pytest.approx(average_precision_score(truth[rows], values[rows]), abs=1e-2)
        own = next(s for s in record.selective if s.score == name)
        wrong = (~right[known]).numpy()
        assert own.auroc.value == pytest.approx(roc_auc_score(wrong, values[known.numpy()]), abs=2e-3), name
    for score in record.scores:
        assert all(sum(shares) == pytest.approx(1, abs=1e-4) for shares in score.histogram.values())
    sweep = record.sweeps[0]
    assert sweep.accepted_correct[-1] + sweep.accepted_wrong[-1] == pytest.approx(1, abs=1e-4)
    assert np.all(np.diff(sweep.accepted_ood["strange"]) >= 0)


def test_batches_do_not_matter(net, scenes):
    whole = [(torch.cat([x for x, _ in scenes]), torch.cat([y for _, y in scenes]))]
    a = audit_dense(net, scenes, void=VOID, ood={"strange": [STRANGE]}, replicas=5)
    b = audit_dense(net, whole, void=VOID, ood={"strange": [STRANGE]}, replicas=5)
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


@pytest.fixture
def many(net, generator):
    """The same network with four heads that disagree: a posterior's draws."""
    members = []
    for _ in range(4):
        member = copy.deepcopy(net)
        with torch.no_grad():
            member[2].weight += 0.4 * torch.randn(member[2].weight.shape, generator=generator)
        members.append(member)
    return Predictive(net, ensemble.of(members)).eval()


def test_the_draws_are_scored_pixel_by_pixel(many, scenes):
    record = audit_dense(many, scenes, ood={"strange": [STRANGE]}, void=VOID, replicas=5)
    assert [s.name for s in record.scores if s.family == "draws"] == list(FROM_DRAWS)
    draws = torch.cat([many.draws(x).permute(0, 1, 3, 4, 2).reshape(4, -1, 4) for x, _ in scenes], dim=1).double()
    labels = torch.cat([y.flatten() for _, y in scenes])
    rows = (labels < 4) | (labels == STRANGE)
    truth = (labels == STRANGE)[rows].int().numpy()
    for name, score in FROM_DRAWS.items():
        found = next(d for d in record.detections if d.score == name)
        assert found.auroc.value == pytest.approx(roc_auc_score(truth, score(draws)[rows].numpy()), abs=4e-3), name
    mean = draws.softmax(2).mean(0)
    right = (mean.argmax(1) == labels)[labels < 4].double().mean()
    assert record.calibrations[0].summary.accuracy.value == pytest.approx(right.item(), rel=1e-5)
    assert record.draws is not None
    assert record.draws.count == 4
    means = {part.set: part for part in record.draws.sets}
    groups = {"correct": (mean.argmax(1) == labels) & (labels < 4), "strange": labels == STRANGE}
    for where, own in groups.items():
        part = means[where]
        for value, name in (
            (part.total, "predictive_entropy"), (part.aleatoric, "expected_entropy"),
            (part.epistemic, "mutual_information"), (1 - part.agreement, "variation_ratio"),
        ):  # fmt: skip
            assert value == pytest.approx(FROM_DRAWS[name](draws)[own].mean().item(), rel=1e-4, abs=1e-6), (where, name)
        assert part.total == pytest.approx(part.aleatoric + part.epistemic, rel=1e-4)
    assert record.draws.gain[0].auroc["strange"] > 0
    assert "agree" in render(record)
    assert record.scenes is not None
    assert record.scenes.score == "mutual_information"


def test_identical_draws_add_nothing(net, scenes):
    plain = audit_dense(net, scenes, void=VOID, ood={"strange": [STRANGE]}, replicas=5)
    same = audit_dense(
        Predictive(net, ensemble.of([net, net])).eval(), scenes, void=VOID, ood={"strange": [STRANGE]}, replicas=5
    )
    for name in ("msp", "entropy"):
        one, two = (next(d for d in r.detections if d.score == name) for r in (plain, same))
        assert one.auroc.value == pytest.approx(two.auroc.value, abs=2e-3)
    assert all(part.epistemic < 1e-6 and part.agreement == 1 for part in same.draws.sets)
    assert plain.draws is None


def test_unknown_kinds_void_and_classes_come_from_the_set(net, scenes):
    class Set:
        ood, void, classes, name = {"strange": (STRANGE,)}, VOID, ("a", "b", "c", "d"), "scenes"

        def __iter__(self):
            return iter(scenes)

    found = audit_dense(net, Set(), replicas=5)
    given = audit_dense(net, scenes, ood={"strange": [STRANGE]}, void=VOID, replicas=5)
    assert found.detections == given.detections
    assert found.classes == ["a", "b", "c", "d"]


def test_scenes_show_what_was_asked_and_answered(net, scenes):
    record = audit_dense(net, scenes, ood={"strange": [STRANGE]}, void=VOID, replicas=5, scenes=2)
    assert record.scenes is not None
    assert len(record.scenes.shown) == 2
    assert list(record.scenes.colours) == ["0", "1", "2", "3", "strange"]
    shown = record.scenes.shown[0]
    picture, labels = (batch[shown.index % 3] for batch in scenes[shown.index // 3])
    with torch.no_grad():
        logits = net(picture[None])[0]

    def pixels(text: str, mode: str):
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert(mode)).astype(int)

    assert np.abs(pixels(shown.picture, "RGB") - (255 * picture.permute(1, 2, 0)).numpy()).mean() < 16  # 64 colours
    confidence = logits.softmax(0).amax(0)
    assert np.abs(pixels(shown.confidence, "L") - 255 * confidence.numpy()).max() <= 6  # 32 shades
    shades = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in record.scenes.colours.values()]
    assert np.array_equal(pixels(shown.prediction, "RGB"), np.array(shades)[logits.argmax(0).numpy()])
    assert np.array_equal(pixels(shown.labels, "RGB")[-1], np.zeros((20, 3)))  # void
    known = labels < 4
    assert shown.accuracy == pytest.approx((logits.argmax(0) == labels)[known].double().mean().item())
    assert shown.ood == pytest.approx(16 / (16 * 20 - 40))
    assert audit_dense(net, scenes, ood={"strange": [STRANGE]}, void=VOID, replicas=5, scenes=0).scenes is None


def test_the_scenes_stand_in_the_report(net, scenes):
    record = audit_dense(net, scenes, ood={"strange": [STRANGE]}, void=VOID, replicas=5, scenes=2)
    page = render(record)
    assert page.count('alt="Uncertainty of picture') == 2
    assert "The record has no pictures." not in page
    for colour in record.scenes.colours.values():
        assert f'fill="{colour}"' in page
    broken = record.scenes.shown[0].model_copy(update={"picture": "<b>"})
    with pytest.raises(DataError, match="expected base64 of a PNG"):
        render(record.model_copy(update={"scenes": record.scenes.model_copy(update={"shown": [broken]})}))


def test_what_is_kept_does_not_grow_with_the_pictures(net, scenes):
    def kept(record):
        return next(n for n in record.notes if n.startswith("What was kept"))

    options = {"ood": {"strange": [STRANGE]}, "void": VOID, "replicas": 2}
    assert kept(audit_dense(net, scenes, **options)) == kept(audit_dense(net, scenes * 3, **options))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(1, 20))
def test_a_reservoir_is_spread_evenly_and_small(sizes, most):
    held, total = Reservoir(most), 0
    for size in sizes:
        held.add(torch.arange(total, total + size), -torch.arange(total, total + size))
        total += size
        assert held.held <= 2 * most
    rows, mirrored = held.columns()
    assert torch.equal(rows, torch.arange(0, total, held.step))
    assert torch.equal(rows, -mirrored)


def test_counts_are_tallies():
    values = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    group = torch.tensor([0, 1, 2, 0, -1, 2])
    counts = Counts(torch.tensor([0.15, 0.35, 0.55]).double(), ("odd",))
    for part in ([0, 1], [2, 3, 4], [5]):
        counts.add(values[part], group[part])
    assert counts.tally("wrong").negative.tolist() == [1, 0, 1, 0]
    assert counts.tally("wrong").positive.tolist() == [0, 1, 0, 0]
    assert counts.tally("odd").negative.tolist() == [1, 1, 1, 0]
    assert counts.tally("odd").positive.tolist() == [0, 1, 0, 1]
    assert counts.mean("correct") == pytest.approx(0.25)
    assert counts.mean("odd") == pytest.approx(0.45)


def test_pictures_are_the_samples_behind_the_interval_of_a_mean_over_pixels():
    """Ends were the value itself. Accuracy differs by picture: the interval holds the truth in about 95 of 100 sets."""
    generator = torch.Generator().manual_seed(3)
    held, widths = 0, []
    for _ in range(100):
        sums = Sums()
        for _ in range(40):
            size = int(torch.randint(20, 60, (1,), generator=generator))
            share = 0.6 + 0.4 * torch.rand(1, generator=generator)  # of a picture: 0.8 on average
            labels = torch.randint(3, (size,), generator=generator)
            wrong = torch.rand(size, generator=generator) > share
            sums.add(4.0 * torch.nn.functional.one_hot((labels + wrong) % 3, 3), labels)
        accuracy = sums.summary(2, 0)[0].accuracy
        held += accuracy.low <= 0.8 <= accuracy.high
        widths.append(accuracy.high - accuracy.low)
    assert 0.9 <= held / 100 <= 0.99
    assert sum(widths) / 100 > 1.5 * 2 * 1.96 * (0.8 * 0.2 / 1600) ** 0.5  # of 1,600 independent pixels
    summary = sums.summary(2, 0)[0]
    assert summary.nll.low < summary.nll.value < summary.nll.high
    assert summary.brier.low < summary.brier.value < summary.brier.high
    few = Sums()
    few.add(torch.randn(50, 3, generator=generator), torch.randint(3, (50,), generator=generator))
    assert (few.summary(2, 0)[0].accuracy.low, few.summary(2, 0)[0].brier.high) == (None, None)
