"""How large and how uneven the gradient of one answer's loss is, layer by layer.

The scores look at all parameters together; all the statistics of all layers are there for meta classification.
"""

from caveat.scores.gradients.moments import STATISTICS
from caveat.scores.gradients.overall import l1, l2, largest, smallest, uncertainty
from caveat.scores.gradients.probes import GradientProbe, probe
from caveat.scores.gradients.whole import LayerStatistics, expected_length, statistics

__all__ = [
    "STATISTICS",
    "GradientProbe",
    "LayerStatistics",
    "expected_length",
    "l1",
    "l2",
    "largest",
    "probe",
    "smallest",
    "statistics",
    "uncertainty",
]
