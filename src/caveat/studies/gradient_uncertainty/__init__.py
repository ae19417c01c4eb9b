"""The study `gradient-uncertainty`: see `run.py`."""
