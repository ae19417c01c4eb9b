"""What `caveat audit` asks and tells of attacks and transformations."""

from typing import TYPE_CHECKING, Any

from caveat.cli.checks import positive
from caveat.cli.terminal import echo
from caveat.errors import OptionError, known_name

if TYPE_CHECKING:
    from caveat.attacks.transformation import Transformation
    from caveat.records.attack import Smallest
    from caveat.records.record import Record

__all__ = ["check", "tell"]


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


def tell(record: "Record") -> None:
    """Accuracies from above and from below, in lines."""
    for attack in record.attacked:
        at = ", ".join(f"{radius.accuracy:.1%} at radius {radius.radius:g}" for radius in attack.radii)
        echo(f"Accuracy under attack ({attack.attack}; norm {attack.norm}; {attack.samples} inputs): {at}")
        if attack.certified_by:
            sure = ", ".join(f"{item.verified:.1%} at radius {item.radius:g}" for item in attack.radii[1:])
            echo(f"Certified accuracy ({attack.certified_by}): {sure}")
        if attack.smallest is not None:
            echo(_nearest(attack.smallest, attack.norm))
        for item in attack.guaranteed:
            echo(
                f"AUROC of {item.ood} by msp, whatever is changed within {item.radius:g}: at least "
                f"{item.guaranteed:.1%} (unchanged: {item.auroc:.1%})"
            )
    for item in record.transformed:
        below = item.why_not and f"; nothing is certified: {item.why_not}"
        if item.verified is not None:
            below = f", certified ({item.certified_by}): {item.verified.value:.1%}"
        echo(
            f"Accuracy under transformations ({', '.join(item.ranges)}; {item.samples} pictures): at most "
            f"{item.accuracy.value:.1%}{below}"
        )


def _nearest(found: "Smallest", norm: str) -> str:
    """The distances in one sentence."""
    middle = found.quartiles[1]
    far = "more than half of them without one" if middle is None else f"median distance {middle:.3g} in norm {norm}"
    return (
        f"Smallest adversarial perturbation found ({found.attack}; {found.found} of {found.samples} inputs): {far}, an "
        "upper bound of the true one"
    )
