"""Bounds: what no input of a set can exceed, computed from the network and not by trying."""

from caveat.rays.along import Rays, along, row_distances
from caveat.rays.grid import overconfident, reached

__all__ = ["Rays", "along", "overconfident", "reached", "row_distances"]
