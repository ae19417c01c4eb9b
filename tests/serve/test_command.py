"""The command: what it serves, and that it ends only when all it has accepted is answered."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from caveat import Guard
from caveat.cli.guard.serve import _served, _token
from caveat.errors import CaveatError, DataError
from caveat.guard import onnx_guard
from caveat.guard.graph import Graph
from caveat.guard.portable import OUTPUTS
from caveat.serve.app import application
from caveat.serve.inputs import NPY
from caveat.serve.running import listening
from tests.serve.conftest import known, npy


def test_a_stop_answers_what_was_accepted(folder: Path, guard: Guard, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-long-secret\n")
    line = [
        sys.executable, "-m", "caveat", "guard", "serve", "guard", "--model", "served_nets:slow", "--port", "0",
        "--batch", "1", "--monitor", str(tmp_path / "monitor"), "--token-file", str(tmp_path / "token"),
    ]  # fmt: skip
    with subprocess.Popen(
        line, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
        assert found is not None, process.communicate()
        base, headers = f"http://127.0.0.1:{found[1]}", {"authorization": "Bearer a-long-secret"}
        inputs = known(10, seed=9)[0]
        answers: dict[int, httpx.Response] = {}

        def ask(row: int) -> None:
            body = {"inputs": inputs[row : row + 1].tolist()}
            answers[row] = httpx.post(f"{base}/v1/verdict", json=body, headers=headers, timeout=30)

        with httpx.Client(transport=httpx.HTTPTransport(retries=20)) as client:
            while client.get(f"{base}/readyz").status_code != 200:
                time.sleep(0.1)
            threads = [threading.Thread(target=ask, args=(row,)) for row in range(10)]
            for thread in threads:
                thread.start()
            for _ in range(100):  # until most of them wait
                text = client.get(f"{base}/metrics", headers=headers).text
                if float(re.findall(r"^caveat_queue (\S+)", text, flags=re.MULTILINE)[0]) >= 8:
                    break
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        out, err = process.communicate(timeout=30)
    assert [answers[row].status_code for row in range(10)] == [200] * 10
    accepted = [answers[row].json()["verdicts"][0]["accepted"] for row in range(10)]
    assert accepted == guard(inputs).accepted.tolist()
    assert (process.returncode, err) == (0, "")
    assert "all that was accepted was answered" in out
    kept = json.loads((tmp_path / "monitor" / "service.json").read_text())
    assert kept["state"]["bets"]["scores"]["seen"] == 10


def test_an_exported_guard_is_served_too(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its graph is asked through the same function that was exported: to write one takes ten seconds."""
    made, graph = guard.decision, Graph(guard.model, guard.decision, None)

    def run(given: dict[str, np.ndarray]) -> list[np.ndarray]:
        threshold = torch.tensor(made.promise.threshold, dtype=torch.float64)
        return [part.numpy() for part in graph(torch.from_numpy(given["inputs"]), threshold)]

    about = onnx_guard.About(
        classes=made.classes, promise=vars(made.promise), score=made.score.name, shape=made.shape,
        largest=made.largest, columns=None,
    )  # fmt: skip
    loaded = onnx_guard.OnnxGuard(about, "digest", OUTPUTS["classification"], run)
    monkeypatch.setattr(onnx_guard, "load", lambda _: loaded)
    path = Path("guard.onnx")
    served = _served(path, None, "auto")
    assert (served.platform, served.watch, served.digest) == ("onnxruntime_onnx", None, "digest")
    assert (served.picture, served.outputs) == ((1, 8, 8), OUTPUTS["classification"])
    inputs = known(20, seed=9)[0]
    inputs[3] = torch.nan
    with TestClient(application(served)) as client:
        answer = client.post("/v1/verdict", content=npy(inputs.numpy()), headers={"content-type": NPY[0]})
        found = answer.json()["verdicts"]
        assert [one["accepted"] for one in found] == guard(inputs).accepted.tolist()
        assert found[3]["reason"] == "invalid input"
        assert "caveat_monitor" not in client.get("/metrics").text
    for model, device in (("served_nets:build", "auto"), (None, "cuda")):
        with pytest.raises(CaveatError):
            _served(path, model, device)


def test_a_token_is_a_line_of_plain_characters(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"  a-long-secret \nanother\n")
    assert _token(path) == "a-long-secret"
    assert _token(None) is None
    for text in (b"", b"\n", b"short", b"two words in it", b"\xff" * 20):
        path.write_bytes(text)
        with pytest.raises(DataError, match="at least 8 plain characters"):
            _token(path)


def test_an_address_that_is_taken_is_said() -> None:
    with listening("127.0.0.1", 0) as bound:
        bound.listen()
        assert bound.proto == socket.IPPROTO_TCP  # else every answer waited 40 ms
        with pytest.raises(CaveatError, match="cannot listen on 127"):
            listening("127.0.0.1", bound.getsockname()[1])
    for host in ("nosuch.invalid", "1.2.3.4", "x" * 300, "::zz", ""):
        with pytest.raises(CaveatError, match=r"cannot listen on|expected an address"):
            listening(host, 0)
