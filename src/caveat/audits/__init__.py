"""One model, its data, many questions, one record."""

from caveat.audits.audit import audit, audit_arrays
from caveat.audits.dense.audit import audit_dense

__all__ = ["audit", "audit_arrays", "audit_dense"]
