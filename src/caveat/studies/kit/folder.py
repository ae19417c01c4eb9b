"""The folder of a study: what is stored there was made by one study, scale, seed, size and version of Caveat."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from caveat import __version__
from caveat.errors import OptionError
from caveat.files import parse_json, read_json, write_atomically
from caveat.records.findings import Scale

__all__ = ["NAME", "claim", "stored"]

NAME = "study.json"


def claim(folder: Path, *, study: str, scale: Scale, seed: int, size: Any) -> None:
    """Make the folder this run's by writing `study.json`, or make sure that it already is: then the run goes on.

    `size` is the frozen dataclass of the scale's settings: networks of other settings must not be taken for ours.

    Raises
    ------
    OptionError
        If the folder holds another run, or files of which nothing tells what made them.
    """
    whole = {"study": study, "scale": scale, "seed": seed, "caveat_version": __version__, "settings": asdict(size)}
    # as it is read back: tuples are lists
    own = parse_json(json.dumps(whole, default=_name), name="study", where=NAME, constants=True)
    place = folder / NAME
    if place.exists():
        there = read_json(place, name="study", constants=True)
        if there != own:
            raise OptionError(f"study: {folder} holds {_difference(there, own)}: choose another folder (-o)")
        return
    foreign = sorted(path.name for path in folder.glob("[!.]*"))
    if foreign:
        raise OptionError(
            f"study: {folder} holds {foreign[0]} but no {NAME} that tells which run made it; this is {_named(own)}: "
            "choose another folder (-o) or an empty one"
        )
    write_atomically(place, json.dumps(own, indent=1) + "\n")


def stored(path: Path, make: Callable[[], Any]) -> Any:
    """What an earlier part of this run stored as JSON, or what `make()` gives, stored for the next."""
    if not path.exists():
        write_atomically(path, json.dumps(make()))
    return read_json(path, name="study", constants=True)


def _name(setting: object) -> str:
    """Of a function among the settings, an objective say."""
    return str(getattr(setting, "__qualname__", type(setting).__qualname__))


def _named(run: Mapping[str, Any]) -> str:
    return f"{run['study']} at scale {run['scale']}, seed {run['seed']} (Caveat {run['caveat_version']})"


def _difference(there: Any, own: Mapping[str, Any]) -> str:
    """Both runs in words, with the first setting that differs if nothing else does."""
    match there:
        case {"study": str(), "scale": str(), "seed": int(), "caveat_version": str(), "settings": dict(settings)}:
            if _named(there) != _named(own):
                return f"{_named(there)}, this is {_named(own)}"
            ours = own["settings"]
            name = next((key for key in {**settings, **ours} if settings.get(key) != ours.get(key)), "settings")
            return f"{_named(there)} with {name} = {settings.get(name)}, this run has {name} = {ours.get(name)}"
        case _:
            return f"a {NAME} that is none of ours, this is {_named(own)}"
