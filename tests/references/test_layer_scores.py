"""Scores over layers and with a second look, against pytorch-ood's on the same network and inputs."""

import pytest
import torch
from tests.scores.test_layers import LABELS, look
from torch import nn

from caveat.calls import recorded
from caveat.scores import gram, mahalanobis_layers, mahalanobis_odin, moments, nac, odin, pooled, rankfeat, shaped_maps
from caveat.types import Look


@pytest.fixture
def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(5, 3)).eval()


@pytest.fixture
def inputs():
    return torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def agree(ours, theirs, *, rtol=1e-4, atol=0.0):
    assert theirs.std() > 0
    torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol)


def test_rankfeat(pytorch_ood, net, inputs):
    with torch.no_grad():
        seen = look(net, inputs)
        maps = seen.activations["3"]
        probed = rankfeat.probe(seen.activations, maps.mean(dim=(2, 3)))(seen)
        ours = rankfeat.fit((net[-1].weight, net[-1].bias))(probed, seen.logits)
        agree(ours, pytorch_ood.RankFeat(None, net[4:]).predict_feature_maps(maps))


@pytest.mark.parametrize("share", [0.65, 0.9])
def test_shaped_maps(pytorch_ood, net, inputs, share):
    with torch.no_grad():
        seen = look(net, inputs)
        maps, head = seen.activations["3"], (net[-1].weight, net[-1].bias)
        features = maps.mean(dim=(2, 3))
        for variant in ("p", "s"):
            theirs = pytorch_ood.ASH(None, net[4:], variant=f"ash-{variant}", percentile=share)
            probe = shaped_maps.ShapedMaps((pooled.averaged(seen.activations, features),), share, variant)
            agree(shaped_maps.scaled(head)(probe(seen), seen.logits), theirs.predict_feature_maps(maps), atol=1e-6)
        probe = shaped_maps.to_stretch(seen.activations, features, share=share)
        theirs = pytorch_ood.SCALE(None, net[4:], percentile=share).predict_feature_maps(maps)
        agree(shaped_maps.stretched(head)(probe(seen), seen.logits), theirs, atol=1e-6)


def test_odin(pytorch_ood, net, inputs):
    for eps, t in ((0.01, 1000.0), (0.1, 2.0)):
        theirs = 1 + pytorch_ood.ODIN(net, eps=eps, temperature=t).predict(inputs)  # 1 - p, not -p
        ours = odin.Perturbed(eps, t, low=None, high=None)(look(net, inputs, graph=True))[:, 0]
        agree(ours, theirs)


def test_mahalanobis_after_a_step(pytorch_ood, net, inputs):
    # half the distance, under a scatter that is not divided by n, with a ridge of 1e-6: both small beside features that
    # are made large
    encoder, head = net[:-1], net[-1]
    encoder[2].weight.data *= 100
    encoder[2].bias.data *= 100
    features = encoder(inputs).detach()
    theirs = pytorch_ood.MahalanobisODIN(encoder, eps=0.05).fit_features(features, LABELS).predict(inputs)
    probe = mahalanobis_odin.choose(
        net, inputs, LABELS, head="6", pooled=False, step=0.05, ridge=0.0, low=None, high=None
    )
    leaf = inputs.clone().requires_grad_()
    with recorded(net, ["6"]) as calls:
        logits = net(leaf)
    probed = probe(Look(net, leaf, logits, {}, calls))
    ours = mahalanobis_odin.fit(moments.of(features, LABELS), ridge=0.0)(probed)
    agree(ours, 120 * theirs, rtol=1e-3)
    assert head.weight.grad is None


def test_mahalanobis_of_layers(pytorch_ood, net, inputs):
    # half the distance, under scatters that are not divided by n; activations are made large so that its ridge of 1e-6
    # is small beside them, and centred so that our floor (what rounding of such numbers may make) is as well
    with torch.no_grad():
        seen = look(net, inputs)
        probe = pooled.probe(seen.activations)
        probed = 100 * (probe(seen) - probe(seen).mean(dim=0))
    parts = list(probed.split(list(probe.sizes), dim=1))
    theirs = pytorch_ood.MultiMahalanobis([net, net]).fit_structured(parts, LABELS).predict_structured(parts)
    agree(mahalanobis_layers.fit(probed, seen.logits, LABELS, probe)(probed, seen.logits), 120 * theirs)


def test_nac(pytorch_ood, net, inputs):
    # so steep that the products, small in an untrained network, are none that ours takes for rounding
    theirs = pytorch_ood.NACUE(net, [net[1], net[3]], alpha=[1e6, 1e4]).fit([(inputs, LABELS)])
    seen = look(net, inputs, graph=True)
    probe = nac.probe(seen.activations)
    probed = probe(seen).detach()
    ours = nac.fit(
        probed, seen.logits.detach(), LABELS, probe, enough=50, steepness=torch.tensor([1e6] * 4 + [1e4] * 5)
    )
    other = inputs.flip(0) ** 2
    again = look(net, other, graph=True)
    # a state within rounding of an edge may fall on either side: 1 of 50 visits of 1 of 4 neurons
    agree(ours(probe(again).detach(), again.logits.detach()), theirs.predict(other), atol=0.02)


def test_gram(pytorch_ood, net, inputs):
    # it holds out samples by the global random state: ours is given its bounds
    theirs = pytorch_ood.Gram(net[4:], [net[:2], net[2:4]], 3, num_poles_list=[1, 2, 3]).fit([(inputs, LABELS)])
    with torch.no_grad():
        seen = look(net, inputs**2)
        probe = gram.probe(seen.activations, powers=(1, 2, 3))
        bounds = [torch.cat([part for layer in side for part in layer], dim=1) for side in
                  (theirs.feature_min, theirs.feature_max)]  # fmt: skip
        ours = gram.GramDeviation(*bounds, theirs.layer_norm, probe.sizes)
        agree(ours(probe(seen), seen.logits), theirs.predict(inputs**2), rtol=1e-3)
