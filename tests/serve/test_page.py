"""The page in a real browser: a picture that is dropped gets its answer, quietly and from this service alone."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from caveat.serve import Limits, Served
from tests.report.test_browser import ARGUMENTS, CHROMIUM
from tests.serve.conftest import encoded, known, running

sync_api = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no program called chromium on the path"),
]
TOKEN = "a-long-secret"


@pytest.fixture(scope="module")
def port(served: Served) -> Iterator[int]:
    with running(served, Limits(), TOKEN) as made:
        yield made


def test_a_picture_is_dropped_and_answered(port: int, served: Served) -> None:
    picture = (known(1, seed=9)[0][0, 0].numpy() * 255).round().astype(np.uint8)
    refused = np.zeros((8, 8), np.uint8)
    trouble: list[str] = []
    asked: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page: Any = browser.new_page()
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"http://127.0.0.1:{port}/")
        page.fill("#token", TOKEN)
        drop = """([bytes, kind]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "a.png", { type: kind }));
            document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
        }"""
        page.evaluate(drop, [list(encoded(picture)), "image/png"])
        page.wait_for_selector("#answer[data-accepted=true]")
        sentence = page.inner_text("#sentence")
        assert sentence.startswith("accepted: predicted ")
        name = sentence.removeprefix("accepted: predicted ")[0]
        assert page.inner_text(".tiles > div:first-child dd:nth-child(2)") == name
        assert page.locator("#classes meter").count() == 4
        assert page.locator("#nearest figcaption").first.inner_text().startswith(f"{name}, similarity ")
        assert page.evaluate("document.getElementById('picture').naturalWidth") == 8
        page.set_input_files("#file", {"name": "b.png", "mimeType": "image/png", "buffer": encoded(refused)})
        page.wait_for_selector("#answer[data-accepted=false]")
        assert page.inner_text(".tiles > div:first-child dd:nth-child(2)") == "abstains"
        near = page.locator("#nearest figure")  # of what was refused too
        assert near.count() == 3
        assert re.fullmatch(r"\d, similarity -?\d\.\d{3}", near.first.inner_text().strip())
        assert page.evaluate("document.querySelector('#nearest img').naturalWidth") == 8
        assert trouble == []
        page.evaluate(drop, [[1, 2, 3], "image/png"])
        page.wait_for_selector("#trouble:not([hidden])")
        assert "not a readable picture" in page.inner_text("#trouble")
        assert not page.is_visible("#answer")
        browser.close()
    assert all(url.startswith((f"http://127.0.0.1:{port}/", "data:")) for url in asked)
