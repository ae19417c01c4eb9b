"""The study `cifar10-resnets`: see `run.py`."""
