"""The service gives the verdicts of the guard, whatever form inputs come in and whoever asks beside."""

import asyncio
import base64
import io
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient
from torch import Tensor

from caveat import Guard, data
from caveat.errors import DataError, OptionError
from caveat.guard.verdict import Verdict
from caveat.serve import Limits, Served
from caveat.serve.app import application
from caveat.serve.batching import Batcher
from caveat.serve.inputs import NPY
from caveat.serve.limits import RequestError
from caveat.serve.served import of_guard
from caveat.serve.watched import Watched
from tests.serve.conftest import Slowed, encoded, known, npy


def check(found: list[dict], verdict: Verdict) -> None:
    """That rows of JSON are the verdicts."""
    assert len(found) == len(verdict)
    for row, one in enumerate(found):
        assert one["accepted"] == bool(verdict.accepted[row])
        unseen = one["reason"] == "invalid input"  # nothing was predicted of it
        assert one["predicted"] == (None if unseen else int(verdict.predicted[row]))
        assert (one["predicted_name"] is None) == unseen
        assert one["label"] == (verdict.classes[int(verdict.predicted[row])] if one["accepted"] else None)
        assert one["explanation"] == verdict.explain(row)
        for name in ("confidence", "score", "p_value", "aleatoric"):
            wanted = float(getattr(verdict, name)[row])
            assert one[name] == (None if np.isnan(wanted) else pytest.approx(wanted, rel=1e-4, abs=1e-6))
        assert [x if x is not None else np.nan for x in one["probs"]] == pytest.approx(
            verdict.probs[row].tolist(), rel=1e-5, abs=1e-6, nan_ok=True
        )


def test_arrays_are_answered_as_by_the_guard(client: TestClient, guard: Guard) -> None:
    inputs = known(40, seed=9)[0]
    verdict = guard(inputs)
    assert 0 < int(verdict.accepted.sum()) < 40
    headers = {"content-type": "application/x-npy"}
    for array in (inputs.numpy(), inputs.double().numpy(), np.asfortranarray(inputs.numpy())):
        answer = client.post("/v1/verdict", content=npy(array), headers=headers)
        assert answer.status_code == 200, answer.text
        check(answer.json()["verdicts"], verdict)
    answer = client.post("/v1/verdict", json={"inputs": inputs.tolist()})
    check(answer.json()["verdicts"], verdict)
    assert answer.json()["classes"] == list(guard.decision.classes)
    whole = torch.zeros(1, 1, 8, 8)
    check(client.post("/v1/verdict", json={"inputs": whole.int().tolist()}).json()["verdicts"], guard(whole))


def test_pictures_are_read_as_in_a_folder(client: TestClient, guard: Guard, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    grey = generator.integers(0, 256, (8, 8), dtype=np.uint8)
    verdict = guard(torch.from_numpy(grey)[None, None].float() / 255)
    for kind in ("PNG", "WEBP"):
        headers = {"content-type": f"image/{kind.lower()}"}
        check(client.post("/v1/verdict", content=encoded(grey, kind), headers=headers).json()["verdicts"], verdict)
    files = [("file", ("a.png", encoded(grey), "image/png"))]
    check(client.post("/v1/verdict", files=files).json()["verdicts"], verdict)
    larger = generator.integers(0, 256, (19, 13, 3), dtype=np.uint8)
    (tmp_path / "b.png").write_bytes(encoded(larger))
    answer = client.post("/v1/verdict", files=[*files, ("b", ("b.png", encoded(larger), "image/png"))])
    inputs = next(iter(data.read(f"folder:{tmp_path}+grey+8x8")))[0]
    check(answer.json()["verdicts"][1:], guard(inputs))


def test_the_nearest_known_examples_are_those_of_the_guard(client: TestClient, guard: Guard) -> None:
    inputs = known(5, seed=9)[0]
    inputs[1, 0, 2, 3] = torch.nan
    answer = client.post("/v1/verdict?nearest=3", content=npy(inputs.numpy()), headers={"content-type": NPY[0]})
    assert answer.status_code == 200, answer.text
    wanted = guard.nearest(inputs, 3)
    check(answer.json()["verdicts"], guard(inputs))
    assert answer.json()["verdicts"][1]["nearest"] == []
    for row in (0, 2, 3, 4):
        found = answer.json()["verdicts"][row]["nearest"]
        assert [one["position"] for one in found] == wanted.position[row].tolist()
        assert [one["label"] for one in found] == [guard.decision.classes[k] for k in wanted.label[row].tolist()]
        assert [one["similarity"] for one in found] == pytest.approx(wanted.similarity[row].tolist(), abs=1e-5)
        png = base64.b64decode(found[0]["picture"].removeprefix("data:image/png;base64,"))
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), wanted.picture[row, 0, 0].numpy())
    plain = client.post("/v1/verdict", json={"inputs": inputs[2:].tolist()})
    assert "nearest" not in plain.json()["verdicts"][0]
    for wrong in ("11", "-1", "x", "9" * 5000, "\u0663"):
        refused = client.post("/v1/verdict", params={"nearest": wrong}, json={"inputs": inputs[2:].tolist()})
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "nearest")


def test_a_guard_without_examples_says_so(served: Served) -> None:
    with TestClient(application(replace(served, nearest=None))) as client:
        refused = client.post("/v1/verdict?nearest=3", json={"inputs": known(1)[0].tolist()})
        assert refused.status_code == 422
        assert "this guard keeps no known examples; fit it with --examples" in refused.json()["error"]["message"]
        assert "Nearest known examples" not in client.get("/").text


def test_what_holds_no_numbers_abstains(client: TestClient, guard: Guard) -> None:
    inputs = known(3, seed=9)[0]
    inputs[1, 0, 2, 3] = torch.nan
    inputs[2, 0, 0, 0] = torch.inf
    verdict = guard(inputs)
    rows = inputs.tolist()
    rows[1][0][2][3] = None
    text = json.dumps({"inputs": rows})
    assert "null" in text
    assert "Infinity" in text
    answer = client.post("/v1/verdict", content=text, headers={"content-type": "application/json"})
    check(answer.json()["verdicts"], verdict)
    assert [one["reason"] for one in answer.json()["verdicts"]][1:] == ["invalid input", "invalid input"]
    answer = client.post("/v1/verdict", content=npy(inputs.numpy()), headers={"content-type": "application/x-npy"})
    check(answer.json()["verdicts"], verdict)


def test_requests_at_once_share_a_pass_and_get_their_own_verdicts(served: Served, guard: Guard) -> None:
    sizes: list[int] = []

    def ask(inputs: Tensor) -> Verdict:
        sizes.append(len(inputs))
        time.sleep(0.02)
        if len(inputs) > 1 and bool((inputs[:, 0, 0, 0] == 7).any()):
            raise OptionError("inputs: one of them is to blame")
        return served.ask(inputs)

    async def main() -> list[Verdict | BaseException]:
        batcher = Batcher(ask, Limits(batch=16))
        try:
            return await asyncio.gather(*(batcher(one[None]) for one in inputs), return_exceptions=True)
        finally:
            await asyncio.to_thread(batcher.close)
            with pytest.raises(RequestError, match="wait for the network"):
                await batcher(inputs[:1])

    inputs = known(40, seed=9)[0]
    found = asyncio.run(main())
    assert sum(sizes) == 40
    assert len(sizes) <= 5
    assert max(sizes) <= 16
    wanted = guard(inputs)
    assert [bool(one.accepted) for one in found] == wanted.accepted.tolist()
    assert torch.allclose(torch.cat([one.score for one in found]), wanted.score)
    inputs[5, 0, 0, 0] = 7  # where a pass fails, its requests are asked one by one
    assert [len(one) for one in asyncio.run(main())] == [1] * 40


def test_a_full_queue_and_a_late_answer_are_said(slowed: Slowed) -> None:
    async def ask(app, count: int) -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            body = {"inputs": known(1)[0].tolist()}
            return await asyncio.gather(*(client.post("/v1/verdict", json=body) for _ in range(count)))

    app = application(slowed(0.5), limits=Limits(batch=1, queue=3))
    found = asyncio.run(ask(app, 12))
    codes = [one.status_code for one in found]
    assert set(codes) == {200, 429}
    assert 3 <= codes.count(200) <= 6  # those that waited, and the one or more that the network had taken by then
    late = next(one for one in found if one.status_code == 429)
    assert late.headers["retry-after"] == "1"
    assert late.json()["error"]["code"] == "busy"
    app = application(slowed(0.4), limits=Limits(timeout=0.1))
    answer = asyncio.run(ask(app, 1))[0]
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
    app = application(slowed(0.4), limits=Limits(concurrency=2))
    assert [one.status_code for one in asyncio.run(ask(app, 3))].count(429) == 1


def test_metrics_count_what_was_answered(served: Served) -> None:
    assert served.watch is not None
    watched = Watched(served.watch(0.01, 0))
    inputs = known(30, seed=9)[0]
    with TestClient(application(served, watched=watched)) as client:
        before = client.get("/metrics").text
        assert "caveat_accepted_share NaN" in before  # 0 would be an alarm of whoever watches it
        assert 'caveat_monitor_alarm_at{claim="scores"} 300.0' in before
        for _ in range(2):
            client.post("/v1/verdict", json={"inputs": inputs.tolist()})
        client.get("/nosuch/../../etc/passwd")
        for _ in range(100):  # verdicts are counted after they were given
            text = client.get("/metrics").text
            if "caveat_batch_rows_count 2.0" in text:
                break
            time.sleep(0.02)
    accepted = int(served.ask(inputs).accepted.sum())
    told = dict(re.findall(r"^(\S+) (\S+)$", text, flags=re.MULTILINE))
    assert float(told['caveat_verdicts_total{reason="accepted"}']) == 2 * accepted
    assert float(told["caveat_accepted_share"]) == pytest.approx(accepted / 30)
    assert float(told['caveat_requests_total{path="/v1/verdict",status="200"}']) == 2
    assert float(told['caveat_requests_total{path="other",status="404"}']) == 1
    assert float(told["caveat_score_count"]) == 60
    assert float(told['caveat_monitor_seen{claim="scores"}']) == 60
    assert float(told['caveat_monitor_alarm{claim="scores"}']) == 0
    assert watched.state.seen == 60


def test_the_monitor_goes_on_after_a_stop_and_raises_the_alarm(
    served: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert served.watch is not None
    strange = {"inputs": torch.zeros(20, 1, 8, 8).tolist()}
    for start in range(2):
        watched = Watched(served.watch(0.01, 0), tmp_path, digest="a")
        assert watched.state.seen == 60 * start
        with TestClient(application(served, watched=watched)) as client:
            for _ in range(3):
                assert client.post("/v1/verdict", json=strange).status_code == 200
            alarm = re.findall(r'caveat_monitor_alarm\{claim="abstentions"\} (\S+)', client.get("/metrics").text)
    assert alarm == ["1.0"]
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [text.partition(" Raised")[0].partition(" (")[0] for text in told] == [
        "Alarm: the scores are higher than those of the inputs before.",
        "Alarm: the share of abstentions is above what the reference allows",
    ]  # each once, in its own words
    assert Watched(served.watch(0.01, 0), tmp_path, digest="a").state.alarms
    with pytest.raises(DataError, match="watches another guard"):
        Watched(served.watch(0.01, 0), tmp_path, digest="b")
    (tmp_path / "service.json").write_text("{}")
    with pytest.raises(DataError, match="no state of a service's monitor"):
        Watched(served.watch(0.01, 0), tmp_path, digest="a")


def test_a_guard_of_other_inputs_says_what_it_takes(served: Served, guard: Guard) -> None:
    from dataclasses import replace

    flat = replace(served, shape=(64,), ask=lambda inputs: served.ask(inputs.view(-1, 1, 8, 8)))
    with TestClient(application(flat)) as client:
        answer = client.post("/v1/verdict", content=b"x", headers={"content-type": "image/png"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (415, "no_pictures")
        assert client.post("/v1/verdict", json={"inputs": [[0.5] * 64]}).status_code == 200
        assert "arrays, not pictures" in client.get("/").text
    whole = replace(served, largest=None, ask=lambda inputs: served.ask(inputs.float()))
    with TestClient(application(whole)) as client:
        assert client.post("/v1/verdict", json={"inputs": np.ones((1, 1, 8, 8), int).tolist()}).status_code == 200
        answer = client.post("/v1/verdict", json={"inputs": (0.5 * np.ones((1, 1, 8, 8))).tolist()})
        assert "expected whole numbers" in answer.json()["error"]["message"]
    unknown = Guard(guard.model, replace(guard.decision, shape=()))
    with pytest.raises(OptionError, match="knows no shape of its inputs"):
        of_guard(unknown)
