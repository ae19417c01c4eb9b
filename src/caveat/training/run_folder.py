"""The folder of a training run: what lies there was made by one network, data and set of options."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from caveat import __version__
from caveat.data import Bound, Streamed
from caveat.errors import DataError, OptionError
from caveat.files import parse_json, read_json, write_atomically
from caveat.inputs import fingerprints
from caveat.sampling import evenly

__all__ = ["FINISHED", "NAME", "claim", "digest"]

NAME = "train.json"
CHECKPOINT = re.compile(r"(?:(?:warm|phase\d+)-)?(?:checkpoint|member-\d+(?:\.checkpoint)?)\.safetensors")
"""Of the run itself, of the phases before it, and of the members of an ensemble: no other file is removed."""
FINISHED = "model.safetensors"
"""Written when training has come to its end."""
SAMPLES = 512
"""Pictures that stand for a set: all labels are looked at, but decoding every picture would cost an epoch."""
TOGETHER = 256
"""Pictures that are decoded at once to know a set by."""


def digest(source: Bound | Streamed, *, samples: int = SAMPLES, also: Sequence[int] = ()) -> str:
    """SHA-256 of a set's labels and class names, and of some of its pictures or texts, evenly spread, and of others."""
    rows = evenly(len(source), samples)
    if also:
        rows = torch.cat([rows, torch.tensor(also)]).unique()
    found = hashlib.sha256(repr((len(source), source.classes, source.shape)).encode())
    found.update(source.labels.contiguous().numpy().tobytes())
    # one pass over a file of rows; of pictures some at a time are held
    for part in rows.split(len(rows) if isinstance(source, Streamed) else TOGETHER):
        found.update(fingerprints(source.take(part)[0]).numpy().tobytes())
    return found.hexdigest()


def claim(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Make the folder this run's by writing `train.json`, or make sure that it already is: then the run goes on.

    Another number of `epochs` is another cycle of the learning rate, so that nothing of the old run can be gone on
    with: the checkpoints of one that did not finish are removed, and the run begins anew. Whether that is so is
    returned.

    Raises
    ------
    OptionError
        If the folder holds a network of other settings, or a finished one of other epochs: it is neither taken for
        this one nor written over.
    DataError
        If it holds a network of which nothing tells how it was made.
    """
    place = folder / NAME
    # as it is read back: tuples are lists
    own = parse_json(json.dumps({**settings, "caveat_version": __version__}), name="output", where=NAME, constants=True)
    trained = sorted(path.name for path in folder.glob("*.safetensors")) if folder.is_dir() else []
    if not trained or not place.exists():  # a run that was refused before its first step binds nobody
        if trained:
            raise DataError(
                f"output: {folder} holds {trained[0]}, but no {NAME} that tells how it was trained; choose another"
            )
        write_atomically(place, json.dumps(own, indent=1) + "\n")
        return False
    there = read_json(place, name="output", constants=True)
    there = there if isinstance(there, dict) else {}
    differing = [key for key in {**there, **own} if there.get(key) != own.get(key)]
    if set(differing) - {"epochs"}:
        key = next(key for key in differing if key != "epochs")
        raise OptionError(
            f"output: {folder} holds a network trained with {key} = {there.get(key)!r}, this run has {own.get(key)!r}; "
            "choose another folder (-o)"
        )
    if differing and (folder / FINISHED).exists():
        raise OptionError(
            f"--epochs: {folder} holds a network whose training finished after {there.get('epochs')} epochs; "
            f"{own['epochs']} are another training, as the learning rate follows one cycle over all epochs: choose "
            "another folder (-o), or give these weights to --weights there to train them further"
        )
    if differing:
        for path in (*folder.glob("*.safetensors"), *folder.glob("members/*.safetensors")):
            if CHECKPOINT.fullmatch(path.name):
                path.unlink()
        write_atomically(place, json.dumps(own, indent=1) + "\n")
    return bool(differing)
