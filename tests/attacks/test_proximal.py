from itertools import pairwise

import pytest
import torch

from caveat.attacks.losses import cross_entropy
from caveat.attacks.proximal import shrink, sparsest
from caveat.errors import ModelError, OptionError
from caveat.models import lenet

PRICE = 0.3


def test_shrink_is_the_exact_minimiser():
    """Against the best of a fine grid, for intervals that hold 0, as those of a box seen from a point in it."""
    generator = torch.Generator().manual_seed(0)
    low = -torch.rand(200, 1, generator=generator, dtype=torch.float64)
    high = torch.rand(200, 1, generator=generator, dtype=torch.float64)
    change = 2 * torch.randn(200, 1, generator=generator, dtype=torch.float64)
    by = torch.rand(200, 1, generator=generator, dtype=torch.float64)
    grid = low + (high - low) * torch.linspace(0, 1, 10_001, dtype=torch.float64)
    best = ((grid - change).square() / 2 + by * grid.abs()).amin(1, keepdim=True)
    found = shrink(change, by, low, high)
    value = (found - change).square() / 2 + by * found.abs()
    assert (value <= best + 1e-12).all()
    assert (best - value < 1e-3).all()


def test_the_one_dimensional_problem_of_which_ead_as_commonly_coded_returns_0():
    """(d - 0.5)^2 / 2 + 0.005 |d| is least at 0.495; a threshold without the step's length misses it."""
    lowest = sparsest(
        lambda x: 0.5 * (x - 0.5).square().sum(1), torch.zeros(1, 1).double(), penalty=0.005, tolerance=1e-12
    )
    assert float(lowest.change) == pytest.approx(0.495, abs=1e-9)


@pytest.mark.parametrize("conditioning", [1.0, 1e3])
def test_a_quadratic_equals_coordinate_descent(conditioning):
    """min (x + d - m)^T A (x + d - m) / 2 + penalty |d|_1 in the box, by another algorithm in plain loops."""
    generator, d, penalty = torch.Generator().manual_seed(1), 6, 0.05
    basis = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
    matrix = (
        basis @ torch.diag(torch.logspace(0, 1, d).double() ** (torch.tensor(conditioning).log10() + 1e-9)) @ basis.T
    )
    goal = 1.5 * torch.rand(d, generator=generator, dtype=torch.float64) - 0.2
    start = torch.rand(d, generator=generator, dtype=torch.float64)

    def function(x):
        return 0.5 * ((x - goal) @ matrix * (x - goal)).sum(1)

    d_best = torch.zeros(d, dtype=torch.float64)
    for _ in range(4000):
        for i in range(d):
            curve = matrix[i, i]
            v = d_best[i] - (matrix[i] @ (start + d_best - goal)) / curve
            d_best[i] = (v.sign() * (v.abs() - penalty / curve).clamp_min(0)).clamp(-start[i], 1 - start[i])
    lowest = sparsest(function, start[None], penalty=penalty, steps=3000, tolerance=1e-13)
    torch.testing.assert_close(lowest.change[0], d_best, rtol=0, atol=1e-8)
    assert torch.equal(lowest.change[0] == 0, d_best == 0)
    assert float(lowest.values) == pytest.approx(float(function((start + d_best)[None]) + penalty * d_best.abs().sum()))


def test_a_linear_function_goes_to_the_ends_of_the_box():
    """Of w x: a value moves to the end of its room where |w| is above the penalty, and not at all elsewhere."""
    weight = torch.tensor([3.0, -0.5, -2.0, 0.9]).double()
    start = torch.tensor([[0.3, 0.6, 0.2, 0.7]]).double()
    lowest = sparsest(lambda x: x @ weight, start, penalty=1.0)
    torch.testing.assert_close(lowest.change, torch.tensor([[-0.3, 0.0, 0.8, 0.0]]).double())


def test_the_penalised_value_never_rises():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    start = torch.rand(6, 5, generator=generator, dtype=torch.float64)

    def wavy(x):
        return torch.sin(3 * x @ weight.T).sum(1)

    values = [sparsest(wavy, start, penalty=0.1, steps=steps).values for steps in range(1, 40)]
    for before, after in pairwise(values):
        assert (after <= before + 1e-12).all()
    assert (values[-1] < values[0] - 0.1).any()


def test_samples_stop_on_their_own():
    start = torch.tensor([[0.2], [0.9]]).double()

    def function(x):
        return 0.5 * ((x - 0.5) * torch.tensor([[0.0], [1.0]])).square().sum(1)

    lowest = sparsest(function, start, penalty=0.01)
    assert lowest.steps[0] < lowest.steps[1]
    alone = sparsest(lambda x: 0.5 * (x - 0.5).square().sum(1), start[1:], penalty=0.01)
    assert torch.equal(lowest.change[1:], alone.change)
    assert torch.equal(lowest.steps[1:], alone.steps)


def test_on_a_trained_network_no_worse_than_fista():
    """Plain FISTA with the best of three fixed steps for the whole set, 100 of them, the best iterate kept."""
    model, inputs, targets = trained_on_digits()

    def function(x):
        return cross_entropy(model(x), targets)

    ours = sparsest(function, inputs, penalty=PRICE, steps=100)
    theirs = min(float(fista(function, inputs, step).mean()) for step in (0.03, 0.1, 0.3))
    assert float(ours.values.mean()) <= 1.005 * theirs
    moved = inputs + ours.change.reshape(inputs.shape)
    torch.testing.assert_close(ours.values, function(moved).detach() + PRICE * ours.change.abs().sum(1))


def trained_on_digits():
    """A small network on 600 digits of 8x8 pixels; the first 30 and the digits after theirs."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    inputs = torch.from_numpy(loaded.images[:600]).float().unsqueeze(1) / 16
    labels = torch.from_numpy(loaded.target[:600]).long()
    model = lenet(size=8, width=8, hidden=32, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(100):
        rows = slice(step % 6 * 100, step % 6 * 100 + 100)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs[rows]), labels[rows]).backward()
        optimizer.step()
    assert float((model(inputs).argmax(1) == labels).float().mean()) > 0.9
    return model.eval(), inputs[:30], (labels[:30] + 1) % 10


def fista(function, inputs, step):
    """Beck and Teboulle's, in plain loops: the lowest penalised value of each sample."""
    flat = inputs.flatten(1)
    change, looked, momentum = torch.zeros_like(flat), torch.zeros_like(flat), 1.0
    lowest = torch.full((len(inputs),), torch.inf)
    for _ in range(100):
        points = (flat + looked).reshape(inputs.shape).requires_grad_()
        (gradient,) = torch.autograd.grad(function(points).sum(), points)
        moved = looked - step * gradient.flatten(1)
        new = torch.minimum(torch.maximum(moved.sign() * (moved.abs() - step * PRICE).clamp_min(0), -flat), 1 - flat)
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        looked, change, momentum = new + (momentum - 1) / following * (new - change), new, following
        with torch.no_grad():
            now = function((flat + change).reshape(inputs.shape)) + PRICE * change.abs().sum(1)
        lowest = torch.minimum(lowest, now)
    return lowest


def test_a_box_that_is_open():
    lowest = sparsest(lambda x: 0.5 * (x - 9).square().sum(1), torch.zeros(1, 1).double(), penalty=1.0, high=None)
    assert float(lowest.change) == pytest.approx(8.0)


def test_errors_teach():
    inputs = torch.rand(2, 3)
    with pytest.raises(OptionError, match="penalty"):
        sparsest(lambda x: x.sum(1), inputs, penalty=-1.0)
    with pytest.raises(ModelError, match="2 values with a gradient"):
        sparsest(lambda x: x.sum(), inputs, penalty=1.0)
