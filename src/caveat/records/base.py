"""What every part of a record is: fixed once made, every number finite and short; no torch."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

__all__ = ["Estimate", "Number", "Part"]


def _six_digits(value: float) -> float:
    return float(f"{value:.6g}")


Number = Annotated[float, BeforeValidator(_six_digits)]
"""A finite number kept to six significant digits: enough for any reader, and it keeps the page small."""


class Part(BaseModel):
    """Fixed once made, no field too many, every number finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Estimate(Part):
    """A value with its 95 % bootstrap interval."""

    value: Number
    low: Number
    high: Number
