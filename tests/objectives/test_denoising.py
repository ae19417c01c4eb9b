"""The joint objective: its formula, gradients in float64, weight 0, what is noised and what is not."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from caveat.errors import ModelError, OptionError
from caveat.models import WithAutoencoder, denoising_classifier
from caveat.objectives import FOR_RECONSTRUCTION, Denoising, cross_entropy
from caveat.objectives.denoising import noised


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def joint(generator):
    """Smooth, and of float64, so that finite differences are exact."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(256, 5), nn.Tanh(), nn.Linear(5, 4))
        decoder = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Conv2d(2, 1, 3, padding=1), nn.Sigmoid())
    return WithAutoencoder(network, decoder).double()


@pytest.fixture
def batch(generator):
    inputs = torch.rand(6, 1, 16, 16, generator=generator, dtype=torch.float64)
    return inputs, torch.tensor([0, 1, 2, 3, 0, 1])


@pytest.mark.parametrize("clean", [True, False])
def test_it_is_the_sum_of_its_three_parts(joint, batch, clean):
    inputs, labels = batch
    objective = Denoising(2.0, k=0.5, spread=3.0, sigma=0.2, clean=clean)
    start = noised(inputs, seeded(), sigma=0.2)
    probs = joint(inputs if clean else start).softmax(1)
    expected = 2.0 * (joint.reconstruct(start) - inputs).square().mean()
    wrong = 0
    for row, label in zip(probs, labels.tolist(), strict=True):
        expected = expected - row[label].log() / 6
        for other in range(4):
            if other != label:
                expected = expected - 0.5 * row[other] * (1 - row[other]).log() / 6
        if row.argmax() != label:
            wrong += 1
            expected = expected + 3.0 * row.std(unbiased=False) / 6
    assert wrong  # else nothing of the last part is tested
    assert objective(joint, inputs, labels, seeded()).item() == pytest.approx(expected.item(), rel=1e-10)


@pytest.mark.parametrize("options", [{}, {"clean": True}, {"k": 0.0, "spread": 5.0}, {"reconstruction": 0.0}])
def test_its_gradient_is_the_finite_difference(joint, batch, options):
    objective = Denoising(**options)
    weights = list(joint.parameters())
    direction = [torch.randn(w.shape, generator=seeded(7), dtype=torch.float64) for w in weights]
    objective(joint, *batch, seeded()).backward()
    slope = sum((w.grad * d).sum() for w, d in zip(weights, direction, strict=True) if w.grad is not None)

    def at(step: float) -> float:
        with torch.no_grad():
            for w, d in zip(weights, direction, strict=True):
                w += step * d
            value = objective(joint, *batch, seeded()).item()
            for w, d in zip(weights, direction, strict=True):
                w -= step * d
        return value

    assert slope.item() == pytest.approx((at(1e-6) - at(-1e-6)) / 2e-6, rel=1e-6)


def test_weights_of_nothing_are_cross_entropy_of_clean_inputs(joint, batch):
    plain = Denoising(reconstruction=0, k=0, spread=0)
    assert torch.equal(plain(joint, *batch, seeded()), cross_entropy(joint, *batch, seeded()))
    plain(nn.Sequential(nn.Flatten(), nn.Linear(256, 4)).double(), *batch, seeded()).backward()  # no autoencoder


@pytest.mark.parametrize("name", FOR_RECONSTRUCTION)
def test_a_scalar_that_repeats_with_the_generator_and_falls_along_its_gradient(name):
    model = denoising_classifier(classes=3, size=16, width=2)
    inputs, labels = torch.rand(6, 1, 16, 16, generator=seeded()), torch.tensor([0, 1, 2, 0, 1, 2])
    before = torch.get_rng_state()
    first, second = (FOR_RECONSTRUCTION[name](model, inputs, labels, seeded()) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.shape == ()
    assert torch.equal(first, second)
    assert FOR_RECONSTRUCTION[name](model, inputs, labels, seeded(2)) != first
    first.backward()
    with torch.no_grad():
        for weight in model.parameters():
            weight -= 1e-3 * weight.grad
    assert FOR_RECONSTRUCTION[name](model, inputs, labels, seeded()) < first


def test_noise_lies_over_square_and_picture():
    images = torch.full((400, 1, 28, 28), 0.5, dtype=torch.float64)
    given = noised(images, seeded(), sigma=0.1)
    hidden = given < 0.25  # 2.5 deviations below 0.5; the square's pixels are above 0.25 once in 160
    area = hidden.double().mean().item() * 784
    assert area == pytest.approx(sum(s * s for s in range(10, 15)) / 5, rel=0.03)
    inside = given[hidden & (given > 0)]
    assert inside.min() > 0  # noise, not a flat square
    assert inside.std() > 0.03
    assert given[~hidden].std().item() == pytest.approx(0.1, rel=0.05)
    assert given.min() >= 0
    assert torch.equal(noised(images[:2], seeded(3), sigma=0.0), noised(images[:2], seeded(3), sigma=0.0))
    assert set(noised(images[:9], seeded(3), sigma=0.0).flatten().tolist()) == {0.0, 0.5}


def test_options_and_models_are_checked(batch):
    with pytest.raises(OptionError, match="k: expected a finite number of at least 0, got -1"):
        Denoising(k=-1)
    with pytest.raises(OptionError, match=r"sides: expected 1 <= smallest <= largest, got \(4, 3\)"):
        Denoising(sides=(4, 3))
    plain = nn.Sequential(nn.Flatten(), nn.Linear(256, 4)).double()
    with pytest.raises(ModelError, match=r"models.WithAutoencoder\(network, autoencoder\), got Sequential"):
        Denoising()(plain, *batch, seeded())
    with pytest.raises(ModelError, match=r"expected reconstructions of shape \(6, 1, 16, 16\), got \(6, 1, 32, 32\)"):
        Denoising()(WithAutoencoder(plain, nn.Upsample(scale_factor=2)), *batch, seeded())


def test_a_step_of_training_lowers_the_reconstruction_error():
    model = denoising_classifier(classes=3, size=16, width=4, generator=seeded())
    labels = torch.arange(32) % 3
    inputs = torch.zeros(32, 1, 16, 16)
    for row, label in enumerate(labels.tolist()):
        inputs[row, :, 5 * label : 5 * label + 5] = 1.0
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    errors = []
    for _ in range(20):
        optimizer.zero_grad()
        Denoising(sides=(3, 5))(model, inputs, labels, seeded()).backward()
        optimizer.step()
        with torch.no_grad():
            errors.append(functional.mse_loss(model.reconstruct(inputs), inputs).item())
    assert errors[-1] < 0.5 * errors[0]
