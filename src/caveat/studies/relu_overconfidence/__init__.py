"""The study `relu-overconfidence`: `run.py` says what it reproduces."""
