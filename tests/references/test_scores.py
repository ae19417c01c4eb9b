"""Our scores against those of pytorch-ood 0.4.0 on the same logits, features and head: 1e-4 relative, or it says why.

Where a scale differs, the comparison says by which factor. The second half shows where pytorch-ood is wrong.
"""

import pytest
import torch
from torch import nn

from caveat import scores
from caveat.calibration import temperature
from caveat.errors import OptionError

N, C, D = 600, 5, 24


@pytest.fixture(scope="module")
def known():
    """Rectified features of 5 classes, their labels, and a head that is mostly right but not saturated."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(N) % C
    centres = (torch.randn(C, D, generator=generator) + 0.5).relu()
    features = (centres[labels] + 0.4 * torch.randn(N, D, generator=generator)).relu()
    weight = centres - centres.mean(dim=0)
    return features, labels, (0.7 * weight, -0.35 * (weight * (centres + centres.mean(dim=0))).sum(dim=1))


@pytest.fixture(scope="module")
def queries(known):
    generator = torch.Generator().manual_seed(6)
    foreign = (torch.randn(150, D, generator=generator) * 0.8 + 0.4).relu()
    return torch.cat([known[0][:150] * 1.1, foreign])


@pytest.fixture(scope="module")
def linear(known):
    layer = nn.Linear(D, C)
    layer.load_state_dict({"weight": known[2][0], "bias": known[2][1]})
    return layer.requires_grad_(False)


def logits_of(features, head):
    return features @ head[0].T + head[1]


def agree(ours, theirs, *, rtol=1e-4, atol=0.0):
    assert theirs.std() > 0
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=rtol, atol=atol)


COMPARED = {
    "MaxSoftmax", "MaxLogit", "EnergyBased", "Entropy", "GEN", "WeightedEBO", "KLMatching", "OpenMax",
    "TemperatureScaling", "Mahalanobis", "RMD", "GMM", "KNN", "NNGuide", "ViM", "SHE", "fDBD", "NCI", "PNML", "LTS",
    "DICE", "ReAct", "VRA", "ASH", "SCALE", "GradNorm", "GradUncertainty",
}  # fmt: skip
COMPARED_ELSEWHERE = {"Gram", "MultiMahalanobis", "NACUE", "ODIN", "RankFeat", "MahalanobisODIN"}  # test_layer_scores
NOT_OURS = {
    "MCD",  # `dropout_msp`, `dropout_variance`, but with other masks for every input: test_mc_dropout
    "MCM",  # needs a text encoder
}  # fmt: skip


def test_pytorch_ood_has_no_score_that_is_not_spoken_of(pytorch_ood):
    detectors = {
        name for name, kind in vars(pytorch_ood).items() if isinstance(kind, type) and hasattr(kind, "predict")
    }
    assert {name for name in detectors if name[0] != "_"} == COMPARED | COMPARED_ELSEWHERE | NOT_OURS


# --- from logits ------------------------------------------------------------------------------------------------------


def test_scores_of_logits(pytorch_ood, known, queries):
    logits = logits_of(queries, known[2])
    agree(
        scores.logits.msp(logits), 1 + pytorch_ood.MaxSoftmax(None).predict_logits(logits), atol=1e-6
    )  # 1 - p, not -p
    agree(scores.logits.max_logit(logits), pytorch_ood.MaxLogit(None).predict_logits(logits))
    # pytorch-ood lifts probabilities to 1e-7: each adds up to 1.6e-6
    agree(scores.logits.entropy(logits), pytorch_ood.Entropy(None).predict_logits(logits), atol=1e-5)
    for t in (1.0, 2.5):
        agree(scores.logits.energy(logits, temperature=t), pytorch_ood.EnergyBased(None, t=t).predict_logits(logits))
    mild = logits / 3  # pytorch-ood clamps probabilities to [1e-7, 1 - 1e-7]
    for top in (3, C):  # the paper sums, pytorch-ood takes the mean
        theirs = top * pytorch_ood.GEN(None, gamma=0.1, M=top).predict_logits(mild)
        agree(scores.logits.gen(mild, gamma=0.1, top=top), theirs)


def test_weighted_energy(pytorch_ood, known, queries):
    logits = logits_of(queries, known[2])
    weights = torch.tensor([0.5, 2.0, 1.0, -0.3, 0.1])
    ours = scores.weighted_energy.fit(logits_of(known[0], known[2]), known[1], weights=weights)
    agree(ours(logits), pytorch_ood.WeightedEBO(None, weights).predict_logits(logits))


def test_kl_matching(pytorch_ood, known, queries):
    logits, seen = logits_of(queries, known[2]), logits_of(known[0], known[2])
    theirs = pytorch_ood.KLMatching(None).fit_logits(seen).predict_logits(logits)
    agree(scores.kl_matching.fit(seen, known[1])(logits), theirs, atol=1e-6)


def right_answers(known):
    features, labels, head = known
    logits = logits_of(features, head)
    right = logits.argmax(dim=1) == labels
    return logits[right], labels[right]


@pytest.mark.parametrize(("tail", "alpha"), [(25, 10), (40, 3), (10, 1)])
def test_openmax(pytorch_ood, known, queries, tail, alpha):
    # fitted on right answers only (we leave the others out, as the paper does; pytorch-ood keeps them), and judged in a
    # batch in which every class is predicted
    seen, labels = right_answers(known)
    logits = logits_of(queries, known[2])
    assert len(logits.argmax(dim=1).unique()) == C
    theirs = pytorch_ood.OpenMax(None, tailsize=tail, alpha=alpha)
    theirs.fit_logits(seen.double(), labels)
    agree(
        scores.openmax.fit(seen, labels, tail=tail, alpha=alpha)(logits), theirs.predict_logits(logits.double()),
        atol=1e-5,
    )  # fmt: skip


def test_temperature_scaling(pytorch_ood, known):
    # a calibration of ours; pytorch-ood stops after 50 short steps, on the way. A tenth of the labels is wrong, else
    # the best temperature is 0
    seen, labels = logits_of(known[0], known[2]), known[1].clone()
    labels[::10] = (labels[::10] + 1) % C
    theirs = pytorch_ood.TemperatureScaling(None).fit_logits(seen, labels).t.item()
    ours = float(temperature.fit(seen, labels).temperature)
    assert 1 < theirs < 0.9 * ours
    nll = [nn.functional.cross_entropy(seen / t, labels).item() for t in (ours * 0.99, ours, ours * 1.01, theirs)]
    assert nll[1] == min(nll)


# --- from features ----------------------------------------------------------------------------------------------------


def test_mahalanobis(pytorch_ood, known, queries):
    # half the distance, under a scatter that is not divided by n
    theirs = pytorch_ood.Mahalanobis(None).fit_features(*known[:2]).predict_features(queries)
    agree(scores.mahalanobis.fit(*known[:2], ridge=0.0)(queries), 2 * N * theirs)


def test_relative_mahalanobis(pytorch_ood, known, queries):
    # both scatters not divided by n; the difference of two distances may be near 0
    theirs = N * pytorch_ood.RMD(None).fit_features(*known[:2]).predict_features(queries)
    agree(scores.relative_mahalanobis.fit(*known[:2], ridge=0.0)(queries), theirs, atol=1e-4 * theirs.abs().mean())


def test_gaussian_mixture(pytorch_ood, known, queries):
    theirs = pytorch_ood.GMM(None, reg=0.0).fit_features(*known[:2]).predict_features(queries)
    agree(scores.gaussian_mixture.fit(*known[:2], dimension=D, ridge=0.0)(queries), theirs)


@pytest.mark.parametrize("k", [1, 7, 50])
def test_knn(pytorch_ood, known, queries, k):
    theirs = pytorch_ood.KNN(None, k=k).fit_features(*known[:2]).predict_features(queries)
    agree(scores.knn.fit(*known[:2], k=k)(queries), theirs, atol=1e-6)


@pytest.mark.parametrize("k", [1, 10])
def test_nnguide(pytorch_ood, known, linear, queries, k):
    theirs = pytorch_ood.NNGuide(None, linear, k=k).fit_features(*known[:2]).predict_features(queries)
    agree(scores.nnguide.fit(*known, k=k)(queries), theirs, atol=1e-6)


@pytest.mark.parametrize("dimension", [4, 12, 20])
def test_vim(pytorch_ood, known, queries, dimension):
    # pytorch-ood finds its eigenvectors in float32
    theirs = pytorch_ood.ViM(None, dimension, *known[2]).fit_features(*known[:2]).predict_features(queries)
    agree(scores.vim.fit(*known, dimension=dimension)(queries), theirs, atol=1e-4 * theirs.std())


def test_residual_is_what_vim_of_pytorch_ood_scales(pytorch_ood, known, queries):
    theirs = pytorch_ood.ViM(None, 12, *known[2]).fit_features(*known[:2])
    virtual = theirs.predict_features(queries) + torch.logsumexp(logits_of(queries, known[2]), dim=1)
    agree(scores.residual.fit(*known, dimension=12)(queries), virtual / theirs.alpha)


def test_scores_of_the_head_and_class_means(pytorch_ood, known, linear, queries):
    features, labels, _ = known
    theirs = pytorch_ood.SHE(None, linear).fit_features(features, labels).predict_features(queries)
    agree(scores.she.fit(*known)(queries), theirs)
    agree(
        scores.fdbd.fit(*known)(queries),
        pytorch_ood.fDBD(None, linear).fit_features(features).predict_features(queries),
    )
    for alpha in (0.0, 0.05):
        theirs = pytorch_ood.NCI(None, linear, alpha=alpha).fit_features(features).predict_features(queries)
        agree(scores.nci.fit(*known, alpha=alpha)(queries), theirs, atol=1e-6)


def test_pnml(pytorch_ood, known, linear, queries):
    # pytorch-ood takes the logarithm of a float32 near 1: its digits end at 1e-7
    theirs = pytorch_ood.PNML(None, linear).fit_features(*known[:2]).predict_features(queries)
    agree(scores.pnml.fit(*known)(queries), theirs, atol=3e-7)


@pytest.mark.parametrize("p", [0.3, 0.7, 0.9])
def test_dice(pytorch_ood, known, queries, p):
    theirs = pytorch_ood.DICE(None, *known[2], p=p).fit_features(*known[:2]).predict_features(queries)
    agree(scores.dice.fit(*known, share=p)(queries), theirs, atol=1e-6)


@pytest.mark.parametrize("p", [0.05, 0.2, 0.5])
def test_lts(pytorch_ood, known, linear, queries, p):
    theirs = pytorch_ood.LTS(None, linear, p=p).predict_features(queries)
    agree(scores.lts.fit(*known, share=1 - p)(queries), theirs, atol=1e-6)


def as_maps(features):
    return features[:, :, None, None]


def on_maps(linear):
    return lambda maps: linear(maps.flatten(1))


@pytest.mark.parametrize("share", [0.65, 0.9])
def test_react_scale_and_ash(pytorch_ood, known, linear, queries, share):
    head, maps = on_maps(linear), as_maps(queries)
    theirs = pytorch_ood.ReAct(None, head, percentile=share).fit_feature_maps(as_maps(known[0]), known[1])
    agree(scores.react.fit(*known, share=share)(queries), theirs.predict_feature_maps(maps), atol=1e-6)
    theirs = pytorch_ood.SCALE(None, head, percentile=share).predict_feature_maps(maps)
    agree(scores.scale.fit(*known, share=share)(queries), theirs, atol=1e-6)
    for variant in ("p", "s"):
        theirs = pytorch_ood.ASH(None, head, variant=f"ash-{variant}", percentile=share).predict_feature_maps(maps)
        ours = scores.ash.fit(*known, variant=variant, share=share)(queries)
        agree(ours, theirs, atol=1e-6)
    # of the zeros of a sparse sample pytorch-ood's ASH-B keeps some by chance: here no two activations are equal
    dense = queries + 0.01 * torch.rand(queries.shape, generator=torch.Generator().manual_seed(1))
    theirs = pytorch_ood.ASH(None, head, variant="ash-b", percentile=share).predict_feature_maps(as_maps(dense))
    agree(scores.ash.fit(*known, variant="b", share=share)(dense), theirs, atol=1e-6)


def test_vra_where_nothing_is_below_its_threshold(pytorch_ood, known):
    # pytorch-ood has thresholds for every element (ours: one pair for all, as in the paper), and lifts what is below
    # the lower one to it (the paper sets it to 0): with one feature, not below, both are the same
    features, labels = known[0][:, :1] + 0.1, known[1]
    head = (torch.linspace(-1, 1, C)[:, None], torch.zeros(C))
    theirs = pytorch_ood.VRA(None, lambda maps: logits_of(maps.flatten(1), head), 0.1, 0.9)
    theirs.fit_feature_maps(as_maps(features), labels)
    high = features[features[:, 0] >= features.quantile(0.1)]
    agree(
        scores.vra.fit(features, labels, head, lower=0.1, upper=0.9)(high),
        theirs.predict_feature_maps(as_maps(high)), atol=1e-6,
    )  # fmt: skip
    low = features[features[:, 0] < features.quantile(0.1)]
    ours = scores.vra.fit(features, labels, head, lower=0.1, upper=0.9)(low)
    agree_to_zero = scores.logits.energy(head[1].repeat(len(low), 1))
    torch.testing.assert_close(ours, agree_to_zero)
    assert not torch.isclose(ours, theirs.predict_feature_maps(as_maps(low))).any()


def test_grad_uncertainty(pytorch_ood, queries):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(D, 6), nn.Tanh(), nn.Linear(6, C)).eval()
    squared = -pytorch_ood.GradUncertainty(net).predict(queries)  # and of the sum over the classes, not their mean
    found = scores.gradients.statistics(net, queries, target="uniform").values[:, -1]
    agree(scores.gradients.uncertainty(found), -squared.sqrt() / C)


@pytest.mark.parametrize("t", [1.0, 3.0])
def test_gradnorm(pytorch_ood, known, linear, queries, t):
    theirs = (
        pytorch_ood.GradNorm(linear, param_filter=lambda name: name == "weight", temperature=t)
        .to("cpu")
        .predict(queries)
    )
    agree(scores.gradnorm.fit(*known, temperature=t)(queries), theirs, atol=1e-5)


# --- where pytorch-ood is wrong ---------------------------------------------------------------------------------------


def test_its_mahalanobis_shrinks_as_the_fit_set_grows(pytorch_ood, known, queries):
    features, labels, _ = known
    double = torch.cat([features, features]), torch.cat([labels, labels])
    once = pytorch_ood.Mahalanobis(None).fit_features(features, labels).predict_features(queries)
    twice = pytorch_ood.Mahalanobis(None).fit_features(*double).predict_features(queries)
    agree(twice, once / 2)
    agree(scores.mahalanobis.fit(*double)(queries), scores.mahalanobis.fit(features, labels)(queries))


def test_its_openmax_depends_on_the_rest_of_the_batch(pytorch_ood, known, queries):
    seen, labels = right_answers(known)
    logits = logits_of(queries, known[2])
    theirs = pytorch_ood.OpenMax(None)
    theirs.fit_logits(seen, labels)
    together = theirs.predict_logits(logits)
    alone = torch.cat([theirs.predict_logits(row[None]) for row in logits])
    assert (together - alone).abs().max() > 0.1
    ours = scores.openmax.fit(seen, labels)
    agree(ours(logits), torch.cat([ours(row[None]) for row in logits]))


def test_its_vim_is_infinite_without_a_residual_space(pytorch_ood, known, queries):
    theirs = pytorch_ood.ViM(None, D, *known[2]).fit_features(*known[:2])
    assert theirs.alpha == float("inf")
    assert not torch.isfinite(theirs.predict_features(queries)).any()
    with pytest.raises(OptionError, match="dimension"):
        scores.vim.fit(*known, dimension=D)


def test_its_weighted_energy_overflows(pytorch_ood, known):
    logits, weights = torch.tensor([[100.0, 0, 0, 0, 0]]), torch.ones(C)
    assert pytorch_ood.WeightedEBO(None, weights).predict_logits(logits).item() == -torch.inf
    ours = scores.weighted_energy.fit(logits_of(known[0], known[2]), known[1], weights=weights)
    assert ours(logits).item() == -100


def test_it_ties_answers_that_are_nearly_certain(pytorch_ood):
    logits = torch.tensor([[20.0, 0.0], [25.0, 0.0], [40.0, 0.0]])
    for theirs, ours in (
        (pytorch_ood.MaxSoftmax(None), scores.logits.msp),
        (pytorch_ood.Entropy(None), scores.logits.entropy),
        (pytorch_ood.GEN(None), scores.logits.gen),
    ):
        assert theirs.predict_logits(logits)[1] == theirs.predict_logits(logits)[2]
        assert (ours(logits).diff() < 0).all()


def test_it_is_not_a_number_where_no_unit_is_active(pytorch_ood, known, linear):
    nothing = torch.zeros(1, D)
    maps, head = as_maps(nothing), on_maps(linear)
    assert pytorch_ood.SCALE(None, head).predict_feature_maps(maps).isnan().all()
    assert pytorch_ood.ASH(None, head, variant="ash-s").predict_feature_maps(maps).isnan().all()
    assert pytorch_ood.LTS(None, linear).predict_features(nothing).isnan().all()
    for fit in (scores.scale.fit, scores.ash.fit, scores.lts.fit):
        assert fit(*known)(nothing).item() == pytest.approx(-torch.logsumexp(known[2][1], 0).item(), rel=1e-5)


def test_its_ash_b_depends_on_the_order_of_the_features(pytorch_ood, known, linear):
    sparse = torch.zeros(1, D)
    sparse[0, :3] = torch.tensor([3.0, 2.0, 1.0])  # a third of 24 is kept: five of the zeros too
    order = torch.arange(D).flip(0)
    weight, bias = linear.weight, linear.bias

    def theirs(columns):
        head = lambda maps: maps.flatten(1) @ weight[:, columns].T + bias  # noqa: E731  # one line of a test
        return pytorch_ood.ASH(None, head, variant="ash-b").predict_feature_maps(as_maps(sparse[:, columns])).item()

    def ours(columns):
        features, labels, _ = known
        return scores.ash.binarised(features[:, columns], labels, (weight[:, columns], bias))(sparse[:, columns]).item()

    everything = torch.arange(D)
    assert theirs(everything) != pytest.approx(theirs(order), rel=1e-3)
    assert ours(everything) == pytest.approx(ours(order), rel=1e-6)


def test_it_refuses_what_real_data_have(pytorch_ood, known, linear, queries):
    features, labels, head = known
    some = labels != 1
    with pytest.raises(AssertionError):  # a class that does not occur
        pytorch_ood.Mahalanobis(None).fit_features(features[some], labels[some])
    with pytest.raises(ValueError, match="No correct predictions for class 1"):
        pytorch_ood.SHE(None, linear).fit_features(
            features, torch.where(labels == 1, 2, torch.where(labels == 2, 1, labels))
        )
    for fit in (scores.mahalanobis.fit, scores.relative_mahalanobis.fit, scores.gaussian_mixture.fit):
        assert torch.isfinite(fit(features[some], labels[some])(queries)).all()
    assert torch.isfinite(scores.she.fit(features[some], labels[some], head)(queries)).all()


def test_its_fdbd_is_not_a_number_for_two_classes_with_one_row(pytorch_ood, known, queries):
    weight, bias = known[2][0].clone(), known[2][1].clone()
    weight[1], bias[1] = weight[0], bias[0]
    twin = nn.Linear(D, C)
    twin.load_state_dict({"weight": weight, "bias": bias})
    theirs = pytorch_ood.fDBD(None, twin.requires_grad_(False)).fit_features(known[0]).predict_features(queries)
    assert theirs.isnan().any()
    assert torch.isfinite(scores.fdbd.fit(known[0], known[1], (weight, bias))(queries)).all()


def test_its_pnml_does_not_see_weak_directions(pytorch_ood, known):
    # it cuts eigenvalues of X^T X where singular values of X should be cut: here a direction of 1e-4 of the others
    generator = torch.Generator().manual_seed(3)
    features = torch.cat([known[0], 1e-4 * torch.randn(N, 1, generator=generator)], dim=1)
    head = nn.Linear(D + 1, C)
    head.load_state_dict({"weight": torch.cat([known[2][0], torch.zeros(C, 1)], dim=1), "bias": known[2][1]})
    foreign = features.clone()
    foreign[:, D] = 0.05
    theirs = pytorch_ood.PNML(None, head.requires_grad_(False)).fit_features(features, known[1])
    assert theirs.predict_features(foreign).median() < 1.05 * theirs.predict_features(features).median()
    ours = scores.pnml.fit(features, known[1], (head.weight, head.bias))
    assert ours(foreign).median() > 5 * ours(features).median()


def test_its_predictions_keep_the_graph(pytorch_ood, known):
    net = nn.Linear(D, C)
    assert pytorch_ood.EnergyBased(net)(known[0]).requires_grad  # memory and time, whatever the caller does with it
