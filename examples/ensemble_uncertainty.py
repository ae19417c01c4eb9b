"""A deep ensemble: which part of the uncertainty would more data remove?

    python examples/ensemble_uncertainty.py

Total uncertainty (entropy of the mean prediction) = aleatoric (mean entropy of the members, noise of the labels)
+ epistemic (mutual information: what the members disagree on).
"""

import digits

import caveat
from caveat import posteriors

members = [digits.trained(seed=seed) for seed in range(3)]
many = posteriors.Predictive(members[0], posteriors.ensemble.of(members)).eval()  # goes wherever a model goes
# posteriors.Predictive(model, posteriors.dropout.of(model)): the same with MC dropout

record = caveat.audit(
    many,
    digits.loader(digits.HELD_OUT),
    train=digits.loader(digits.TRAIN),
    ood={"8-and-9": digits.loader(digits.UNSEEN)},
    scores=["msp", "predictive_entropy", "expected_entropy", "mutual_information"],
    calibrations=["temperature"],
)
draws = record.draws
assert draws is not None
print(f"{'set':12} {'total':>8} {'aleatoric':>10} {'epistemic':>10}   nats, mean")
for one in draws.sets:
    print(f"{one.set:12} {one.total:8.3f} {one.aleatoric:10.3f} {one.epistemic:10.3f}")

print(f"\n{'members':12} {'accuracy':>8} {'NLL':>10} {'ECE':>10}")
for gain in draws.gain:
    print(f"{gain.draws:<12} {gain.accuracy:8.1%} {gain.nll:10.3f} {gain.ece:10.3f}")
for found in record.detections:
    print(f"AUROC of {found.score} on {found.ood}: {found.auroc.value:.1%}")
