"""The classifier whose behaviour is known exactly, as in the tests of audits."""

from tests.audits.conftest import known, model, ood

__all__ = ["known", "model", "ood"]
