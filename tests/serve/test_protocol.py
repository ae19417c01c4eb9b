"""Clients of the Open Inference Protocol get the outputs of the exported graph, as JSON and as bytes."""

import json

import numpy as np
import torch
from starlette.testclient import TestClient

from caveat import Guard
from caveat.guard.graph import ATTRIBUTES
from caveat.guard.portable import OUTPUTS
from caveat.serve.protocol import BYTES
from tests.serve.conftest import known


def test_what_there_is(client: TestClient) -> None:
    assert client.get("/v2").json()["name"] == "caveat"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/guard", "/v2/models/guard/versions/1"):
        about = client.get(path).json()
        assert about["inputs"] == [{"name": "inputs", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
        assert [one["name"] for one in about["outputs"]] == list(OUTPUTS["classification"])
        assert client.get(f"{path}/ready").json() == {"name": "guard", "ready": True}
    assert client.get("/v2/models/guard/versions/2").status_code == 404


def check(found: dict[str, np.ndarray], guard: Guard, inputs: torch.Tensor) -> None:
    verdict = guard(inputs)
    for name, values in found.items():
        wanted = getattr(verdict, ATTRIBUTES.get(name, name)).numpy()
        np.testing.assert_allclose(np.asarray(values, dtype=wanted.dtype).reshape(wanted.shape), wanted, 1e-4, 1e-6)


def test_json_in_and_out(client: TestClient, guard: Guard) -> None:
    inputs = known(5, seed=9)[0]
    inputs[3] = torch.nan
    for data in (inputs.flatten().tolist(), inputs.tolist()):  # flat, or nested as some clients send it
        part = {"name": "inputs", "shape": list(inputs.shape), "datatype": "FP32", "data": data}
        body = json.dumps({"id": "7", "inputs": [part]})
        answer = client.post("/v2/models/guard/infer", content=body, headers={"content-type": "application/json"})
        told = answer.json()
        assert (told["id"], told["model_name"], told["model_version"]) == ("7", "guard", "1")
        found = {one["name"]: np.array(one["data"], dtype=object) for one in told["outputs"]}
        assert set(found) == set(OUTPUTS["classification"])
        assert found["score"].tolist()[3] is None
        check(found, guard, inputs)
    body = json.dumps({"inputs": [part], "outputs": [{"name": "accepted"}]})
    told = client.post("/v2/models/guard/versions/1/infer", content=body).json()
    assert [one["name"] for one in told["outputs"]] == ["accepted"]


def test_bytes_in_and_out(client: TestClient, guard: Guard) -> None:
    inputs = known(6, seed=9)[0]
    raw = inputs.numpy().tobytes()
    part = {"name": "inputs", "shape": list(inputs.shape), "datatype": "FP32"}
    part["parameters"] = {"binary_data_size": len(raw)}
    names = ["label", "score", "accepted", "probabilities", "predicted"]
    wanted = [{"name": name, "parameters": {"binary_data": name != "predicted"}} for name in names]
    text = json.dumps({"inputs": [part], "outputs": wanted}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    answer = client.post("/v2/models/guard/infer", content=text + raw, headers=headers)
    length = int(answer.headers["inference-header-content-length"])
    told, rest, found = json.loads(answer.content[:length]), answer.content[length:], {}
    for one in told["outputs"]:
        size = one.get("parameters", {}).get("binary_data_size")
        found[one["name"]] = one["data"] if size is None else np.frombuffer(rest[:size], BYTES[one["datatype"]])
        rest = rest[size or 0 :]
    assert rest == b""
    assert list(found) == names
    check(found, guard, inputs)


def test_what_openapi_says_holds(client: TestClient) -> None:
    told = client.get("/openapi.json").json()
    assert set(told["paths"]["/v1/verdict"]["post"]["requestBody"]["content"]) == {
        "application/json", "application/x-npy", "application/npy", "application/octet-stream", "image/png",
        "image/jpeg", "image/webp", "multipart/form-data",
    }  # fmt: skip
    fields = set(told["components"]["schemas"]["Verdict"]["properties"])
    answer = client.post("/v1/verdict?nearest=1", json={"inputs": known(1)[0].tolist()}).json()
    assert set(answer["verdicts"][0]) == fields
    assert set(answer) == set(told["components"]["schemas"]["Verdicts"]["properties"])
