"""A multi-label network, its data, and one record."""

from caveat.audits.multilabel.audit import audit_multilabel

__all__ = ["audit_multilabel"]
