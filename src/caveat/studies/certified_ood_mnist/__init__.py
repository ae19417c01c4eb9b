"""The study `certified-ood-mnist`: see `run.py`."""
