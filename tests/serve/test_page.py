"""The page in a real browser: a picture that is dropped gets its answer, quietly and from this service alone."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from caveat.guard import MultilabelGuard, RegressionGuard, RegressionVerdict
from caveat.serve import Limits, Served
from caveat.serve.served import of_guard
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


class Numbers(nn.Module):
    """How bright a picture is, with a deviation."""

    def forward(self, inputs: Tensor) -> Tensor:
        bright = inputs.flatten(1).mean(dim=1)
        return torch.stack([bright, 0.01 + 0.1 * bright.clamp_min(0)], dim=1)


class Halves(nn.Module):
    """A label for the upper half of a picture, and one for the lower: whether it is bright."""

    def forward(self, inputs: Tensor) -> Tensor:
        return 8 * torch.stack([part.flatten(1).mean(dim=1) - 0.5 for part in inputs.chunk(2, dim=2)], dim=1)


def of_task(task: str) -> RegressionGuard | MultilabelGuard:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(400, 1, 8, 8, generator=generator) * torch.rand(400, 1, 1, 1, generator=generator)
    if task == "regression":
        labels = images.flatten(1).mean(dim=1) + 0.02 * torch.randn(400, generator=generator)
        return RegressionGuard.fit(Numbers().eval(), (images, labels), outputs="gaussian_std", keep=0.9, error=0.2)
    labels = torch.stack([images.flatten(1).mean(dim=1) > 0.1, images.flatten(1).mean(dim=1) > 0.2], dim=1).long()
    return MultilabelGuard.fit(Halves().eval(), (images, labels), keep=0.9, error=0.2, score="max_label")


@pytest.mark.parametrize(("task", "second"), [("regression", "Interval"), ("multilabel", "Labels")])
def test_guards_of_other_tasks_are_shown_too(task: str, second: str) -> None:
    guard = of_task(task)
    grey = np.full((8, 8), 60, np.uint8)
    verdict = guard(torch.from_numpy(grey)[None, None].float() / 255)
    trouble: list[str] = []
    with running(of_guard(guard), Limits()) as port, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page: Any = browser.new_page()
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.goto(f"http://127.0.0.1:{port}/")
        page.set_input_files("#file", {"name": "b.png", "mimeType": "image/png", "buffer": encoded(grey)})
        page.wait_for_selector(f"#answer[data-accepted={str(bool(verdict.accepted[0])).lower()}]")
        assert page.inner_text("#sentence") == f"{verdict.explain(0)}."
        told = [page.inner_text(f".tiles > div:nth-child(2) {part}") for part in ("dt", "dd:nth-child(2)")]
        answer = page.inner_text(".tiles > div:first-child dd:nth-child(2)")
        bars = page.locator("#classes meter").count()
        browser.close()
    assert trouble == []
    assert told[0] == second
    if isinstance(verdict, RegressionVerdict):
        assert (answer, bars) == (f"{float(verdict.prediction[0]):.4g}", 0)
        assert told[1] == f"{float(verdict.lower[0]):.4g} to {float(verdict.upper[0]):.4g}"
    else:
        assert (told[1], bars) == (str(int(verdict.predicted.sum())), 2)
        assert answer == ", ".join(name for name, here in zip(verdict.names, verdict.labels[0], strict=True) if here)
