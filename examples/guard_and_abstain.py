"""A guard: the network predicts, or abstains, with a guarantee (selective prediction).

python examples/guard_and_abstain.py
"""

import digits
import torch

import caveat

model = digits.trained()
half = len(digits.HELD_OUT) // 2
held_out, fresh = digits.HELD_OUT[:half], digits.HELD_OUT[half:]

# keep: a new in-distribution input is accepted with at least this probability.
guard = caveat.Guard.fit(model, digits.loader(held_out), train=digits.loader(digits.TRAIN), score="auto", keep=0.95)

known, unknown = guard(digits.IMAGES[fresh]), guard(digits.IMAGES[digits.UNSEEN])
right = known.predicted == digits.LABELS[fresh]
print(f"score: {known.score_name}, chosen on in-distribution data alone")
print(f"digits 0 to 7: {known.accepted.float().mean():.1%} accepted; right {right.float().mean():.1%} of all,")
print(f"  {right[known.accepted].float().mean():.1%} of the accepted")
print(f"digits 8 and 9, which the network was never shown: {unknown.accepted.float().mean():.1%} accepted")
print(unknown.explain(int(unknown.score.argmax())))

broken = guard(torch.full((1, 1, 8, 8), torch.nan))
print(broken.explain(0))

guard.save("guard")  # safetensors and JSON with hashes; the code of the network stays yours
again = caveat.Guard.load("guard", digits.network())
assert torch.equal(again(digits.IMAGES[fresh]).accepted, known.accepted)

# Or: at most this share of the accepted predictions is wrong, at 95 % confidence. What the data cannot support is
# refused with the reason.
try:
    caveat.Guard.fit(model, digits.loader(held_out), score="msp", max_error=0.001)
except caveat.errors.CaveatError as error:
    print(f"refused: {error}")
