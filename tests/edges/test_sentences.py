"""What can't be had of a network is told in one sentence of ours, with the true reason: no raw error of torch."""

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import caveat
from caveat import attacks, data, heads, models, objectives, posteriors, rays, scores, training
from caveat.cli.main import app
from caveat.errors import DataError, ModelError, OptionError
from caveat.observations import observe
from caveat.training import recipe
from tests.conftest import shapes_unchecked

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(80, 12, generator=GENERATOR)
Y = torch.arange(80) % 4
SET = [(X, Y)]


def net(*after: nn.Module) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4), *after).eval()


class ByKeyword(nn.Module):
    """A network that calls its head by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.net[2](input=self.net[:2](inputs))


def test_a_head_called_by_keyword_is_found():
    model = ByKeyword().eval()
    seen = observe(model, SET)
    assert heads.find(model, X[:8]).name == "net.2"
    torch.testing.assert_close(seen.features, model.net[:2](X).detach())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of scripting itself
def test_a_scripted_network_has_scores_from_logits_alone():
    scripted = torch.jit.script(net())
    record = caveat.audit(scripted, SET, replicas=2)
    assert {score.family for score in record.scores} == {"logits"}
    assert any("TorchScript" in note and "knn" in note for note in record.notes)
    for name in ("knn", "mahalanobis_layers"):
        with pytest.raises(ModelError, match="scripted or traced"):
            caveat.audit(scripted, SET, scores=[name], replicas=2)


def test_what_follows_a_named_head_is_told():
    with pytest.raises(ModelError, match=r"changed before it leaves the network \(a log_softmax"):
        observe(net(nn.LogSoftmax(1)), SET, head="2")


def test_a_segmentation_network_is_sent_to_its_own_audit():
    pictures, maps = torch.rand(20, 3, 8, 8, generator=GENERATOR), torch.zeros(20, 8, 8, dtype=torch.long)
    with pytest.raises(DataError, match="audit_dense"):
        caveat.audit(nn.Conv2d(3, 4, 3, padding=1).eval(), [(pictures, maps)], scores=["msp"], replicas=2)


def laplace(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor = Y) -> posteriors.laplace.Laplace:
    seen, head = observe(model, [(inputs, labels)]), heads.find(model, inputs[:8])
    return posteriors.laplace.fit(seen.features, seen.labels, head.head, layer=head.name)


def test_laplace_of_a_network_that_is_one_layer():
    model = nn.Linear(12, 4).eval()
    drawn = posteriors.sample(laplace(model, X), model, draws=3, generator=GENERATOR)
    logits = posteriors.predict(drawn, model, X, draws=3, generator=GENERATOR)
    assert logits.shape == (3, 80, 4)
    assert logits.std(dim=0).min() > 0


def test_laplace_says_what_it_lacks():
    bare = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4, bias=False)).eval()
    computed = net()
    nn.utils.parametrizations.weight_norm(computed[2]).eval()
    one = models.Adapted(nn.Linear(12, 1).eval(), single=True)
    for model, told in (
        (bare, r"has no bias: fit it without one, as with .*bias=False"),
        (computed, r"'2\.weight', which the model computes from other weights"),
        (one, "gives one logit for both"),
    ):
        with pytest.raises(OptionError, match=told):
            posteriors.sample(laplace(model, X, Y % 2), model, draws=2, generator=GENERATOR)
    with pytest.raises(DataError, match=r"labels: expected labels in \[0, 1\]"):
        laplace(one, X)


class Wrapped(nn.Module):
    """Logits in something else than a tensor."""

    def __init__(self, wrap) -> None:
        super().__init__()
        self.net, self.wrap = net(), wrap

    def forward(self, inputs: torch.Tensor):
        """Logits, wrapped."""
        return self.wrap(self.net(inputs))


@pytest.mark.parametrize("wrap", [lambda z: {"logits": z}, lambda z: (z, z), lambda z: z[:, :1]])
def test_training_on_outputs_that_are_no_logits(wrap):
    model = Wrapped(wrap)
    with pytest.raises(ModelError, match=r"step 1 of epoch 1 .*expected logits \(n, c\), a tensor"):
        training.fit(
            model, SET, objectives.OBJECTIVES["cross_entropy"], optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
            epochs=1, generator=GENERATOR, progress=False,
        )  # fmt: skip


@pytest.mark.parametrize("wrap", [lambda z: {"logits": z}, lambda z: (z, z)], ids=["dict", "tuple"])
def test_posteriors_of_outputs_that_are_no_logits(wrap):
    """Torch's own error came, out of the comparison of two draws."""
    model = Wrapped(wrap).eval()
    for kind in (posteriors.ensemble.of([model, model]), posteriors.Dropout(("net.0",), 0.5)):
        with pytest.raises(ModelError, match=r"expected a tensor of logits \(n, c\), got (dict|tuple); wrap the model"):
            posteriors.predict(kind, model, X, generator=GENERATOR)


def test_one_logit_is_no_classifier():
    """Every gradient of its softmax is 0, and a ray has no other class: one was silent, one torch's own error."""
    model = nn.Linear(12, 1).eval()
    for ask in (lambda: scores.gradients.statistics(model, X), lambda: rays.along(model, X[:3])):
        with pytest.raises(ModelError, match="at least two classes"):
            ask()


def test_the_noise_of_acet_is_made_of_pictures():
    with (
        shapes_unchecked(),
        pytest.raises(OptionError, match=r"pictures \(n, k, h, w\), got inputs of shape \(80, 12\)"),
    ):
        data.outliers.permuted_then_blurred(X, GENERATOR)


def test_half_precision_and_lazy_layers():
    with pytest.raises(OptionError, match=r"single or double precision, got torch\.float16"):
        attacks.l1.penalised(net().half(), X[:8].half(), Y[:8], steps=5)
    lazy = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(4)).eval()
    for ask in (
        lambda: scores.gradients.statistics(lazy, X),
        lambda: posteriors.swag.start(lazy),
        lambda: posteriors.ensemble.of([lazy, lazy]),
    ):
        with pytest.raises(ModelError, match="has no shape yet"):
            ask()


@pytest.mark.parametrize("text", ["net(**{'classes': 9})", "net(classes=9, classes=10)", "net(9)", "net(classes=x)"])
def test_no_argument_of_a_text_is_dropped(text):
    with pytest.raises(OptionError, match=r"--model: expected callable or callable\(key=literal\), got .net"):
        recipe.named_call(text, "--model")


@pytest.mark.parametrize("command", ["audit", "audit-pixels", "demo", "train", "study", "guard fit", "guard run"])
def test_a_seed_is_one_that_torch_takes(command):
    done = CliRunner().invoke(app, [*command.split(), "--seed", str(2**63)])
    assert done.exit_code == 2
    assert "9223372036854775807" in done.output
