"""Choose a score for out-of-distribution (OOD) detection without OOD data, then see how good the choice was.

    python examples/choose_a_score.py

No score is best everywhere. A guard with `score="auto"` takes the one that, on in-distribution data alone, best detects
a class that it was kept ignorant of and the network's own mistakes; OOD data, where you have some, are the test of it.
"""

import digits

import caveat

model, test = digits.trained(), digits.loader(digits.HELD_OUT)
record = caveat.audit(
    model, test, train=digits.loader(digits.TRAIN), ood={"8-and-9": digits.loader(digits.UNSEEN)}, calibrations=[]
)

chosen = record.choice
assert chosen is not None  # there were at least three classes to choose on
print(chosen.why)

found = {one.score: one.auroc.value for one in record.detections}
print(f"{'score':24} {'merit, without OOD data':>24} {'AUROC on 8 and 9':>18}")
for name in sorted(chosen.figures, key=chosen.figures.__getitem__, reverse=True)[:8]:
    print(f"{name:24} {chosen.figures[name]:24.3f} {found[name]:18.3f}")

# One score by hand: a function of observations; higher means less trustworthy, for every score.
observed = caveat.observe(model, test)
entropy = caveat.scores.logits.entropy(observed.logits)
print(
    f"the least trustworthy held-out digit by entropy: number {int(entropy.argmax())}, {float(entropy.max()):.2f} nats"
)
