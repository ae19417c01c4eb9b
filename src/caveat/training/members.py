"""Several networks trained from different seeds, in parallel processes if wanted, each of them resumable."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import nn

from caveat.errors import OptionError
from caveat.posteriors import ensemble
from caveat.training import checkpoint as files
from caveat.training import ranks

__all__ = ["members"]


def members(
    train: Callable[[int, Path], nn.Module],
    *,
    seeds: Sequence[int],
    folder: Path,
    processes: int = 1,
    only: Sequence[str] = (),
) -> ensemble.Ensemble:
    """Train one network a seed and put them together as a deep ensemble.

    A member that is done is not trained again: its weights stay in `folder` as `member-SEED.safetensors`. With several
    machines, give each some of the seeds and the same folder.

    Parameters
    ----------
    train
        `train(seed, checkpoint) -> model`: trains one network. Pass `checkpoint` on to `training.fit`, and a stopped
        member goes on where it was. In other processes it must be a function of a module (it is pickled by name).
    processes
        How many train at once; each gets its share of torch's threads.
    only
        Layers that make a sub-ensemble; see `posteriors.ensemble.of`.

    Raises
    ------
    OptionError
        If there are no seeds, one stands twice, or `processes` is not positive.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise OptionError(f"seeds: expected different seeds, at least one, got {list(seeds)}")
    if processes < 1:
        raise OptionError(f"processes: expected at least 1, got {processes}")
    folder.mkdir(parents=True, exist_ok=True)
    missing = ranks.by_first(lambda: [seed for seed in seeds if not _file(folder, seed).exists()])
    if processes == 1 or len(missing) < 2:
        for seed in missing:
            _train(train, seed, folder, None)
    else:
        threads = max(1, torch.get_num_threads() // processes)
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            for job in [pool.submit(_train, train, seed, folder, threads) for seed in missing]:
                job.result()
    ranks.by_first(lambda: None)  # until the last is written
    return ensemble.stack([files.load(_file(folder, seed))["weights"] for seed in seeds], only=only)


def _train(train: Callable[[int, Path], nn.Module], seed: int, folder: Path, threads: int | None) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    model = train(seed, folder / f"member-{seed}.checkpoint.safetensors")
    if ranks.first():
        files.save(_file(folder, seed), {"weights": ensemble.state(model)})


def _file(folder: Path, seed: int) -> Path:
    return folder / f"member-{seed}.safetensors"
