"""Batches, labels and outputs of every form give the record of the plain form, number for number, or one sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from caveat.audits.audit import audit
from caveat.batches import Several, pair, viewed
from caveat.errors import DataError, ModelError, OptionError
from caveat.guard.guard import Guard
from caveat.heads import before
from caveat.inputs import fingerprints
from caveat.models import adapted, title
from caveat.observations import observe
from caveat.scoring import catalog
from caveat.scoring.plan import plan
from tests.conftest import shapes_unchecked


def net(classes: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, classes)).double().eval()


def samples(classes: int = 3, count: int = 240) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.rand(count, 6, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(classes, (count,), generator=generator)


class Named:
    """Batches as a list, cut by 64; the same samples in each form."""

    def __init__(self, change: Callable[[Tensor, Tensor], Any]) -> None:
        inputs, labels = samples()
        self.batches = [change(x, y) for x, y in zip(inputs.split(64), labels.split(64), strict=True)]


FORMS: dict[str, Callable[[], Any]] = {
    "lists": lambda: Named(lambda x, y: [x, y]).batches,
    "more after the labels": lambda: Named(lambda x, y: (x, y, {"file": "a.png"})).batches,
    "positions after the labels": lambda: Named(lambda x, y: (x, y, torch.arange(len(y)))).batches,
    "numpy": lambda: Named(lambda x, y: (x.numpy(), y.numpy())).batches,
    "a dictionary": lambda: Named(lambda x, y: {"pixel_values": x, "label": y}).batches,
    "a dictionary with texts": lambda: Named(lambda x, y: {"x": x, "labels": y, "text": ["a"] * len(y)}).batches,
    "one column of labels": lambda: Named(lambda x, y: (x, y[:, None])).batches,
    "small whole numbers": lambda: Named(lambda x, y: (x, y.to(torch.uint8))).batches,
    "arrays": lambda: tuple(part.numpy() for part in samples()),
    "tensors": samples,
    "a Dataset": lambda: TensorDataset(*samples()),
    "a DataLoader": lambda: DataLoader(TensorDataset(*samples()), batch_size=50),
}


@pytest.fixture(scope="module")
def expected() -> Any:
    return figures(audit(net(), Named(lambda x, y: (x, y)).batches, scores=["msp", "energy", "mahalanobis"]))


def figures(record: Any) -> Any:
    """What a record holds that does not tell of time or of the set's kind."""
    return record.model_dump(
        exclude={"created", "seconds", "sets", "scores", "parameters", "model", "head", "observations"}
    )


@pytest.mark.parametrize("form", FORMS)
def test_batches_of_every_form_give_the_same_record(form: str, expected: Any) -> None:
    assert figures(audit(net(), FORMS[form](), scores=["msp", "energy", "mahalanobis"])) == expected


def test_unpack_brings_any_batch_to_inputs_and_labels(expected: Any) -> None:
    batches = Named(lambda x, y: ("id", {"deep": [x], "truth": y})).batches
    found = audit(
        net(), batches, scores=["msp", "energy", "mahalanobis"], unpack=lambda b: (b[1]["deep"][0], b[1]["truth"])
    )
    assert figures(found) == expected


def test_inputs_alone_are_a_set_without_labels() -> None:
    inputs, labels = samples()
    batches = list(zip(inputs.split(64), labels.split(64), strict=True))
    for ood in (inputs.split(64), [[part] for part in inputs.split(64)], inputs.numpy()):
        record = audit(net(), batches, ood={"other": ood}, scores=["msp"])
        assert record.detections[0].auroc.value == pytest.approx(0.5, abs=0.1)
    with pytest.raises(DataError, match="test: its samples have no labels"):
        audit(net(), inputs.split(64), scores=["msp"])


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (("a", "b"), "expected inputs as tensors or arrays"),
        ((torch.rand(4, 2), torch.rand(4, 2), torch.rand(4, 2)), "none of which is whole numbers"),
        ((torch.rand(4, 2), ["cat"] * 4), "expected labels as a tensor of whole numbers, got list of str"),
        ({"labels": torch.zeros(4).long()}, "expected inputs as tensors"),
        ({"a": torch.rand(4, 2), "b": torch.rand(5, 2), "y": torch.zeros(4).long()}, "of one length"),
    ],
)
def test_what_has_no_form_is_one_sentence(batch: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"^test: .*{message}"):
        pair(batch, "test")
    assert viewed([batch], "test") is not None


class TwoInputs(nn.Module):
    """A picture and a table, say."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = net()

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.inner(torch.cat([left, right], dim=1))


@pytest.mark.parametrize(
    "form",
    [lambda x, y: (x[:, :2], x[:, 2:], y), lambda x, y: ((x[:, :2], x[:, 2:]), y),
     lambda x, y: {"right": x[:, 2:], "left": x[:, :2], "y": y}],
    ids=["three parts", "a pair of inputs", "by name"],
)  # fmt: skip
def test_networks_of_two_inputs(form: Any, expected: Any, tmp_path: Path) -> None:
    batches = Named(form).batches
    assert figures(audit(TwoInputs().eval(), batches, scores=["msp", "energy", "mahalanobis"])) == expected
    guard = Guard.fit(TwoInputs().eval(), batches, score="energy")
    plain = Guard.fit(net(), Named(lambda x, y: (x, y)).batches, score="energy")
    inputs = pair(batches[0], "test")[0]
    assert torch.equal(guard(inputs).score, plain(samples()[0][:64]).score)
    guard.save(tmp_path / "g")
    assert torch.equal(Guard.load(tmp_path / "g", TwoInputs().eval())(inputs).score, guard(inputs).score)


def test_a_model_that_does_not_take_a_batch_says_which_names_it_takes() -> None:
    batches = Named(lambda x, y: {"left": x[:, :2], "middle": x[:, 2:], "y": y}).batches
    with pytest.raises(DataError, match=r"hold left, middle, but the model's forward takes left, right"):
        audit(TwoInputs().eval(), batches, scores=["msp"])


class Wrapped(nn.Module):
    def __init__(self, give: Callable[[Tensor], Any], inner: nn.Module | None = None) -> None:
        super().__init__()
        self.inner, self.give = inner or net(), give

    def forward(self, inputs: Tensor) -> Any:
        return self.give(self.inner(inputs))


OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
    "a dictionary": lambda z: {"loss": None, "logits": z, "hidden": torch.zeros(len(z), 9)},
    "a tuple": lambda z: (z, torch.zeros(len(z), 4, 7)),
    "a tuple, logits last": lambda z: (torch.zeros(3), z),
    "a list": lambda z: [z],
}


@pytest.mark.parametrize("form", OUTPUTS)
def test_logits_are_found_among_other_outputs(form: str, expected: Any, tmp_path: Path) -> None:
    model = Wrapped(OUTPUTS[form])
    batches = Named(lambda x, y: (x, y)).batches
    assert figures(audit(model.eval(), batches, scores=["msp", "energy", "mahalanobis"])) == expected
    guard = Guard.fit(model.eval(), batches, score="mahalanobis")
    guard.save(tmp_path / "g")
    inputs = samples()[0][:9]
    assert torch.equal(Guard.load(tmp_path / "g", Wrapped(OUTPUTS[form])).forward(inputs).score, guard(inputs).score)


@pytest.mark.parametrize(
    "give", [lambda z: (z, z), lambda z: {"a": z, "b": z}, lambda z: (torch.zeros(3),), lambda z: "text"]
)
def test_outputs_of_which_it_is_open_are_refused(give: Any) -> None:
    with pytest.raises(ModelError, match="whose forward returns the logits alone"):
        audit(Wrapped(give).eval(), Named(lambda x, y: (x, y)).batches, scores=["msp"])


def one_and_two() -> tuple[nn.Sequential, nn.Sequential]:
    """A network of one logit z, and the one of two classes with the logits (0, z)."""
    one, two = net(1), net(2)
    with torch.no_grad():
        two[2].weight.copy_(torch.cat([torch.zeros_like(one[2].weight), one[2].weight]))
        two[2].bias.copy_(torch.cat([torch.zeros_like(one[2].bias), one[2].bias]))
    two[0].load_state_dict(one[0].state_dict())
    return one, two


@pytest.mark.parametrize(("labels", "squeezed"), [("long", False), ("double", True), ("bool", False), ("column", True)])
def test_one_logit_is_two_classes(labels: str, squeezed: bool) -> None:
    """Every number of the record, scores from features, gradients and hidden layers too, to 1e-12 in float64."""
    one, two = one_and_two()
    inputs, truth = samples(2)
    form = {"long": truth, "double": truth.double(), "bool": truth.bool(), "column": truth.double()[:, None]}[labels]
    model = nn.Sequential(one, nn.Flatten(0)) if squeezed else one
    # not those from gradients: a head of one row and one of two are not the same weights
    more = ["mahalanobis_layers", "nac", "odin"] if labels == "long" and not squeezed else []
    names = [*catalog.resolve(None), *more]
    batches = [list(zip(inputs.split(64), part.split(64), strict=True)) for part in (form, truth)]
    ood = {"far": [(3 * inputs, truth)]}
    ours, theirs = (
        figures(audit(m.eval(), b, ood=ood, scores=names)) for m, b in zip((model, two), batches, strict=True)
    )
    near(ours, theirs, "")


def near(one: Any, other: Any, where: str) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            near(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for place, (a, b) in enumerate(zip(one, other, strict=True)):
            near(a, b, f"{where}[{place}]")
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-12, abs=1e-12, nan_ok=True), where
    else:
        assert one == other, where


def test_a_probability_where_a_logit_is_meant_is_refused() -> None:
    inputs, labels = samples(2)
    with pytest.raises(ModelError, match="a probability, after a sigmoid"):
        audit(nn.Sequential(net(1), nn.Sigmoid()).eval(), [(inputs, labels)], scores=["msp"])


def test_gradients_of_one_logit_are_no_zeros() -> None:
    one, two = one_and_two()
    inputs, labels = samples(2)
    found = []
    for model in (one, two):
        made = adapted(model, inputs)
        planned = plan(["grad_l2"], made, inputs, options=lambda: (inputs, labels))
        found.append(observe(made, [(inputs, labels)], probes=planned.probes).probed["gradients"])
    torch.testing.assert_close(found[0][:, :4], found[1][:, :4], rtol=1e-9, atol=1e-12)
    assert (found[0].abs().max(dim=0).values > 0).any()


class Tokens(nn.Module):
    """Mean of embeddings under a mask."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(20, 8), nn.Linear(8, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        weight = attention_mask.float()[..., None]
        return {"logits": self.head((self.embed(input_ids) * weight).sum(1) / weight.sum(1))}


def test_sequences_of_another_length_in_every_batch() -> None:
    """Tokens stay whole numbers; padding changes neither answers nor fingerprints."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 20, (120, 7), generator=generator)
    labels = torch.randint(3, (120,), generator=generator)

    def batch(part: slice, more: int) -> dict[str, Tensor]:
        padded = nn.functional.pad(ids[part], (0, more))
        return {"input_ids": padded, "attention_mask": (padded > 0).long(), "labels": labels[part]}

    plain = [batch(slice(start, start + 40), 0) for start in (0, 40, 80)]
    ragged = [batch(slice(start, start + 40), more) for start, more in ((0, 0), (40, 5), (80, 2))]
    model = Tokens().eval()
    one, two = (observe(model, batches) for batches in (plain, ragged))
    torch.testing.assert_close(one.logits, two.logits)
    assert torch.equal(one.fingerprints, two.fingerprints)
    record = audit(model, ragged, ood={"noise": [{k: v for k, v in batch(slice(0, 40), 1).items() if k != "labels"}]})
    assert {score.name for score in record.scores} >= {"msp", "energy", "knn", "mahalanobis"}
    guard = Guard.fit(model, ragged, score="msp")
    asked = {key: part for key, part in ragged[1].items() if key != "labels"}
    torch.testing.assert_close(guard(asked).confidence, guard(pair(plain[1], "x")[0]).confidence)


def test_swapped_parts_are_another_input() -> None:
    one, two = torch.rand(5, 3), torch.rand(5, 3)
    assert not torch.equal(fingerprints(Several((one, two))), fingerprints(Several((two, one))))
    assert np.array_equal(fingerprints(Several((one, two))), fingerprints(Several((one, two)).clone()))


class NoLinearEnd(nn.Module):
    """Distances to centres: no layer makes the logits as a linear map."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(6, 16), nn.ReLU())
        self.end = nn.Identity()
        self.centres = nn.Parameter(torch.rand(3, 16))

    def forward(self, inputs: Tensor) -> Tensor:
        return -torch.cdist(self.end(self.body(inputs)), self.centres).square()


def test_features_of_a_named_layer_need_no_head(tmp_path: Path) -> None:
    """Scores of features alone are had, equal to those on arrays; those that need the head's weights say so."""
    model, batches = NoLinearEnd().double().eval(), Named(lambda x, y: (x, y)).batches
    plain = audit(model, batches)
    assert not {score.name for score in plain.scores} & {"knn", "mahalanobis", "vim"}
    record = audit(model, batches, ood={"far": [3 * samples()[0]]}, features="end", folder=tmp_path / "a")
    names = {score.name for score in record.scores}
    assert {"knn", "mahalanobis", "gaussian_mixture", "msp", "energy"} <= names
    assert not {"vim", "dice", "react"} & names
    assert any("needs the weights of the last layer, and features are taken before 'end'" in n for n in record.notes)
    guard = Guard.fit(model, batches, features="end", score="knn")
    guard.save(tmp_path / "g")
    inputs = samples()[0][:50]
    again = Guard.load(tmp_path / "g", NoLinearEnd().double())
    assert torch.equal(again(inputs).score, guard(inputs).score)
    assert Guard.fit(model, batches, features="end").decision.score.name not in {"vim", "dice"}
    with pytest.raises(OptionError, match=r"vim can't be had\. It needs the weights"):
        audit(model, batches, features="end", scores=["vim"])
    with pytest.raises(ModelError, match="did you mean 'end'"):
        audit(model, batches, features="edn")
    with pytest.raises(OptionError, match="expected it or head, got both"):
        audit(model, batches, features="end", head="body.0")


def test_tokens_and_maps_before_a_named_layer_are_averaged() -> None:
    maps = torch.rand(240, 4, 3, 3, dtype=torch.float64)
    model = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(36, 3), nn.Softplus()).double().eval()
    seen = observe(model, [(maps, samples()[1])], head=before(model, maps[:4], "0"))
    torch.testing.assert_close(seen.features, maps.mean(dim=(2, 3)))
    model = nn.Sequential(nn.Flatten(2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3), nn.Softplus()).double().eval()
    seen = observe(model, [(maps, samples()[1])], head=before(model, maps[:4], "1"))
    torch.testing.assert_close(seen.features, maps.flatten(2).mean(dim=1))


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: Renamed(model)], ids=["DataParallel", "compiled"])
def test_a_guard_of_a_wrapped_network_loads_around_the_plain_one_and_back(wrap: Any, tmp_path: Path) -> None:
    """Their names differ by what the wrapper puts into them: it was refused."""
    batches, inputs = Named(lambda x, y: (x, y)).batches, samples()[0][:20]
    for number, (one, other) in enumerate(((wrap(net()), net()), (net(), wrap(net())))):
        guard = Guard.fit(one.eval(), batches, score="mahalanobis")
        guard.save(tmp_path / str(number))
        assert torch.equal(Guard.load(tmp_path / str(number), other)(inputs).score, guard(inputs).score)


class Renamed(nn.Module):
    """As torch.compile names what it wraps."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._orig_mod = model

    def forward(self, inputs: Tensor) -> Tensor:
        return self._orig_mod(inputs)


def test_arrays_whose_lengths_or_labels_do_not_fit_are_told_as_arrays() -> None:
    inputs, labels = samples()
    with pytest.raises(DataError, match="240 inputs and 239 labels"):
        audit(net(), (inputs, labels[:-1]), scores=["msp"])
    with pytest.raises(DataError, match="of one-hot labels take argmax"):
        audit(net(), (inputs, torch.eye(3)[labels]), scores=["msp"])
    with pytest.raises(DataError, match=r"labels\.long\(\) if they are whole"):
        audit(net(), (inputs, labels + 0.0), scores=["msp"])


@pytest.mark.parametrize(
    "form", [lambda x, y: ((x[:, :2], x[:, 2:]), y), lambda x, y: {"left": x[:, :2], "right": x[:, 2:], "y": y}]
)
def test_arrays_of_two_inputs(form: Any, expected: Any) -> None:
    assert figures(audit(TwoInputs().eval(), form(*samples()), scores=["msp", "energy", "mahalanobis"])) == expected


def test_what_is_no_module_is_told() -> None:
    with (
        shapes_unchecked(),
        pytest.raises(ModelError, match=r"expected an nn\.Module, got function: put what it does into a module"),
    ):
        audit(lambda inputs: net()(inputs), samples(), scores=["msp"])  # pyright: ignore[reportArgumentType]


def test_no_input_is_no_answer() -> None:
    guard = Guard.fit(net(), samples(), score="msp")
    assert len(guard(samples()[0][:0]).accepted) == 0


def test_reports_name_the_network_within_its_wrappers() -> None:
    assert title(nn.DataParallel(Renamed(TwoInputs()))) == "TwoInputs"
