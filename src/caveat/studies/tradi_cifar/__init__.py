"""The study `tradi-cifar`: see `run.py`."""
