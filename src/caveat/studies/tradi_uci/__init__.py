"""The study `tradi-uci`: `run.py` says what it reproduces."""
