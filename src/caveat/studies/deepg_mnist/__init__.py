"""The study `deepg-mnist`: see `run.py`."""
