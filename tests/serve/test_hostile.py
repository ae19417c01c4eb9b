"""Requests of strangers: each is refused with a code, the process lives, and good requests beside it are answered."""

import io
import json
import pickle
import resource
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator

import httpx2 as httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from caveat.serve import Limits, Served
from caveat.serve import running as serving
from caveat.serve.app import application
from tests.serve.conftest import encoded, known, npy, running

PNG, NPY, JSON = "image/png", "application/x-npy", "application/json"
GOOD = np.zeros((1, 1, 8, 8), np.float32)
INFER = {"name": "inputs", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [0.5] * 64}


def bomb(side: int = 9_000) -> bytes:
    """A picture of side x side white pixels in few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = zlib.compress(bytes(1 + side // 8) * 64, 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", row) + chunk(b"IEND", b"")


def headed(shape: str, descr: str = "'<f4'") -> bytes:
    """An array in numpy's format whose header says anything, and nothing after it."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


class Bad:
    """What would run if it were unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("it was unpickled",))


def objects() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bad()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def gif() -> bytes:
    return encoded(np.zeros((8, 8), np.uint8), "GIF")


PICTURE = encoded(np.zeros((64, 64, 3), np.uint8))
BODIES: dict[str, tuple[str, bytes, int]] = {
    "truncated picture": (PNG, PICTURE[:-30], 415),
    "half a picture": (PNG, encoded(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))[:900], 415),
    "no picture": (PNG, b"no picture", 415),
    "nothing": (PNG, b"", 415),
    "bomb": (PNG, bomb(), 413),
    "bomb that Pillow refuses": (PNG, bomb(16_000), 415),
    "bitmap": (PNG, encoded(np.zeros((8, 8), np.uint8), "BMP"), 415),
    "GIF": (PNG, gif(), 415),
    "PostScript": (PNG, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415),
    "16 bits": (PNG, encoded(np.zeros((8, 8), np.uint16)), 415),
    "pickle": (NPY, pickle.dumps(Bad()), 400),
    "objects": (NPY, objects(), 422),
    "npz": (NPY, b"PK\x03\x04" + bytes(100), 400),
    "huge header": (NPY, b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b"x" * 100, 400),
    "huge shape": (NPY, headed("(1000000000, 1, 8, 8)"), 400),
    "negative shape": (NPY, headed("(-1, 1, 8, 8)") + bytes(256), 400),
    "shape of words": (NPY, headed("('a',)"), 400),
    "code as a header": (NPY, headed("__import__('os').abort()"), 400),
    "type of a structure": (NPY, headed("(1,)", "[('a', '<f4')]") + bytes(4), 422),
    "no such type": (NPY, headed("(1,)", "'<q9'"), 400),
    "texts": (NPY, npy(np.array(["a"])), 422),
    "bytes": (NPY, npy(np.zeros((1, 1, 8, 8), np.uint8)), 422),
    "complex": (NPY, npy(np.zeros((1, 1, 8, 8), np.complex64)), 422),
    "another shape": (NPY, npy(np.zeros((1, 1, 8, 9), np.float32)), 422),
    "a number": (NPY, npy(np.float32(1)), 422),
    "no input": (NPY, npy(GOOD[:0]), 422),
    "many inputs": (NPY, npy(np.zeros((100, 1, 8, 8), np.float32)), 422),
    "no JSON": (JSON, b"{", 400),
    "no object": (JSON, b"[]", 422),
    "no inputs": (JSON, b"{}", 422),
    "deep": (JSON, b'{"inputs": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", 400),
    "not UTF-8": (JSON, b'{"inputs": "\xff"}', 400),
    "words": (JSON, json.dumps({"inputs": np.full((1, 1, 8, 8), "1").tolist()}).encode(), 422),
    "true": (JSON, json.dumps({"inputs": np.full((1, 1, 8, 8), True).tolist()}).encode(), 422),
    "ragged": (JSON, b'{"inputs": [[1, 2], [3]]}', 422),
    "object": (JSON, b'{"inputs": {"a": 1}}', 422),
    "null": (JSON, b'{"inputs": null}', 422),
    "huge number": (JSON, b'{"inputs": [[1' + b"0" * 400 + b"]]}", 422),
    "large": (JSON, b" " * 200_001, 413),
    "no kind": ("", npy(GOOD), 415),
    "another kind": ("application/vnd.bentoml+pickle", pickle.dumps(Bad()), 415),
    "no boundary": ("multipart/form-data", b"x", 400),
    "cut form": ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=f\r\n\r\nabc", 400),
    "form of fields": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\nabc\r\n--x--\r\n',
        400,
    ),
    "form of a path": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="../../etc/passwd"\r\n\r\nabc\r\n--x--\r\n',
        415,
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body_is_refused_with_a_code(name: str, client: TestClient) -> None:
    kind, body, status = BODIES[name]
    answer = client.post("/v1/verdict", content=body, headers={"content-type": kind})
    assert answer.status_code == status, answer.text
    told = answer.json()["error"]
    assert set(told) == {"code", "message"}
    assert "Traceback" not in answer.text
    assert "object at 0x" not in answer.text
    assert client.post("/v1/verdict", content=npy(GOOD), headers={"content-type": NPY}).status_code == 200


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"datatype": "BYTES"}, 422), ({"datatype": ["FP32"]}, 422), ({"datatype": "INT64"}, 422),
        ({"datatype": "UINT8", "data": [300] * 64}, 422), ({"shape": [1, 1, 8, 9]}, 422), ({"shape": [1e9]}, 422),
        ({"shape": [-1, -64]}, 422), ({"shape": "x"}, 422), ({"shape": [True, 1, 8, 8]}, 422), ({"name": "x"}, 422),
        ({"shape": [2**40, 2**40]}, 422), ({"data": None}, 422), ({"data": "a"}, 422), ({"data": {}}, 422),
        ({"parameters": []}, 422), ({"parameters": 3}, 422), ({"parameters": {"binary_data_size": 256}}, 400),
        ({"parameters": {"binary_data_size": "x"}}, 400), ({"datatype": "FP16", "data": [1e9] * 64}, 200),
    ],
)  # fmt: skip
def test_a_hostile_tensor_is_refused_with_a_code(change: dict, status: int, client: TestClient) -> None:
    answer = client.post("/v2/models/guard/infer", json={"inputs": [INFER | change]})
    assert answer.status_code == status, answer.text
    if status != 200:
        assert isinstance(answer.json()["error"], str)


@pytest.mark.parametrize(
    "body",
    [
        {}, {"inputs": []}, {"inputs": {}}, {"inputs": [3]}, {"inputs": [INFER, INFER]}, {"inputs": [INFER], "id": 3},
        {"inputs": [INFER], "outputs": [{"name": "x"}]}, {"inputs": [INFER], "outputs": 3},
        {"inputs": [INFER], "outputs": [{"name": ["label"]}]}, {"inputs": [INFER], "parameters": "x"},
        {"inputs": [INFER], "outputs": [3]},
    ],
)  # fmt: skip
def test_a_hostile_request_of_the_protocol_is_refused(body: dict, client: TestClient) -> None:
    assert client.post("/v2/models/guard/infer", json=body).status_code == 422


@pytest.mark.parametrize("length", ["-1", "0", "x", "9" * 30, "99999", "\u0663"])
def test_a_hostile_length_of_the_header_is_refused(length: str, client: TestClient) -> None:
    headers = {"inference-header-content-length": length.encode("latin-1", "replace")}
    assert client.post("/v2/models/guard/infer", json={"inputs": [INFER]}, headers=headers).status_code == 400


@pytest.mark.parametrize(
    "path",
    ["/..%2f..%2fetc/passwd", "/x//", "/v2/models/..%2f/infer", "/v2/models/other", "/v1/verdict/", "/docs", "/%00"],
)
def test_paths_that_are_none_of_ours(path: str, client: TestClient) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "code" in answer.text


def test_what_nobody_may_do_over_http(client: TestClient) -> None:
    for method, path in (("PUT", "/v1/verdict"), ("DELETE", "/v2/models/guard"), ("POST", "/v2/repository/index")):
        assert client.request(method, path).status_code in (404, 405)
    for header, value in (("x-content-type-options", "nosniff"), ("cache-control", "no-store")):
        assert client.get("/v2").headers[header] == value


def test_without_the_token_nothing_is_said(served: Served) -> None:
    with TestClient(application(served, token="a-long-secret")) as client:
        for path in ("/", "/healthz", "/readyz", "/v2/health/live"):
            assert client.get(path).status_code == 200
        for given in (None, "a-long-secret", "Bearer", "Bearer a-long-secreT", "Bearer a-long-secret ", "bearer \xff"):
            headers = {} if given is None else {"authorization": given.encode("latin-1")}
            for path in ("/metrics", "/v2", "/v2/models/guard", "/nosuch"):
                answer = client.get(path, headers=headers)
                if given != "Bearer a-long-secret ":  # spaces at the end are no part of a header
                    assert answer.status_code == 401
            assert client.post("/v1/verdict", content=npy(GOOD), headers=headers).status_code in (401, 415)
        for scheme in ("bearer", "Bearer"):  # schemes have no case
            right = {"authorization": f"{scheme} a-long-secret", "content-type": NPY}
            assert client.post("/v1/verdict", content=npy(GOOD), headers=right).status_code == 200
        assert client.get("/openapi.json", headers=right).status_code == 404  # only where it is asked for


@pytest.fixture(scope="module")
def port(served: Served) -> Iterator[int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "HEAD", 0.5)
        with running(served, Limits(body=1 << 20, timeout=0.7)) as made:
            yield made


def sent(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """What comes back for bytes that are sent in parts."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
        except OSError:  # it was closed while we sent
            pass
        found = b""
        try:
            while part := connection.recv(65536):
                found += part
        except ConnectionResetError:
            pass
        return found


def head(more: str, path: str = "/v1/verdict") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {NPY}\r\nConnection: close\r\n{more}\r\n".encode()


def test_a_body_without_a_length_is_counted(port: int) -> None:
    block = b"10000\r\n" + bytes(65536) + b"\r\n"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = sent(port, head("Transfer-Encoding: chunked\r\n"), *[block] * 600, b"0\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 413")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # of 39 MB nothing is kept
    body = npy(GOOD)
    chunk = f"{len(body):x}\r\n".encode() + body + b"\r\n"
    assert sent(port, head("Transfer-Encoding: chunked\r\n"), chunk, b"0\r\n\r\n").startswith(b"HTTP/1.1 200")
    assert sent(port, head(f"Content-Length: {10**18}\r\n")).startswith(b"HTTP/1.1 413")


def test_a_slow_client_holds_up_nobody(port: int) -> None:
    body, answers = npy(GOOD), []
    cases = (
        [head(f"Content-Length: {len(body)}\r\n"), *(bytes([byte]) for byte in body[:8])],
        [bytes([byte]) for byte in head("")[:8]],
        [b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /he"],
    )
    slow = [
        threading.Thread(target=lambda case=case: answers.append(sent(port, *case, pause=0.15))) for case in 8 * cases
    ]
    for thread in slow:
        thread.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for _ in range(20):
            begun = time.perf_counter()
            assert client.post("/v1/verdict", content=body, headers={"content-type": NPY}).status_code == 200
            assert time.perf_counter() - begun < 2
    for thread in slow:
        thread.join(timeout=10)
        assert not thread.is_alive()
    assert sum(answer.startswith(b"HTTP/1.1 408") for answer in answers) == 8
    assert sum(answer == b"" for answer in answers) == 8
    assert sum(answer.startswith(b"HTTP/1.1 200") for answer in answers) == 8


@pytest.mark.parametrize(
    "first",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET /" + b"a" * 40_000,
        b"POST /v1/verdict HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"POST /v1/verdict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/verdict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"a%d: b\r\n" % k for k in range(60_000)) + b"\r\n",
    ],
)  # fmt: skip
def test_what_is_no_http_is_refused(first: bytes, port: int) -> None:
    found = sent(port, first)
    assert not found.startswith((b"HTTP/1.1 2", b"HTTP/1.1 5"))
    assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200


def test_good_requests_are_answered_beside_hostile_ones(port: int, served: Served) -> None:
    inputs = known(24, seed=9)[0]
    wanted = served.ask(inputs)
    codes: list[int] = []

    def attack() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            for kind, body, _ in list(BODIES.values())[:24]:
                codes.append(client.post("/v1/verdict", content=body, headers={"content-type": kind}).status_code)

    attackers = [threading.Thread(target=attack) for _ in range(3)]
    for thread in attackers:
        thread.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        for row, one in enumerate(inputs.numpy()):
            answer = client.post("/v1/verdict", content=npy(one[None]), headers={"content-type": NPY})
            assert answer.json()["verdicts"][0]["accepted"] == bool(wanted.accepted[row])
    for thread in attackers:
        thread.join()
    assert len(codes) == 72
    assert all(400 <= code < 500 for code in codes)
