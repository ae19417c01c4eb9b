"""Shared by all tests: one hypothesis profile, few threads, generators by seed."""

from collections.abc import Iterator
from contextlib import contextmanager

import jaxtyping
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # the arrays are small; spinning threads only take turns with other work
settings.register_profile("caveat", derandomize=True, deadline=None, max_examples=12)
settings.load_profile("caveat")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20_26)


@contextmanager
def shapes_unchecked() -> Iterator[None]:
    """As in production, where no shape is checked at run time: for tests of our own errors."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
