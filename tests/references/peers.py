"""Peer libraries, read from a folder of their own: `make references` fills it, CAVEAT_REFERENCES names another one."""

import importlib
import importlib.util
import os
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

FOLDER = Path(os.environ.get("CAVEAT_REFERENCES") or Path(__file__).parents[2] / ".references")
_operators: list[torch.library.Library] = []


def load_peer(name: str) -> ModuleType | None:
    """A peer library by its name (foolbox, torchattacks), or None where it is not installed."""
    if not (FOLDER / name).is_dir():
        return None
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))  # at the end: nothing of ours is shadowed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def load_pytorch_ood() -> ModuleType | None:
    """The detectors of pytorch_ood, or None where it is not installed."""
    if not (FOLDER / "pytorch_ood").is_dir():
        return None
    _declare_torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pytorch_ood.detector as pytorch_ood
    return pytorch_ood


def load_adv_lib() -> ModuleType | None:
    """The attacks of adv-lib, or None where it or what it imports (torchvision, tqdm) is not installed.

    It imports visdom for charts that no attack draws unless asked, and visdom has no wheel: an empty module stands in.
    """
    _declare_torchvision()
    if "visdom" not in sys.modules and importlib.util.find_spec("visdom") is None:
        empty: Any = ModuleType("visdom")
        empty.Visdom = object
        sys.modules["visdom"] = empty
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module("adv_lib.attacks")
        except ImportError:
            return None


def _declare_torchvision() -> None:
    """PyPI's torchvision has no compiled operators for a CPU build of torch; with two declared it can be imported."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))  # at the end: nothing of ours is shadowed
    if not _operators and not hasattr(torch.ops.torchvision, "nms"):
        _operators.append(torch.library.Library("torchvision", "DEF"))
        for operator in ("nms", "qnms"):
            _operators[0].define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
