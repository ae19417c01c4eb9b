"""The study `tradi-uci`: see `run.py`."""
