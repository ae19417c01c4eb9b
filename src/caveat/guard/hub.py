"""A guard on the Hugging Face hub: the files of its folder, and its card as README. No code travels with it."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from torch import nn

from caveat.errors import DataError, MissingExtraError
from caveat.guard.stored import MANIFEST, ROLES
from caveat.guard.tasks import AnyGuard, artefact_of

__all__ = ["from_hub", "push_to_hub"]

TENSORS = [f"{role}-*.safetensors" for role in ROLES]
Found = TypeVar("Found")


def push_to_hub(guard: AnyGuard | str | Path, repository: str, *, private: bool = True, model: str = "") -> str:
    """Upload a guard, or the folder of one, to `repository` ("org/name") in one commit; gives its address.

    The repository is made where there is none, private unless told otherwise. The files of an older guard in it are
    removed by the same commit, and its README becomes the guard's card. Whose account it is, `hf auth login` decides.
    `model` says, for people, how the network of a guard in memory is made.

    Raises
    ------
    MissingExtraError
        Without the extra `hf`.
    DataError
        If the folder holds no whole guard, or the hub refuses.
    """
    if isinstance(guard, AnyGuard):
        with TemporaryDirectory() as place:
            guard.save(Path(place, "guard"), model=model)
            return push_to_hub(Path(place, "guard"), repository, private=private)
    hub, folder = _library(), Path(guard)
    artefact = artefact_of(folder)
    card = artefact.card(folder)  # all files are there, and are those that were written
    names = [MANIFEST, *(file.name for file in artefact.manifest(folder).files.values())]

    def upload() -> str:
        api = hub.HfApi()
        api.create_repo(repository, repo_type="model", private=private, exist_ok=True)
        stale = [
            hub.CommitOperationDelete(path_in_repo=name)
            for name in api.list_repo_files(repository)
            if name not in names and any(Path(name).match(pattern) for pattern in TENSORS)
        ]
        added = [hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(folder / name)) for name in names]
        added.append(hub.CommitOperationAdd(path_in_repo="README.md", path_or_fileobj=card.encode()))
        done = api.create_commit(repository, [*added, *stale], commit_message="A guard, with its card")
        return str(done.commit_url)

    return _told(f"cannot upload to {repository!r}", upload)


def from_hub(repository: str, model: nn.Module, *, revision: str | None = None) -> AnyGuard:
    """The guard of `repository` around `model`, a network of the architecture it was fitted for.

    Only its manifest and tensors are downloaded, and they are checked as `artefact.load` checks a folder. A `revision`
    (the hash of a commit) says which guard is meant, whatever the repository holds later.

    Raises
    ------
    MissingExtraError
        Without the extra `hf`.
    DataError, ModelError
        If the hub does not give it; as `artefact.load`.
    """
    hub = _library()
    folder = _told(
        f"cannot download {repository!r}",
        lambda: hub.snapshot_download(repository, revision=revision, allow_patterns=[MANIFEST, *TENSORS]),
    )
    return artefact_of(folder).load(folder, model)


def _library() -> Any:
    if find_spec("huggingface_hub") is None:
        raise MissingExtraError("huggingface_hub", "hf", "A guard on the hub")
    import huggingface_hub  # pyright: ignore[reportMissingImports] # an extra

    return huggingface_hub


def _told(what: str, call: Callable[[], Found]) -> Found:
    try:
        return call()
    except Exception as error:  # whatever the network and the hub may raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"repository: {what} ({reason}); check its name and  hf auth login") from None
