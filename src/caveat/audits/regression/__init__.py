"""A regression network, its data, and one record."""

from caveat.audits.regression.audit import audit_regression

__all__ = ["audit_regression"]
