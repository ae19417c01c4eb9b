"""Audits of dense prediction, streamed."""
