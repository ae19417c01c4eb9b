"""The study `deeppoly-eran`: see `run.py`."""
