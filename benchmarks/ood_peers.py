"""One pass for all scores, against pytorch-ood's detectors called one after another as its documentation does.

The same 27 scores on the same network and inputs; each of pytorch-ood's runs the network itself, ours share one pass.
A plain forward pass is the floor. All three take turns in the same run; medians. The last line is JSON. Without
pytorch-ood (`make references`) there is nothing to compare, and the script says so.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from turns import in_turns

from caveat import heads, models
from caveat.observations import observe
from caveat.scoring import catalog
from caveat.scoring.kinds import Material

sys.path.append(str(Path(__file__).parents[1]))
from tests.references.peers import FOLDER, load_pytorch_ood

Batches = list[tuple[Tensor, Tensor]]


def batches_of(count: int, seed: int) -> Batches:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 1, 28, 28, generator=generator)
    labels = torch.arange(count) % 10
    return list(zip(images.split(250), labels.split(250), strict=True))


def fixed(net: nn.Sequential, train: Batches) -> None:
    """Let the head answer rightly now and then: pytorch-ood wants a right answer of every class to fit on."""
    seen = observe(net, train)
    head = net[-1]
    assert isinstance(head, nn.Linear)
    centred = seen.features - seen.features.mean(dim=0)
    wanted = nn.functional.one_hot(seen.labels, 10).float()
    ridged = centred.T @ centred + 10 * torch.eye(centred.shape[1])
    head.weight.data.copy_((torch.linalg.solve(ridged, centred.T @ wanted) * 10).T)
    head.bias.data.copy_(-(head.weight.data @ seen.features.mean(dim=0)))


def detectors(peer: ModuleType, net: nn.Sequential, train: Batches) -> dict[str, Callable[[Tensor], Tensor]]:
    """pytorch-ood's detectors by our names, made and fitted as its documentation does; the network is split by hand."""
    encoder, head = net[:-1], net[-1]
    weight, bias = head.weight, head.bias

    def backbone(inputs: Tensor) -> Tensor:
        return encoder(inputs)[:, :, None, None]

    def on_maps(maps: Tensor) -> Tensor:
        return head(maps.flatten(1))

    made = {
        "msp": peer.MaxSoftmax(net), "max_logit": peer.MaxLogit(net), "energy": peer.EnergyBased(net),
        "entropy": peer.Entropy(net), "gen": peer.GEN(net), "weighted_energy": peer.WeightedEBO(net, torch.ones(10)),
        "kl_matching": peer.KLMatching(net), "openmax": peer.OpenMax(net), "mahalanobis": peer.Mahalanobis(encoder),
        "relative_mahalanobis": peer.RMD(encoder), "gaussian_mixture": peer.GMM(encoder), "knn": peer.KNN(encoder),
        "nnguide": peer.NNGuide(encoder, head), "vim": peer.ViM(encoder, 64, weight, bias),
        "she": peer.SHE(encoder, head), "fdbd": peer.fDBD(encoder, head), "nci": peer.NCI(encoder, head),
        "pnml": peer.PNML(encoder, head), "dice": peer.DICE(encoder, weight, bias, p=0.7),
        "lts": peer.LTS(encoder, head), "react": peer.ReAct(backbone, on_maps), "vra": peer.VRA(backbone, on_maps),
        "ash_p": peer.ASH(backbone, on_maps, variant="ash-p"), "ash_b": peer.ASH(backbone, on_maps, variant="ash-b"),
        "ash_s": peer.ASH(backbone, on_maps, variant="ash-s"), "scale": peer.SCALE(backbone, on_maps),
        "gradnorm": peer.GradNorm(net, param_filter=lambda name: name == "head.weight"),
    }  # fmt: skip
    for detector in made.values():
        detector.to("cpu")
        if getattr(detector, "requires_fit", False):
            detector.fit(train)
    return made


def measure(peer: ModuleType, *, count: int, fit_count: int, repeats: int) -> dict[str, float]:
    """Time the forward pass, ours and pytorch-ood's, and print the table."""
    net, train, test = models.small_cnn().eval(), batches_of(fit_count, 1), batches_of(count, 2)
    fixed(net, train)
    theirs = detectors(peer, net, train)
    head = heads.find(net, test[0][0][:2])
    known = observe(net, train, head=head)
    fitted = catalog.fit(theirs, Material(known, head.head, known))
    each: dict[str, list[float]] = {name: [] for name in theirs}

    def forward() -> None:
        with torch.inference_mode():
            for inputs, _ in test:
                net(inputs)

    def ours() -> None:
        observed = observe(net, test, head=head)
        catalog.evaluate(fitted, {"test": observed})

    def one_by_one() -> None:
        for name, detector in theirs.items():
            started = time.perf_counter()
            for inputs, _ in test:
                detector(inputs)
            each[name].append(time.perf_counter() - started)

    found = in_turns(repeats, {"forward": forward, "ours": ours, "peer": one_by_one}, warm=False)
    slow = statistics.median(each["openmax"])
    table = Table(title=f"{count} inputs of 28x28, {len(theirs)} scores; fitted on {fit_count}")
    for column in ("", "seconds", "x forward"):
        table.add_column(column, justify="right")
    rows = {
        "plain forward": found["forward"], "ours, one pass": found["ours"],
        "pytorch-ood, one after another": found["peer"], "  without its OpenMax": found["peer"] - slow,
    }  # fmt: skip
    slowest = sorted(each, key=lambda name: -statistics.median(each[name]))
    rows |= {f"  {name}": statistics.median(each[name]) for name in slowest[:6]}
    for name, value in rows.items():
        table.add_row(name, f"{value:.3f}", f"{value / found['forward']:.2f}")
    Console().print(table)
    return {
        "pytorch_ood_over_ours": found["peer"] / found["ours"],
        "pytorch_ood_over_forward": found["peer"] / found["forward"],
        "ours_over_forward": found["ours"] / found["forward"],
        "pytorch_ood_without_openmax_over_ours": (found["peer"] - slow) / found["ours"],
    }


def main(arguments: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--smoke", action="store_true", help="a few inputs: does the script run?")
    smoke = options.parse_args(arguments).smoke
    peer = load_pytorch_ood()
    if peer is None:
        print(f"pytorch-ood is not in {FOLDER}: run make references, or set CAVEAT_REFERENCES")
        return
    torch.set_num_threads(1)
    sizes = (
        {"count": 100, "fit_count": 500, "repeats": 1} if smoke else {"count": 2000, "fit_count": 4000, "repeats": 5}
    )
    found = measure(peer, **sizes)
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))


if __name__ == "__main__":
    main()
