"""The study `tradi-mnist`: see `run.py`."""
