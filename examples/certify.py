"""Adversarial robustness from both sides: what an attack breaks, and what no attack can (a certificate).

    python examples/certify.py

verified share <= true robust accuracy <= accuracy under attack, at every radius.
"""

import digits
import torch

from caveat import attacks, bounds

model = digits.trained()
inputs, labels = digits.IMAGES[digits.HELD_OUT[:25]], digits.LABELS[digits.HELD_OUT[:25]]

print("radius (Linf)   verified   accuracy under attack   open")
for radius in (0.005, 0.02, 0.05):
    ball = attacks.Ball(torch.inf, radius)  # norm inf, 2 or 1; values stay in [0, 1]
    found = bounds.certify(model, inputs, labels, ball, method="deeppoly")  # interval, deeppoly, alpha, branch
    attacked = attacks.pgd(model, inputs, labels, ball, generator=torch.Generator().manual_seed(0))
    standing = model(attacked).argmax(dim=1) == labels
    assert not (found.verified & ~standing).any(), "an attack that beats a certificate: one of the two would be wrong"
    shares = [float(part.float().mean()) for part in (found.verified, standing, found.open)]
    print(f"{radius:<15} {shares[0]:8.1%} {shares[1]:23.1%} {shares[2]:6.1%}")

# The nearest input with another answer: an upper bound of the radius within which the answer stays.
nearest = attacks.fmn(model, inputs, labels, norm=2, steps=30)
print(f"median L2 distance of the nearest adversarial example: {float(nearest.l2.median()):.2f}")
