"""Peers as fixtures: a test that needs one is skipped where it is not installed."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from tests.references.peers import FOLDER, load_pytorch_ood


@pytest.fixture(scope="session")
def pytorch_ood() -> Iterator[ModuleType]:
    """The detectors of pytorch-ood."""
    found = load_pytorch_ood()
    if found is None:
        pytest.skip(f"pytorch-ood is not in {FOLDER}: run make references")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its warnings are not ours to mend
        yield found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.references)
