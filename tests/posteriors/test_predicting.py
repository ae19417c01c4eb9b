"""Running many networks: the common part runs once, and gives what running everything gives."""

import pytest
import torch
from tests.conftest import shapes_unchecked
from torch import Tensor, nn
from torch.nn import functional

from caveat import posteriors
from caveat.errors import ModelError, OptionError
from caveat.posteriors import dropout, ensemble
from caveat.posteriors.predicting import predict


class Functional(nn.Module):
    """Dropout as a function, a residual connection around it, and operations in place on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.fc = nn.Linear(4 * 36, 5)
        self.calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = inputs.sub_(0.5)  # in place, on the inputs
        x = functional.relu(self.conv(inputs), inplace=True)
        y = functional.dropout(x, 0.5, self.training)
        x += y  # changes what came before the dropout
        x = x + inputs
        self.calls += 1
        return self.fc(x.flatten(1))


class Viewed(nn.Module):
    """Two names for the same memory before the dropout, one changed after it: can't be shared, must be right."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(36, 6)
        self.out = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.fc(inputs.flatten(1))
        view = x.view(-1, 2, 3)
        x.add_(functional.dropout(x.clone(), 0.5, self.training))
        return self.out(view.flatten(1) + x)


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, dropout=0.4, batch_first=True)
        self.out = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        x = inputs.flatten(1).reshape(-1, 6, 6)
        return self.out(self.attention(x, x, x)[0].mean(dim=1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 5, num_layers=2, dropout=0.5, batch_first=True)
        self.out = nn.Linear(5, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.out(self.lstm(inputs.flatten(1).reshape(-1, 6, 6))[0][:, -1])


def layers() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout2d(0.3), nn.Flatten(), nn.Linear(48, 8),
        nn.AlphaDropout(0.2), nn.Linear(8, 4),
    )  # fmt: skip


def seeded(make: type[nn.Module] | object) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return make().eval()  # type: ignore[operator]


INPUTS = torch.rand(70, 1, 6, 6, generator=torch.Generator().manual_seed(0))
DROPPING = [
    layers,
    Functional,
    Viewed,
    Attending,
    Recurrent,
    lambda: nn.TransformerEncoderLayer(6, 2, 8, 0.3, batch_first=True),
]


def unshared(model: nn.Module, inputs: Tensor, draws: int, seed: int) -> Tensor:
    """What a plain loop gives: the same chunks, every draw from the start."""
    from caveat.posteriors import predicting as module

    whole, module.shareable = module.shareable, lambda *_: False
    try:
        return predict(dropout.of(model), model, inputs, generator=torch.Generator().manual_seed(seed), draws=draws)
    finally:
        module.shareable = whole


@pytest.mark.parametrize("make", DROPPING)
def test_sharing_gives_what_running_everything_gives(make: object) -> None:
    model = seeded(make)
    inputs = INPUTS if make is not DROPPING[-1] else INPUTS.flatten(1).reshape(-1, 6, 6)
    before = inputs.clone()
    shared = predict(dropout.of(model), model, inputs, generator=torch.Generator().manual_seed(3), draws=3)
    assert torch.equal(shared, unshared(model, inputs, 3, 3))
    assert torch.equal(inputs, before)
    assert float(shared.std(dim=0).mean()) > 1e-3
    assert not model.training


def test_what_comes_before_the_first_dropout_runs_once_a_chunk() -> None:
    seen: list[object] = []

    class Count(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(getattr(func, "__name__", func))
            return func(*args, **(kwargs or {}))

    model = seeded(layers)
    with Count():
        predict(dropout.of(model), model, INPUTS[:64], generator=torch.Generator(), draws=10)
    # once for ten draws; the checks on two inputs add one that is shared and two that are not, and two on masks
    assert seen.count("conv2d") == 1 + 3 + 2
    assert seen.count("dropout2d") + seen.count("feature_dropout") == 10 + 4 + 2


class TimeFirst(nn.Module):
    """What is dropped out has the inputs along its second axis."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.out(functional.dropout(inputs.flatten(1).reshape(-1, 6, 6).transpose(0, 1), 0.3).mean(dim=0))


class Windows(nn.Module):
    """Parts of an input along the first axis: each has masks of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(9, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        parts = functional.dropout(torch.ones(len(inputs) * 4, 9) + inputs.mean(), 0.5, self.training)
        return self.out(parts.unflatten(0, (-1, 4))[:, 0] - parts.unflatten(0, (-1, 4))[:, 1])


class Dropped(nn.Module):
    """Weights are dropped out, not inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(36, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.linear(inputs.flatten(1), functional.dropout(self.fc.weight, 0.5, self.training))


@pytest.mark.parametrize("make", [*DROPPING[:-1], TimeFirst, Dropped])
def test_no_draw_of_dropout_depends_on_the_batch(make: object) -> None:
    """Masks were drawn for a batch: a guard's verdict depended on what else it was asked."""
    model = seeded(make)
    network = posteriors.Predictive(model, dropout.of(model), draws=4)
    whole = network.draws(INPUTS)
    for size in (1, 7):
        parts = [network.draws(part) for part in INPUTS.split(size)]
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-5)
    assert float(whole.std(dim=0).mean()) > 1e-3


def test_parts_of_an_input_have_masks_of_their_own() -> None:
    model = seeded(Windows)
    draws = posteriors.Predictive(model, dropout.of(model), draws=30).draws(torch.zeros(8, 1))
    assert float(draws.std(dim=0).mean()) > 0.1
    torch.testing.assert_close(draws, draws[:, :1].expand_as(draws))


def test_members_answer_as_each_of_them_does() -> None:
    models = [
        nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).eval()
        for _ in range(4)
    ]
    for number, model in enumerate(models):
        model[2].running_mean.fill_(number / 10)
    found = predict(ensemble.of(models), models[0], INPUTS, generator=torch.Generator())
    with torch.no_grad():
        torch.testing.assert_close(found, torch.stack([model(INPUTS) for model in models]))


def test_a_sub_ensemble_shares_its_trunk() -> None:
    models = [nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3)).eval() for _ in range(3)]
    heads = ensemble.of(models, only=["3"])
    assert sorted(heads.weights) == ["3.bias", "3.weight"]
    assert sorted(ensemble.of(models, only=["1", "3"]).weights) == ["1.bias", "1.weight", "3.bias", "3.weight"]
    found = predict(heads, models[0], INPUTS, generator=torch.Generator())
    with torch.no_grad():
        trunk = models[0][:3](INPUTS)
        torch.testing.assert_close(found, torch.stack([model[3](trunk) for model in models]))


def test_tied_weights_are_one_weight() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = nn.Linear(4, 4)
            self.b.weight = self.a.weight

        def forward(self, inputs: Tensor) -> Tensor:
            return self.b(torch.relu(self.a(inputs)))

    models = [Tied().eval() for _ in range(2)]
    inputs = torch.rand(5, 4)
    found = predict(ensemble.of(models), models[0], inputs, generator=torch.Generator())
    with torch.no_grad():
        torch.testing.assert_close(found, torch.stack([model(inputs) for model in models]))


def test_dropout_can_be_put_after_layers_that_have_none() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 64), nn.ReLU(), nn.Linear(64, 3)).eval()
    with pytest.raises(ModelError, match="random in training"):
        predict(dropout.of(model), model, INPUTS, generator=torch.Generator())
    found = predict(dropout.of(model, after=("2",), rate=0.5), model, INPUTS, generator=torch.Generator(), draws=4000)
    with torch.no_grad():
        hidden = model[:3](INPUTS)
    # the layer after is linear, so mean and variance over masks are known: x w scaled by 2 with probability 1/2
    torch.testing.assert_close(found.mean(dim=0), model(INPUTS).detach(), atol=0.12, rtol=0.1)
    variance = hidden.square() @ model[3].weight.detach().square().T
    torch.testing.assert_close(found.var(dim=0).mean(), variance.mean(), rtol=0.05, atol=0)
    assert not model._forward_hooks
    assert not model[2]._forward_hooks


def test_a_dropout_of_rate_0_is_none() -> None:
    plain, recurrent = nn.Sequential(nn.Flatten(), nn.Dropout(0.0), nn.Linear(36, 3)), Recurrent()
    recurrent.lstm.dropout = 0.0
    for model in (plain, recurrent):
        with pytest.raises(ModelError, match="rate above 0"):
            predict(dropout.of(model), model.eval(), INPUTS, generator=torch.Generator())


def test_random_state_and_seed() -> None:
    model = seeded(layers)
    before = torch.get_rng_state()
    one = predict(dropout.of(model), model, INPUTS, generator=torch.Generator().manual_seed(1), draws=2)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    again = predict(dropout.of(model), model, INPUTS, generator=torch.Generator().manual_seed(1), draws=2)
    other = predict(dropout.of(model), model, INPUTS, generator=torch.Generator().manual_seed(2), draws=2)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_misuse_is_told() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ModelError, match=r"call model.eval"):
        predict(ensemble.of([model]), model, torch.ones(1, 2), generator=torch.Generator())
    model.eval()
    with pytest.raises(OptionError, match="another network"):
        predict(ensemble.of([nn.Linear(3, 2)]), model, torch.ones(1, 2), generator=torch.Generator())
    with pytest.raises(OptionError, match="1 to 1"):
        predict(ensemble.of([model]), model, torch.ones(1, 2), generator=torch.Generator(), draws=2)
    with pytest.raises(OptionError, match="no layer 'there'"):
        dropout.of(model, after=("there",))
    with pytest.raises(OptionError, match="probability"):
        dropout.of(nn.Sequential(model), after=("0",), rate=1.0)
    with pytest.raises(OptionError, match="draws: expected at least 1, got 0"):
        posteriors.Predictive(model, posteriors.Dropout(), draws=0)
    assert posteriors.Predictive(model, posteriors.Dropout(), draws=1).count == 1
    with pytest.raises(OptionError, match="network 1 differs"):
        ensemble.of([nn.Linear(2, 2), nn.Linear(3, 2)])
    with pytest.raises(OptionError, match="at least one"):
        ensemble.of([])
    with pytest.raises(OptionError, match="no layer 'head'"):
        ensemble.of([nn.Linear(2, 2)], only=["head"])


def test_batch_norm_wants_its_statistics_renewed() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).eval()
    batches = [(3 + torch.randn(50, 4), torch.zeros(50)) for _ in range(4)]
    noisy = posteriors.perturbation.fit(model, scale=0.5)
    with pytest.raises(OptionError, match="batch norm"):
        posteriors.sample(noisy, model, draws=2, generator=torch.Generator())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    drawn = posteriors.sample(noisy, model, draws=2, generator=torch.Generator(), batches=batches)
    for number in range(2):
        weights = drawn.member(number)
        inputs = torch.cat([inputs for inputs, _ in batches])
        hidden = inputs @ weights["0.weight"].T + weights["0.bias"]
        torch.testing.assert_close(weights["1.running_mean"], hidden.mean(dim=0), rtol=1e-4, atol=1e-4)
        spread = torch.stack([h.var(dim=0) for h in hidden.split(50)]).mean(dim=0)
        torch.testing.assert_close(weights["1.running_var"], spread, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model[1].momentum == 0.1
    assert not model[1].training
    with pytest.raises(OptionError, match="at least one batch"):
        posteriors.sample(noisy, model, draws=1, generator=torch.Generator(), batches=[])


def test_a_posterior_is_a_network() -> None:
    model = seeded(layers)
    network = posteriors.Predictive(model, dropout.of(model), draws=6, seed=4)
    draws = network.draws(INPUTS)
    assert draws.shape == (6, 70, 4)
    torch.testing.assert_close(network(INPUTS).exp(), draws.softmax(dim=2).mean(dim=0))
    assert torch.equal(network(INPUTS), network(INPUTS))
    members = ensemble.of([seeded(layers), layers().eval()])
    many = posteriors.Predictive(model, members)
    assert len(many.state_dict()) > len(model.state_dict())  # so that a fingerprint tells posteriors apart
    double = many.double()
    assert double.draws(INPUTS.double()).dtype == torch.float64
    with shapes_unchecked(), pytest.raises(OptionError, match="draw networks with sample"):
        posteriors.Predictive(model, posteriors.perturbation.fit(model))  # type: ignore[arg-type]


class Depth(nn.Module):
    """Stochastic depth as timm writes it."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The inputs, or none of them."""
        return inputs * torch.bernoulli(torch.full((len(inputs), 1), 0.7)) / 0.7 if self.training else inputs


class Noise(nn.Module):
    """Gaussian noise in training."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The inputs, with noise."""
        return inputs + 0.3 * torch.randn_like(inputs) if self.training else inputs


class SelfAttention(nn.Module):
    """Attention as transformers writes it: the mode of the layer decides on the rate."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Entries of a vector attend to each other."""
        x = inputs.unsqueeze(2)
        rate = 0.4 if self.training else 0.0
        return nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=rate).squeeze(2)


DRAWN = 120


@pytest.mark.parametrize(("layer", "dropout"), [(Depth, 0.0), (Depth, 0.2), (Noise, 0.2), (SelfAttention, 0.2)])
def test_whatever_is_random_in_training_is_random_in_draws(layer, dropout):
    """Only dropout functions were switched on: the spread was a part of what training had."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), layer(), nn.BatchNorm1d(8), nn.Dropout(dropout), nn.Linear(8, 3)).eval()
    inputs = torch.rand(40, 6)
    found = predict(posteriors.Dropout(), model, inputs, generator=torch.Generator().manual_seed(3), draws=DRAWN)
    assert not any(part.training for part in model.modules())
    model[1].train(), model[3].train()
    right = torch.stack([model(inputs) for _ in range(DRAWN)]).detach()
    torch.testing.assert_close(found.std(0).mean(), right.std(0).mean(), rtol=0.1, atol=0)
    assert torch.equal(
        found,
        predict(posteriors.Dropout(), model.eval(), inputs, generator=torch.Generator().manual_seed(3), draws=DRAWN),
    )


def test_what_training_does_beside_noise_stays_off():
    """Auxiliary outputs, statistics of its own, another answer without chance: these are no matter of dropout."""

    class Odd(nn.Module):
        def __init__(self, what: str) -> None:
            super().__init__()
            self.what, self.fc = what, nn.Linear(6, 3)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, inputs: torch.Tensor):
            logits = self.fc(nn.functional.dropout(inputs, 0.5, self.training))
            if self.training and self.what == "pair":
                return logits, logits
            if self.training and self.what == "state":
                self.seen += 1
                logits = logits + torch.rand_like(logits)
            return 2 * logits if self.training and self.what == "other" else logits

    for what in ("pair", "state", "other"):
        torch.manual_seed(0)
        model = Odd(what).eval()
        found = predict(
            posteriors.Dropout(), model, torch.ones(50, 6), generator=torch.Generator().manual_seed(3), draws=200
        )
        plain = torch.stack([model.fc(nn.functional.dropout(torch.ones(50, 6), 0.5)) for _ in range(200)])
        torch.testing.assert_close(found.std(0).mean(), plain.std(0).mean(), rtol=0.1, atol=0)
        assert model.seen == 0
