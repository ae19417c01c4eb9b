"""The study `relu-overconfidence`: see `run.py`."""
