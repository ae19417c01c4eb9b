"""The study `two-uncertainties`: `run.py` says what it reproduces."""
