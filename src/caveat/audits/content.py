"""What a set holds, as one hash: two records are compared by it, as names do not tell whether files were replaced."""

import hashlib

import torch

from caveat.observations import Observations, Outputs

__all__ = ["content"]


def content(seen: Observations | Outputs, *, labelled: bool) -> str:
    """SHA-256 over the inputs' fingerprints and labels, in any order of the samples; without inputs over the labels.

    Parameters
    ----------
    seen
        What was observed of the set.
    labelled
        Whether its labels count: those of OOD inputs mean nothing.

    Returns
    -------
    str
        64 hexadecimal digits; empty if there are neither inputs nor labels to tell the set by.
    """
    real = seen.labels.is_floating_point()
    labels = seen.labels.double().view(torch.int64) if real else seen.labels.to(torch.int64)
    if seen.fingerprints is None:
        # without inputs only the order tells samples apart
        return hashlib.sha256(b"labels" + labels.numpy().tobytes()).hexdigest() if labelled else ""
    of_sample = labels.unbind(1) if labels.ndim == 2 else [labels]
    columns = [seen.fingerprints, *of_sample] if labelled else [seen.fingerprints]
    rows = sorted(zip(*(column.tolist() for column in columns), strict=True))
    return hashlib.sha256(b"inputs" + torch.tensor(rows).numpy().tobytes()).hexdigest()
