"""What `caveat guard fit` tells of a guard."""

from types import SimpleNamespace

import pytest

from caveat.cli.guard.fit import show
from caveat.guard.stored import Operating


def test_the_share_accepted_is_told_with_the_samples_it_is_of(capsys: pytest.CaptureFixture[str]) -> None:
    operating = Operating(kind="keep", level=0.95, kept=0.962, error=0.01, threshold=1.5, rounding=0)
    show(SimpleNamespace(score="msp", why="by name", calibration="temperature", operating=operating, classes=[]))
    words = " ".join(capsys.readouterr().out.split())
    assert "On the calibration samples that its threshold was set on, it accepts 96.2%" in words
    assert "held-out" not in words
