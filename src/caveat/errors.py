"""One exception hierarchy: whatever the caller can mend raises a `CaveatError`."""

__all__ = ["CaveatError", "CaveatWarning", "DataError", "MissingExtraError", "ModelError", "OptionError"]


class CaveatError(ValueError):
    """A mistake the caller can mend: the message names the argument, what was expected and what came."""


class DataError(CaveatError):
    """A set of inputs, labels or observations that can't be used."""


class ModelError(CaveatError):
    """A network that can't be used as it is."""


class OptionError(CaveatError):
    """A name or value of an option that does not exist."""


class MissingExtraError(CaveatError):
    """A feature of an optional dependency that is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package!r}: install it with  pip install 'caveat[{extra}]'")


class CaveatWarning(UserWarning):
    """Something works, but slower or with less than the caller may expect."""
