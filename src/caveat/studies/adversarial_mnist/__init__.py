"""The study `adversarial-mnist`: see `run.py`."""
