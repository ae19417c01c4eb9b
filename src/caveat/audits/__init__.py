"""One model, its data, many questions, one record."""

from caveat.audits.audit import audit, audit_arrays
from caveat.audits.dense.audit import audit_dense
from caveat.audits.multilabel import audit_multilabel
from caveat.audits.regression import audit_regression

__all__ = ["audit", "audit_arrays", "audit_dense", "audit_multilabel", "audit_regression"]
