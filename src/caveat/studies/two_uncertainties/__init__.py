"""The study `two-uncertainties`: see `run.py`."""
