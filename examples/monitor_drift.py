"""Watch a guard at work: an alarm when its inputs are no longer those it was fitted on.

    python examples/monitor_drift.py

It may be looked at after every input: all alarms together are false with a probability of at most `level`, however
often one looks. From the command line: `caveat guard run` and `caveat guard monitor`.
"""

import digits
import torch

import caveat
from caveat.guard.monitor import Monitor

model = digits.trained()
half = len(digits.HELD_OUT) // 2
guard = caveat.Guard.fit(model, digits.loader(digits.HELD_OUT[:half]), score="energy", keep=0.95)
decision = guard.decision
watch = Monitor(decision.reference, decision.reference_wrong, decision.promise, level=0.01)

# A stream: digits like those before; from day 7 on, two in five are of a kind that the network was never shown.
generator = torch.Generator().manual_seed(0)
fresh, new = digits.IMAGES[digits.HELD_OUT[half:]], digits.IMAGES[digits.UNSEEN]
for day in range(1, 15):
    images = fresh[torch.randint(len(fresh), (50,), generator=generator)]
    if day >= 7:
        images[:20] = new[torch.randint(len(new), (20,), generator=generator)]
    verdict = guard(images)
    alarms = watch.update(verdict.score.numpy(), verdict.accepted.numpy())
    print(f"day {day:2}: {verdict.accepted.float().mean():4.0%} accepted")
    if alarms:
        break
print(*watch.sentences(), sep="\n")
