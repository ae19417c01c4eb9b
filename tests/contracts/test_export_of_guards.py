"""Guards of regression and multi-label networks of every kind as ONNX: the numbers of PyTorch, the same verdicts."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from caveat import posteriors
from caveat.guard import onnx_file
from caveat.guard.graph import ATTRIBUTES, MultilabelGraph, RegressionGraph
from caveat.guard.multilabel import MultilabelGuard
from caveat.guard.regression import RegressionGuard
from caveat.models.standardized import standardized
from caveat.scores import FROM_SIGMOIDS
from caveat.scores.distribution import FORMS, UNCERTAINTIES
from tests.conftest import shapes_unchecked

onnxruntime = pytest.importorskip("onnxruntime")

COLUMNS = {
    "point": 1, "gaussian": 2, "gaussian_variance": 2, "gaussian_std": 2, "mixture": 6, "evidential": 4, "quantiles": 3,
    "samples": 5,
}  # fmt: skip
LABELS = 4
CLOSE = 1e-5


class Net(nn.Module):
    """A small network whose outputs mean what a form says."""

    def __init__(self, form: str, columns: int, seed: int):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, columns))
        self.form = form

    def forward(self, inputs: Tensor) -> Tensor:
        made = self.net(inputs)
        if self.form in ("gaussian_variance", "gaussian_std"):
            return torch.stack([made[:, 0], made[:, 1].exp()], dim=1)
        if self.form == "quantiles":
            return made + torch.tensor([-2.0, 0.0, 2.0])
        return made


def network(form: str, columns: int, *, many: bool) -> nn.Module:
    nets = [Net(form, columns, seed).eval() for seed in (0, 1, 2)]
    return posteriors.Predictive(nets[0], posteriors.ensemble.of(nets)).eval() if many else nets[0]


def inputs(count: int, seed: int) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))


ASKED = inputs(500, 2)
ASKED[3, 1], ASKED[4], ASKED[5] = torch.nan, 1e4, torch.inf


def regressor(form: str, score: str, *, many: bool, limited: bool = False) -> RegressionGuard:
    model, x = network(form, COLUMNS[form], many=many), inputs(400, 1)
    y = x.sum(dim=1) + torch.randn(400, generator=torch.Generator().manual_seed(7))
    if limited:
        model = standardized(model, x, y).eval()
    return RegressionGuard.fit(model, (x, y), outputs=form, score=score, keep=0.8, error=0.2)


def labeller(score: str, *, many: bool) -> MultilabelGuard:
    model, x = network("", LABELS, many=many), inputs(400, 1)
    y = (torch.rand(400, LABELS, generator=torch.Generator().manual_seed(7)) < torch.sigmoid(model(x))).long()
    y[:, 0] |= (y.sum(dim=1) == 0).long()
    return MultilabelGuard.fit(model, (x, y), score=score, keep=0.8, error=0.2)


KINDS = {
    f"{form}, {'several' if many else 'one'}": (form, score, many)
    for form, score, many in (
        ("point", "epistemic_variance", True),
        ("gaussian", "total_variance", False),
        ("gaussian", "total_variance", True),
        ("gaussian_variance", "aleatoric_variance", False),
        ("gaussian_std", "interval_width", False),
        ("mixture", "total_variance", False),
        ("evidential", "epistemic_variance", False),
        ("quantiles", "interval_width", False),
        ("quantiles", "total_variance", True),
        ("samples", "total_variance", False),
        ("samples", "aleatoric_variance", True),
    )
}
"""Every form, of one network and of several wherever that is another formula; every score."""
SIGMOIDS = [(score, many) for score in FROM_SIGMOIDS for many in (False, True) if many or score != "label_disagreement"]


@cache
def guards() -> dict[str, RegressionGuard | MultilabelGuard]:
    made: dict[str, RegressionGuard | MultilabelGuard] = {
        name: regressor(form, score, many=many) for name, (form, score, many) in KINDS.items()
    }
    made["standardized"] = regressor("gaussian", "total_variance", many=False, limited=True)
    return made | {f"{score}, {many}": labeller(score, many=many) for score, many in SIGMOIDS}


TOGETHER = 3
"""Guards in one export: its time grows with the square of their number."""


class All(nn.Module):
    """Some of them, so that one export does: what a network gives, and the interval, do not depend on the score."""

    def __init__(self, graphs: list[RegressionGraph | MultilabelGraph]):
        super().__init__()
        self.graphs = nn.ModuleList(graphs)

    def forward(self, given: Tensor) -> tuple[Tensor, ...]:
        return tuple(part for graph in self.graphs for part in graph(given, graph.threshold))


@cache
def answers() -> dict[str, dict[str, Tensor]]:
    """By name of the guard, what onnxruntime gives for `ASKED`."""
    names = [*guards()]
    parts = [names[start : start + TOGETHER] for start in range(0, len(names), TOGETHER)]
    return {name: found for part in parts for name, found in _answers(part).items()}


def _answers(names: list[str]) -> dict[str, dict[str, Tensor]]:
    graphs: dict[str, RegressionGraph | MultilabelGraph] = {}
    for name in names:
        guard = guards()[name]
        graph = (RegressionGraph if isinstance(guard, RegressionGuard) else MultilabelGraph)(
            guard.model, guard.decision
        )  # pyright: ignore[reportArgumentType]
        graph.threshold = torch.tensor(guard.decision.promise.threshold, dtype=torch.float64)
        if hasattr(graph.model, "together"):
            graph.model.together = False
        graphs[name] = graph
    outputs = [f"{place}.{output}" for place, graph in enumerate(graphs.values()) for output in graph.outputs]
    with shapes_unchecked():
        proto = onnx_file.translated(All(list(graphs.values())), {"inputs": ASKED[:3]}, outputs)
    run = onnx_file.session(proto.SerializeToString())
    whole = dict(zip(outputs, run({"inputs": ASKED.numpy()}), strict=True))
    return {
        name: {output: torch.from_numpy(whole[f"{place}.{output}"]) for output in graph.outputs}
        for place, (name, graph) in enumerate(graphs.items())
    }


@pytest.mark.parametrize("name", [*KINDS, "standardized", *(f"{score}, {many}" for score, many in SIGMOIDS)])
def test_a_graph_answers_as_the_guard(name: str) -> None:
    guard, found = guards()[name], answers()[name]
    verdict = guard(ASKED)
    assert 0.6 * 500 < int(verdict.accepted.sum()) < 0.95 * 500
    for output, part in found.items():
        wanted = getattr(verdict, ATTRIBUTES.get(output, output))
        if output == "p_value":  # steps: a last digit of a score that is one of the reference may take one
            apart = (part - wanted).abs() * (1 + len(guard.decision.reference))
            assert float(apart.nan_to_num(0).max()) < 1.01
            assert int((apart > 0.5).sum()) <= 5
        elif wanted.is_floating_point():
            assert wanted[6:].std() > 0
            scale = max(1.0, float(wanted.nan_to_num(0).abs().max()))
            torch.testing.assert_close(part, wanted, rtol=CLOSE, atol=CLOSE * scale, equal_nan=True)
        else:
            assert torch.equal(part, wanted)
    told = {"aleatoric", "epistemic"} & set(vars(verdict))
    assert {one for one in told if getattr(verdict, one) is not None} == told & set(found)
    assert found["score"].isnan().nonzero().flatten().tolist() == [3, 4, 5]


def test_every_form_and_score_is_among_them() -> None:
    assert {form for form, _, _ in KINDS.values()} == set(FORMS)
    assert {score for _, score, _ in KINDS.values()} == set(UNCERTAINTIES)


def test_what_means_nothing_abstains_alone() -> None:
    """A variance that is negative, in a graph and in Python: the others are answered."""
    guard = regressor("gaussian_variance", "total_variance", many=False)

    class Negative(nn.Module):
        def forward(self, given: Tensor) -> Tensor:
            return torch.stack([given[:, 0], given[:, 1]], dim=1)

    other = RegressionGuard(Negative().eval(), replace(guard.decision, largest=None))
    given = torch.tensor([[1.0, 0.1, 0], [1.0, -0.1, 0], [1.0, 0.0, 0]])
    assert other(given).reason.tolist() == [0, 2, 2]
    threshold = torch.tensor(guard.decision.promise.threshold, dtype=torch.float64)
    parts = dict(
        zip((graph := RegressionGraph(other.model, other.decision)).outputs, graph(given, threshold), strict=True)
    )
    assert parts["accepted"].tolist() == [True, False, False]
