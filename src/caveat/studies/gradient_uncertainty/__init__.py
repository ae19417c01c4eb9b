"""The study `gradient-uncertainty`: `run.py` says what it reproduces."""
