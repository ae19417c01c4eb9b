"""Bounds: what no input of a set can exceed, computed from the network and not by trying."""

from caveat.bounds.grid import overconfident, reached
from caveat.bounds.rays import Rays, along, row_distances

__all__ = ["Rays", "along", "overconfident", "reached", "row_distances"]
