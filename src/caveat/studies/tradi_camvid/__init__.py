"""The study `tradi-camvid`: see `run.py`."""
