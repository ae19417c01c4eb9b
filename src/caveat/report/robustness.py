"""What attacks, transformations and certificates found, as sentences."""

from collections.abc import Iterator

from caveat.records.attack import Smallest
from caveat.records.record import Record

__all__ = ["sentences"]


def sentences(record: Record) -> Iterator[str]:
    """Accuracies from above and from below."""
    for attack in record.attacked:
        at = ", ".join(f"{radius.accuracy:.1%} at radius {radius.radius:g}" for radius in attack.radii)
        yield f"Accuracy under attack ({attack.attack}; norm {attack.norm}; {attack.samples} inputs): {at}"
        if attack.certified_by:
            sure = ", ".join(f"{item.verified:.1%} at radius {item.radius:g}" for item in attack.radii[1:])
            yield f"Certified accuracy ({attack.certified_by}): {sure}"
        if attack.smallest is not None:
            yield _nearest(attack.smallest, attack.norm)
        for item in attack.guaranteed:
            yield (
                f"AUROC of {item.ood} by msp, whatever is changed within {item.radius:g}: at least "
                f"{item.guaranteed:.1%} (unchanged: {item.auroc:.1%})"
            )
    for item in record.transformed:
        below = item.why_not and f"; nothing is certified: {item.why_not}"
        if item.verified is not None:
            below = f", certified ({item.certified_by}): {item.verified.value:.1%}"
        yield (
            f"Accuracy under transformations ({', '.join(item.ranges)}; {item.samples} pictures): at most "
            f"{item.accuracy.value:.1%}{below}"
        )


def _nearest(found: Smallest, norm: str) -> str:
    """The distances in one sentence."""
    middle = found.quartiles[1]
    far = "more than half of them without one" if middle is None else f"median distance {middle:.3g} in norm {norm}"
    return (
        f"Smallest adversarial perturbation found ({found.attack}; {found.found} of {found.samples} inputs): {far}, an "
        "upper bound of the true one"
    )
