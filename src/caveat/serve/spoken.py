"""What requests and answers look like, for OpenAPI alone: they are checked where they are read."""

from typing import Any

from pydantic import Field, RootModel

from caveat.guard.stored import Task
from caveat.records.base import Part
from caveat.serve.inputs import JSON, NPY, PICTURES
from caveat.serve.protocol import INPUT, KINDS
from caveat.serve.served import MOST, Served

__all__ = ["ALIVE", "ANY", "INFER", "METRICS", "MODEL", "READY", "body", "tensors", "verdicts"]

Responses = dict[int | str, dict[str, Any]]


class Example(Part):
    """A known example that the guard keeps."""

    label: str
    """Its true class."""
    similarity: float
    """Cosine of the network's features, in [-1, 1]."""
    position: int
    """Among the guard's examples."""
    picture: str
    """A PNG as a data URL."""


class Answered(Part):
    """What the guard's answer to one input holds, whatever its task."""

    accepted: bool
    score: float | None
    p_value: float | None
    reason: str
    explanation: str


class Verdict(Answered):
    """The guard's answer to one input."""

    label: str | None
    """The predicted class; null where the guard abstains."""
    predicted: int | None
    """Whether it is accepted or not; null of an input that holds no numbers."""
    predicted_name: str | None
    confidence: float | None
    aleatoric: float | None
    epistemic: float | None
    probs: list[float | None]
    nearest: list[Example] = Field(default_factory=list[Example])
    """With `?nearest=`: the known examples that are most similar, the most similar first."""


class RegressionVerdict(Answered):
    """The guard's answer to one input, in the labels' units; null of an input that holds no numbers."""

    prediction: float | None
    lower: float | None
    upper: float | None
    aleatoric: float | None
    """A standard deviation, as the next; null where the network does not tell it."""
    epistemic: float | None


class MultilabelVerdict(Answered):
    """The guard's answer to one input."""

    labels: list[str] | None
    """Names of the labels that it has; null where the guard abstains."""
    predicted: list[str] | None
    """Whether it is accepted or not; null of an input that holds no numbers."""
    probs: list[float | None]


class About(Part):
    """What is said of the guard with every answer."""

    score: str
    threshold: float
    promise: str


class Verdicts(About):
    """Answers in the order of the inputs."""

    verdicts: list[Verdict]
    classes: list[str]


class RegressionVerdicts(About):
    """Answers in the order of the inputs."""

    verdicts: list[RegressionVerdict]
    error: float
    """Share of the accepted inputs whose label the interval misses, at most."""


class MultilabelVerdicts(About):
    """Answers in the order of the inputs."""

    verdicts: list[MultilabelVerdict]
    classes: list[str]
    error: float
    """Share of an accepted input's labels that is missed, at most on average."""
    label_threshold: float
    """A label whose probability is at least this is present."""


class Reason(Part):
    """Why a request was refused."""

    code: str
    message: str


class Failure(Part):
    """A refusal."""

    error: Reason


class ProtocolFailure(Part):
    """A refusal in the Open Inference Protocol."""

    error: str
    code: str


class Anything(RootModel[dict[str, Any]]):
    """An object of the Open Inference Protocol."""


def _refusals(model: type[Any], codes: str) -> Responses:
    return {int(code): {"model": model} for code in codes.split()}


ALIVE: Responses = {200: {"model": Anything}, **_refusals(Failure, "400 413")}
METRICS: Responses = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
    **_refusals(Failure, "400 401 413"),
}
ANSWERS: dict[Task, type[About]] = {
    "classification": Verdicts,
    "regression": RegressionVerdicts,
    "multilabel": MultilabelVerdicts,
}
ANY: Responses = {200: {"model": Anything}, **_refusals(ProtocolFailure, "400 401 413")}
READY: Responses = {200: {"model": Anything}, 503: {"model": Anything}, **_refusals(Failure, "400 413")}
MODEL: Responses = {200: {"model": Anything}, **_refusals(ProtocolFailure, "400 401 404 413")}
INFER: Responses = {200: {"model": Anything}, **_refusals(ProtocolFailure, "400 401 404 408 413 422 429 500 504")}


def verdicts(task: Task) -> Responses:
    """What `/v1/verdict` answers for a guard of this task."""
    return {200: {"model": ANSWERS[task]}, **_refusals(Failure, "400 401 408 413 415 422 429 500 504")}


def body(served: Served) -> dict[str, Any]:
    """What `/v1/verdict` takes."""
    array: dict[str, Any] = {"type": "integer" if served.whole else "number"}
    for size in reversed(served.shape):
        array = {"type": "array", "items": array, "minItems": size, "maxItems": size}
    whole = {"type": "array", "items": array, "minItems": 1}
    content: dict[str, Any] = {
        JSON: {"schema": {"type": "object", "properties": {"inputs": whole}, "required": ["inputs"]}}
    }
    binary = {"schema": {"type": "string", "format": "binary"}}
    content |= dict.fromkeys((*NPY, *(PICTURES if served.picture else ())), binary)
    if served.picture:
        picture = {"type": "object", "properties": {"file": binary["schema"]}, "required": ["file"]}
        content["multipart/form-data"] = {"schema": picture}
    asked: dict[str, Any] = {
        "name": "nearest", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": MOST},
    }  # fmt: skip
    parameters = [] if served.nearest is None else [asked]
    return {"requestBody": {"required": True, "content": content}, "parameters": parameters}


def tensors(served: Served) -> dict[str, Any]:
    """What `infer` takes."""
    part = {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"const": INPUT},
            "shape": {"type": "array", "items": {"type": "integer"}, "minItems": 1 + len(served.shape)},
            "datatype": {"enum": list(KINDS)},
            "data": {"type": "array"},
        },
    }
    whole = {
        "type": "object",
        "required": ["inputs"],
        "properties": {"inputs": {"type": "array", "items": part, "minItems": 1, "maxItems": 1}},
    }
    return {"requestBody": {"required": True, "content": {JSON: {"schema": whole}}}}
