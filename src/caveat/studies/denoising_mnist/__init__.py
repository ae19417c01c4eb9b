"""The study `denoising-mnist`: see `run.py`."""
