import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.scores.conftest import energy, tensor
from torch import nn

from caveat.errors import DataError, OptionError
from caveat.scores import ash, lts, scale, shaped_maps
from caveat.types import Look

HEAD = (tensor([1, 0, 0, 0], [0, 1, 1, 1]), tensor(0, 0))
X = tensor([4, 3, 2, 1])
LABEL = torch.tensor([0])


def test_golden():
    # half of 4 activations is kept: 4 and 3, of a sum of 10
    def score(fit):
        return fit(X, LABEL, HEAD, share=0.5)(X).item()

    factor = math.exp(10 / 7)
    assert score(ash.pruned) == pytest.approx(-math.log(math.exp(4) + math.exp(3)))
    assert score(ash.binarised) == pytest.approx(-5 - math.log(2))  # both kept ones become 10 / 2
    assert score(ash.scaled) == pytest.approx(-math.log(math.exp(4 * factor) + math.exp(3 * factor)))
    # not pruned: logits 4 and 3 + 2 + 1
    assert score(scale.fit) == pytest.approx(-math.log(math.exp(4 * factor) + math.exp(6 * factor)))
    s = (10 / 7) ** 2
    assert score(lts.fit) == pytest.approx(-math.log(math.exp(4 * s) + math.exp(6 * s)))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.65, 0.95])
def test_the_formulas(relu_sample, queries, as_numpy, share):
    _, _, w, b, x = as_numpy
    kept = max(1, x.shape[1] - round(x.shape[1] * share))
    dense = x + 0.01 * np.random.default_rng(0).random(x.shape)  # no ties: which zero is kept is another test's matter

    def shaped(x, variant):
        out = []
        for row in x:
            chosen = np.argsort(row)[::-1][:kept]
            g = np.zeros_like(row)
            g[chosen] = row.sum() / kept if variant == "b" else row[chosen]
            factor = np.exp(row.sum() / row[chosen].sum()) if row[chosen].sum() else np.e
            linear = {"p": w @ g, "b": w @ g, "s": w @ g * factor, "scale": w @ row * factor}
            lts = w @ row + b
            squared = (row.sum() / row[chosen].sum()) ** 2 if row[chosen].sum() else 1
            out.append(lts * squared if variant == "lts" else linear[variant] + b)
        return energy(np.stack(out))

    fits = {"p": ash.pruned, "b": ash.binarised, "s": ash.scaled, "scale": scale.fit, "lts": lts.fit}
    for variant, fit in fits.items():
        actual = fit(*relu_sample, share=share)(torch.from_numpy(dense))
        np.testing.assert_allclose(actual, shaped(dense, variant), rtol=1e-10, err_msg=variant)
        if variant != "b":
            actual = fit(*relu_sample, share=share)(queries)
            np.testing.assert_allclose(actual, shaped(x, variant), rtol=1e-10, err_msg=variant)


def test_ties_share_what_is_left_so_that_the_order_of_features_is_irrelevant(relu_sample):
    # 3 of 10 are active and 4 are kept: each of the 7 zeros gets a seventh of the fourth share
    features, labels, (weight, bias) = relu_sample
    x = torch.zeros(1, 10, dtype=torch.float64)
    x[0, [1, 4, 8]] = tensor(1, 2, 3)
    share = torch.full((10,), 6 / 4 / 7, dtype=torch.float64)
    share[[1, 4, 8]] = 6 / 4
    expected = energy((weight @ share + bias)[None].numpy())
    score = ash.binarised(features, labels, (weight, bias), share=0.6)
    np.testing.assert_allclose(score(x), expected, rtol=1e-12)
    order = torch.arange(10).flip(0)
    other = ash.binarised(features[:, order], labels, (weight[:, order], bias), share=0.6)
    np.testing.assert_allclose(other(x[:, order]), expected, rtol=1e-12)


@given(seed=st.integers(0, 2**31), shift=st.floats(-3, 3))
def test_negative_features_stay_finite(seed, shift):
    # exp(sum / sum of the largest) has no bound when activations may be negative
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(seed)) + shift
    x[0] = torch.tensor([-1e-20, -1, -1, -1])
    x[1] = torch.tensor([1e-20, -1, -1, -1])
    head = (HEAD[0].float(), HEAD[1].float())
    labels = torch.zeros(20, dtype=torch.long)
    for fit in (ash.pruned, ash.binarised, ash.scaled, scale.fit, lts.fit):
        assert torch.isfinite(fit(x, labels, head, share=0.75)(x)).all(), fit


def test_a_sample_without_activity_has_the_energy_of_the_bias(relu_sample, queries):
    expected = -torch.logsumexp(relu_sample[2][1], dim=0).item()
    for fit in (ash.pruned, ash.binarised, ash.scaled, scale.fit, lts.fit):
        assert fit(*relu_sample)(queries)[0].item() == pytest.approx(expected)


@pytest.mark.parametrize("share", [-0.1, 1.0, math.nan])
def test_options(relu_sample, share):
    for fit in (ash.pruned, ash.binarised, ash.scaled, scale.fit, lts.fit):
        with pytest.raises(OptionError, match=r"share: expected a number in \[0, 1\)"):
            fit(*relu_sample, share=share)


MAPS = {
    "p": (shaped_maps.to_prune, shaped_maps.pruned, ash.pruned),
    "b": (shaped_maps.to_binarise, shaped_maps.binarised, ash.binarised),
    "s": (shaped_maps.to_scale, shaped_maps.scaled, ash.scaled),
    "scale": (shaped_maps.to_stretch, shaped_maps.stretched, scale.fit),
}


@pytest.mark.parametrize("variant", MAPS)
def test_on_maps_all_pixels_of_a_sample_are_shaped_together(variant):
    """Golden: of 8 activations 9, 3, 3 and 2 stay, of a sum of 19; the head sees their mean over 4 pixels."""
    maps = torch.tensor([[[[9.0, 1.0], [0.0, 1.0]], [[2.0, 3.0], [0.0, 3.0]]]], dtype=torch.float64)
    features = maps.mean(dim=(2, 3))
    to_probe, fit, on_means = MAPS[variant]
    probe = to_probe({"early": maps[:, :1], "last": maps}, features, share=0.5)
    assert probe.layers == ("last",)
    look = Look(nn.Identity(), maps, features, {"last": maps})
    factor = math.exp(19 / 17)
    kept = {
        "p": (9 / 4, 2), "b": (19 / 16, 57 / 16), "s": (9 / 4 * factor, 2 * factor),
        "scale": (11 / 4 * factor, 2 * factor),
    }  # fmt: skip
    assert probe(look)[0].tolist() == pytest.approx(kept[variant])
    head = (torch.eye(2, dtype=torch.float64), tensor(0.5, 0))
    logits = [kept[variant][0] + 0.5, kept[variant][1]]
    assert fit(head)(probe(look), look.logits).item() == pytest.approx(-math.log(sum(map(math.exp, logits))))
    dots = torch.rand(5, 6, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alone = shaped_maps.ShapedMaps(("last",), 0.5, variant)(Look(nn.Identity(), dots, dots, {"last": dots}))
    head = (torch.eye(6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64))
    means = on_means(dots.flatten(1), torch.zeros(5, dtype=torch.int64), head, share=0.5)(dots.flatten(1))
    torch.testing.assert_close(fit(head)(alone, alone), means)  # of one pixel, both places are the same


def test_a_network_whose_features_are_no_averages_has_no_maps_to_shape():
    maps = torch.rand(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(DataError, match="its features are no averages of feature maps"):
        shaped_maps.to_scale({"last": maps}, maps.amax(dim=(2, 3)))
    with pytest.raises(OptionError, match=r"share: expected a number in \[0, 1\)"):
        shaped_maps.to_prune({"last": maps}, maps.mean(dim=(2, 3)), share=1.0)
