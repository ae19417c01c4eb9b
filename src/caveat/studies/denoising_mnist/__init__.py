"""The study `denoising-mnist`: `run.py` says what it reproduces."""
