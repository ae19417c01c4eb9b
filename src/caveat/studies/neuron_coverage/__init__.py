"""The study `neuron-coverage`: see `run.py`."""
