"""Attacks: the most harmful input that can be found near a given one. What no attack finds is not proved absent.

An attack in a ball is a function `(model, inputs, labels, ball, *, generator, ...) -> inputs`; one with a price on the
change is `(model, inputs, targets, *, low, high, ...) -> Attacked`; one that looks for the nearest input with another
answer is `(model, inputs, labels, *, low, high, ...) -> Attacked`.
"""

from collections.abc import Callable

from torch import Tensor

from caveat.attacks import losses
from caveat.attacks.apgd import apgd, apgd_dlr, apgd_targeted
from caveat.attacks.ascent import Summit, ascend, constant, cosine, from_inputs, shrunk, uniform
from caveat.attacks.ball import Ball
from caveat.attacks.carlini import carlini
from caveat.attacks.deepfool import deepfool
from caveat.attacks.estimated import estimated
from caveat.attacks.fgsm import fgsm
from caveat.attacks.fmn import fmn
from caveat.attacks.l1 import penalised, sparse
from caveat.attacks.losses import LOSSES
from caveat.attacks.masking import StraightThrough, without_gradient
from caveat.attacks.network import masked
from caveat.attacks.pgd import pgd
from caveat.attacks.radius import smallest_radius
from caveat.attacks.result import Attacked
from caveat.attacks.spatial import Turned, spatial
from caveat.attacks.square import square
from caveat.attacks.strongest import Struck, strongest, warnings_of
from caveat.attacks.transfer import Transfer, over_sets, transfer

__all__ = [
    "IN_BALL",
    "LOSSES",
    "MINIMAL",
    "PENALISED",
    "QUERY",
    "Attacked",
    "Ball",
    "StraightThrough",
    "Struck",
    "Summit",
    "Transfer",
    "Turned",
    "apgd",
    "apgd_dlr",
    "apgd_targeted",
    "ascend",
    "carlini",
    "constant",
    "cosine",
    "deepfool",
    "estimated",
    "fgsm",
    "fmn",
    "from_inputs",
    "losses",
    "masked",
    "over_sets",
    "penalised",
    "pgd",
    "shrunk",
    "smallest_radius",
    "sparse",
    "spatial",
    "square",
    "strongest",
    "transfer",
    "uniform",
    "warnings_of",
    "without_gradient",
]

IN_BALL: dict[str, Callable[..., Tensor]] = {
    "apgd": apgd,
    "apgd_dlr": apgd_dlr,
    "apgd_targeted": apgd_targeted,
    "fgsm": fgsm,
    "pgd": pgd,
}
QUERY: dict[str, Callable[..., Tensor]] = {"estimated": estimated, "square": square}
"""Attacks in a ball that ask the network for values alone, and follow no gradient."""
PENALISED: dict[str, Callable[..., Attacked]] = {"penalised": penalised, "sparse": sparse}
MINIMAL: dict[str, Callable[..., Attacked]] = {"carlini": carlini, "deepfool": deepfool, "fmn": fmn}
"""Attacks without a radius: how near is the nearest input with another answer?"""
