"""Objectives that teach a network what it does not know: closed forms, gradients in float64, weight 0, invariances."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from caveat.attacks import Ball, pgd
from caveat.data import outliers
from caveat.errors import OptionError
from caveat.objectives import (
    OBJECTIVES,
    Acet,
    Adversarial,
    Ceda,
    CrownIbp,
    EntropyRegularisation,
    Focal,
    Good,
    Ibp,
    LabelSmoothing,
    LogitNorm,
    Mixup,
    OutlierExposure,
    ReversedFocal,
    Trades,
    cross_entropy,
)
from caveat.objectives.reversed_focal import of_logits, spread_of_wrong


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


INPUTS = torch.rand(10, 1, 4, 4, generator=seeded(1), dtype=torch.float64)
LABELS = torch.arange(10) % 3


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)).double()


OFF = {
    "ceda": Ceda(weight=0), "acet": Acet(weight=0), "outlier_exposure": OutlierExposure(weight=0),
    "label_smoothing": LabelSmoothing(weight=0), "focal": Focal(gamma=0), "mixup": Mixup(alpha=0),
    "reversed_focal": ReversedFocal(k=0, spread=0), "entropy_regularisation": EntropyRegularisation(weight=0),
    "adversarial": Adversarial(radius=0), "fast_adversarial": Adversarial(radius=0, steps=1),
    "trades": Trades(weight=0), "ibp": Ibp(weight=0), "crown_ibp": CrownIbp(weight=0), "good": Good(weight=0),
}  # fmt: skip


@pytest.mark.parametrize("name", OFF)
def test_switched_off_it_is_cross_entropy(name: str) -> None:
    model, other = network(), network()
    plain = cross_entropy(model, INPUTS, LABELS, seeded())
    assert OFF[name](other, INPUTS, LABELS, seeded()).item() == pytest.approx(plain.item(), rel=1e-12)
    # running statistics too: nothing but the clean batch went through the network in training mode
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), other.buffers(), strict=True))


def test_every_objective_with_options_can_be_switched_off() -> None:
    assert set(OFF) == set(OBJECTIVES) - {"cross_entropy", "logit_norm"}


@pytest.mark.parametrize("name", [*OBJECTIVES])
def test_the_gradient_is_that_of_finite_differences(name: str) -> None:
    objective = OBJECTIVES[name]
    if name in ("acet", "trades", "adversarial"):
        objective = dataclasses.replace(objective, steps=3)
    model = network()
    if name in ("acet", "trades", "adversarial", "fast_adversarial"):
        model.eval()  # running statistics that move from call to call would move what the attack finds
    objective(model, INPUTS, LABELS, seeded(4)).backward()
    for weight in model.parameters():
        assert weight.grad is not None
        assert float(weight.grad.abs().max()) > 0 or weight is model[0].bias  # batch norm hides the bias before it
    weight = model[4].weight
    for place in ((0, 1), (2, 7)):
        with torch.no_grad():
            step = 1e-6
            weight[place] += step
            up = objective(model, INPUTS, LABELS, seeded(4))
            weight[place] -= 2 * step
            down = objective(model, INPUTS, LABELS, seeded(4))
            weight[place] += step
        assert weight.grad[place].item() == pytest.approx((up - down).item() / (2 * step), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_it_is_a_mean_and_leaves_modes_and_gradients_alone(name: str) -> None:
    model = network()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    value = OBJECTIVES[name](model, INPUTS, LABELS, seeded())
    assert value.ndim == 0
    assert modes == [module.training for module in model.modules()]
    assert all(weight.grad is None for weight in model.parameters())
    if name not in ("mixup", "ceda", "acet", "outlier_exposure", "good", "adversarial", "fast_adversarial", "trades"):
        twice = OBJECTIVES[name](model, INPUTS.repeat(2, 1, 1, 1), LABELS.repeat(2), seeded())
        assert twice.item() == pytest.approx(value.item(), rel=1e-12)


def test_ceda_by_hand() -> None:
    z = torch.rand(6, 1, 4, 4, generator=seeded(5), dtype=torch.float64)
    objective = Ceda(weight=0.7, outliers=lambda images, generator: z)
    model = network().eval()
    expected = functional.cross_entropy(model(INPUTS), LABELS) + 0.7 * model(z).log_softmax(1).amax(1).mean()
    assert objective(model, INPUTS, LABELS, seeded()).item() == pytest.approx(expected.item(), rel=1e-12)
    uniform = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double()
    for weight in uniform.parameters():
        nn.init.zeros_(weight)
    # the least a network can pay: log c for the labels, -log c for the noise
    assert objective(uniform, INPUTS, LABELS, seeded()).item() == pytest.approx((1 - 0.7) * math.log(3))


def test_acet_finds_more_than_ceda_and_stays_in_the_ball() -> None:
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, inputs: Tensor) -> Tensor:
            if self.training:
                seen.append(inputs.detach())
            return self.inner(inputs)

    z = torch.rand(10, 1, 4, 4, generator=seeded(5), dtype=torch.float64)
    model = Spy()
    Acet(radius=0.1, steps=10, outliers=lambda images, generator: z)(model, INPUTS, LABELS, seeded())
    (batch,) = seen  # one pass in training mode, clean and noise together
    torch.testing.assert_close(batch[:10], INPUTS)
    moved = batch[10:]
    assert float((moved - z).abs().max()) <= 0.1 + 1e-12
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1
    model.eval()
    before, after = (model(x).log_softmax(1).amax(1) for x in (z, moved))
    assert (after >= before).all()
    assert (after - before).mean().item() > 1e-3


def test_outlier_exposure_by_hand_and_from_a_set() -> None:
    images = torch.rand(4, 1, 4, 4, dtype=torch.float64)
    model = network().eval()
    value = OutlierExposure(weight=0.5, outliers=lambda *_: images)(model, INPUTS, LABELS, seeded())
    uniform = torch.full((4, 3), 1 / 3, dtype=torch.float64)
    expected = functional.cross_entropy(model(INPUTS), LABELS) + 0.5 * functional.cross_entropy(model(images), uniform)
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    drawn = outliers.taken_from(images)(INPUTS, seeded())
    assert all(any(torch.equal(one, other) for other in images) for one in drawn)
    with pytest.raises(OptionError, match="shape"):
        outliers.taken_from(images[:, :, :2])(INPUTS, seeded())


def test_focal_by_hand() -> None:
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]], dtype=torch.float64)
    value = Focal(gamma=2)(nn.Identity(), probs.log(), torch.tensor([0, 1]), seeded())
    assert value.item() == pytest.approx((0.3**2 * -math.log(0.7) + 0.75**2 * -math.log(0.25)) / 2)


def test_the_reports_losses_by_hand_with_the_signs_mended() -> None:
    p = [0.7, 0.2, 0.1]
    logits = torch.tensor([p], dtype=torch.float64).log()
    right, wrong = torch.tensor([0]), torch.tensor([1])
    assert of_logits(logits, right, k=1, spread=1).item() == pytest.approx(
        -math.log(0.7) - 0.2 * math.log(0.8) - 0.1 * math.log(0.9)
    )
    spread = (sum((v - 1 / 3) ** 2 for v in p) / 3) ** 0.5
    assert of_logits(logits, wrong, k=2, spread=5).item() == pytest.approx(
        -math.log(0.2) + 2 * (-0.7 * math.log(0.3) - 0.1 * math.log(0.9)) + 5 * spread
    )
    # a wrong answer that gets surer costs more: as printed, it would cost less
    sure = torch.tensor([[20.0, 0.0, 0.0]], dtype=torch.float64)
    assert of_logits(sure, wrong, k=1, spread=0) > of_logits(logits, wrong, k=1, spread=0)
    assert spread_of_wrong(sure, wrong) > spread_of_wrong(logits, wrong)
    even = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    of_logits(even, torch.tensor([2]), k=1, spread=1).backward()
    assert torch.isfinite(even.grad).all()
    far = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    of_logits(far, wrong, k=1, spread=1).backward()
    assert torch.isfinite(far.grad).all()


def test_logit_norm_does_not_mind_the_size_of_logits() -> None:
    logits = torch.randn(5, 3, generator=seeded(), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0, 1])
    one, ten = (LogitNorm()(nn.Identity(), scale * logits, labels, seeded()) for scale in (1, 10))
    assert one.item() == pytest.approx(ten.item(), rel=1e-9)


def test_mixup_is_linear_in_the_labels() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double()
    value = Mixup(alpha=1.0)(model, INPUTS, LABELS, seeded(3))
    generator = seeded(3)
    import numpy as np

    share = float(np.random.default_rng(int(torch.randint(2**31, (), generator=generator))).beta(1.0, 1.0))
    order = torch.randperm(10, generator=generator)
    target = (
        share * functional.one_hot(LABELS, 3).double() + (1 - share) * functional.one_hot(LABELS[order], 3).double()
    )
    mixed = share * INPUTS + (1 - share) * INPUTS[order]
    assert 0.01 < share < 0.99
    assert value.item() == pytest.approx(functional.cross_entropy(model(mixed), target).item(), rel=1e-12)


def test_adversarial_training_of_a_linear_model_has_its_closed_form() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double()
    inputs = 0.3 + 0.4 * INPUTS  # so that the box does not bind
    labels = LABELS % 2
    value = Adversarial(radius=0.05, steps=10)(model, inputs, labels, seeded())
    apart = model[1].weight[0] - model[1].weight[1]
    sign = torch.where(labels == 0, 1.0, -1.0).double()
    margin = sign * (model(inputs)[:, 0] - model(inputs)[:, 1]) - 0.05 * apart.abs().sum()
    assert value.item() == pytest.approx(functional.softplus(-margin).mean().item(), rel=1e-9)
    half = Adversarial(radius=0.05, steps=10, clean=0.5)(model, inputs, labels, seeded())
    clean = functional.cross_entropy(model(inputs), labels)
    assert half.item() == pytest.approx((0.5 * value + 0.5 * clean).item(), rel=1e-9)
    attacked = pgd(model.eval(), inputs, labels, Ball(math.inf, 0.05), generator=seeded())
    assert functional.cross_entropy(model(attacked), labels).item() == pytest.approx(value.item(), rel=1e-9)


def test_trades_pays_for_the_answers_distance() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double()
    inputs, labels = 0.3 + 0.4 * INPUTS, LABELS % 2
    value = Trades(weight=2.0, radius=0.05, steps=20)(model, inputs, labels, seeded())
    clean = functional.cross_entropy(model(inputs), labels)
    apart = model[1].weight[0] - model[1].weight[1]
    corners = []
    for sign in (-1, 1):  # a linear model: the divergence is largest at one of two corners
        moved = model(inputs + sign * 0.05 * apart.sign().reshape(1, 4, 4))
        p, q = model(inputs).log_softmax(1), moved.log_softmax(1)
        corners.append((p.exp() * (p - q)).sum(1))
    both = torch.stack(corners)
    # each sample climbs to one of its two corners
    assert (
        (clean + 2 * both.amin(0).mean()).item() - 1e-9
        <= value.item()
        <= (clean + 2 * both.amax(0).mean()).item() + 1e-9
    )
    assert value.item() > (clean + 1.5 * both.amax(0).mean()).item()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Ceda(weight=-1), lambda: Acet(steps=0), lambda: Acet(norm=3), lambda: OutlierExposure(weight=-1),
        lambda: LabelSmoothing(weight=2), lambda: Focal(gamma=-1), lambda: ReversedFocal(k=-1),
        lambda: EntropyRegularisation(weight=-1), lambda: LogitNorm(temperature=0), lambda: Mixup(alpha=-1),
        lambda: Adversarial(steps=0), lambda: Trades(weight=-1), lambda: Adversarial(clean=2),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(make) -> None:
    with pytest.raises(OptionError, match="expected"):
        make()
