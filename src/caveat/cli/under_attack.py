"""What `caveat audit` asks of attacks and transformations."""

from typing import TYPE_CHECKING, Any

from caveat.cli.checks import positive
from caveat.errors import OptionError, known_name

if TYPE_CHECKING:
    from caveat.attacks.transformation import Transformation

__all__ = ["check"]


def check(own: set[str], values: dict[str, Any], *, several: bool) -> "Transformation | None":
    """Refuse what does not go together; the transformation that is asked for."""
    radii, norm, certify = values["attack_radius"], values["attack_norm"], values["attack_certify"]
    positive("--attack-radius", radii)
    if certify is not None:
        known_name("--attack-certify", certify, ("interval", "deeppoly"))
    if norm not in ("1", "2", "inf"):
        raise OptionError(f"--attack-norm: expected 1, 2 or inf, got {norm!r}")
    if norm == "inf" and radii and max(radii) >= 1:
        raise OptionError(
            f"--attack-radius: expected less than 1 in norm inf, got {max(radii):g}: inputs are in [0, 1], so that any "
            "input could be made any other"
        )
    for needs, options in (
        ("--attack-radius", {"attack_norm", "attack_smallest"}),
        ("--attack-radius or --attack-transform", {"attack_samples", "attack_certify"}),
    ):
        asked = radii or ("transform" in needs and values["attack_transform"])
        if not asked and (alone := sorted(own & options)):
            raise OptionError(f"--{alone[0].replace('_', '-')}: expected {needs} beside it; nothing is attacked")
    for option in ("attack_radius", "attack_transform"):
        if values[option] and several:
            raise OptionError(
                f"--{option.replace('_', '-')}: expected one network, got posterior samples, whose mean is not "
                "attacked here; leave out --posterior and --dropout"
            )
    if not values["attack_transform"]:
        return None
    from caveat.cli.certify import transformation

    return transformation(values["attack_transform"], "--attack-transform")
