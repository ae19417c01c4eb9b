"""The study `tradi-camvid`: `run.py` says what it reproduces."""
