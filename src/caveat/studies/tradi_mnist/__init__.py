"""The study `tradi-mnist`: `run.py` says what it reproduces."""
