"""The study `tradi-cifar`: `run.py` says what it reproduces."""
