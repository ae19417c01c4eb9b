"""The study `adversarial-mnist`: `run.py` says what it reproduces."""
