"""UCI concrete, 20 splits: an ensemble of 5 heteroscedastic networks, its CQR intervals and its guard.

Of each split's training part a fifth is held out for the intervals; the test part is never looked at before. Source of
the protocol: Hernández-Lobato and Adams, ICML 2015; of the yardstick: Lakshminarayanan et al., NeurIPS 2017, table 1
(concrete, ensembles: RMSE 6.03 ± 0.58, NLL 3.06 ± 0.18). Needs CAVEAT_DATA/uci. The last line is JSON.
"""

import argparse
import json
import math

import torch
from scipy.stats import binom

from caveat import calibration, posteriors
from caveat.data.number_files import open_uci_part
from caveat.guard.regression import decide, predicted
from caveat.metrics import regression as metrics
from caveat.models import regressor
from caveat.models.standardized import standardized
from caveat.objectives import heteroscedastic
from caveat.observations import observe_outputs
from caveat.scores.distribution import LEVELS
from caveat.training import recipe

ERROR, KEEP, MEMBERS = 0.1, 0.9, 5


def ensemble(inputs, labels, seed, epochs):
    """Five networks of one hidden layer of 50 units."""
    from dataclasses import replace

    from caveat.data import Numbers

    rows = Numbers("concrete", inputs, labels, None, None, 100)
    nets = []
    for k in range(MEMBERS):
        generator = torch.Generator().manual_seed(1000 * seed + k)
        net = standardized(regressor(inputs=inputs.shape[1], generator=generator), inputs, labels)
        recipe.train(
            net, replace(rows), epochs=epochs, rate=0.03, batch=100, generator=generator, goal=heteroscedastic,
        )  # fmt: skip
        nets.append(net.eval())
    return posteriors.Predictive(nets[0], posteriors.ensemble.of(nets)).eval()


def one(number, epochs):
    """Figures of one split."""
    train, test = (open_uci_part(f"concrete:{part}:{number}", name="concrete") for part in ("train", "test"))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(number))
    held, rest = order[: len(train) // 5], order[len(train) // 5 :]
    net = ensemble(train.inputs[rest], train.labels[rest], number, epochs)

    def found(inputs, labels):
        seen = observe_outputs(net, [(inputs, labels)])
        return predicted(net, seen.values, "gaussian", LEVELS)

    tuning, new = found(train.inputs[held], train.labels[held]), found(test.inputs, test.labels)
    labels = train.labels[held]
    lower, upper = calibration.cqr.fit(*tuning.interval(ERROR), labels, error=ERROR)(*new.interval(ERROR))
    own = new.interval(ERROR)
    made = decide(tuning, labels, form="gaussian", keep=KEEP, error=ERROR, seed=number)
    accepted = new.epistemic <= made.promise.threshold
    ends = made.ends(new)
    law = new.law
    return {
        "rmse": float(metrics.rmse(new.mean, test.labels)),
        "nll": float(metrics.mixture_nll(law.mean, law.variance, test.labels, weights=law.weight)),
        "n": len(test),
        "own": int(((own[0] <= test.labels) & (test.labels <= own[1])).sum()),
        "cqr": int(((lower <= test.labels) & (test.labels <= upper)).sum()),
        "width": float((upper - lower).mean()),
        "accepted": int(accepted.sum()),
        "inside": int(((ends[0] <= test.labels) & (test.labels <= ends[1]) & accepted).sum()),
    }  # fmt: skip


def main():
    """Print a line for each split, then the totals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for number in range(options.splits):
        rows.append(one(number, options.epochs))
        print(number, {key: round(value, 3) for key, value in rows[-1].items()}, flush=True)
    total = {key: sum(row[key] for row in rows) for key in ("n", "own", "cqr", "accepted", "inside")}
    # what 90 % comes to in so many labels, by chance, nineteen times in twenty
    low, high = (float(end) / total["n"] for end in binom.interval(0.95, total["n"], 1 - ERROR))

    def spread(key):
        values = torch.tensor([row[key] for row in rows], dtype=torch.float64)
        return f"{values.mean():.2f} ± {values.std() / math.sqrt(len(values)) if len(values) > 1 else 0:.2f}"

    print(json.dumps({
        "splits": len(rows), "rmse": spread("rmse"), "nll": spread("nll"), "width": spread("width"),
        "own_coverage": round(total["own"] / total["n"], 4), "cqr_coverage": round(total["cqr"] / total["n"], 4),
        "binomial_interval": [round(low, 4), round(high, 4)],
        "guard_accepts": round(total["accepted"] / total["n"], 4), "guard_promised": KEEP,
        "coverage_of_accepted": round(total["inside"] / total["accepted"], 4),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
