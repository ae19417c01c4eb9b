"""Training that teaches a network what it does not know: outlier exposure against plain cross-entropy.

    python examples/train_ood_aware.py

`caveat list objectives` has more (CEDA, ACET, GOOD, adversarial and certified training), and
`caveat train --objective 'acet(steps=10)'` trains without a line of Python.
"""

import digits
import torch

import caveat
from caveat import objectives, training

# Outliers must not be the OOD data that is judged on: here the training digits, inverted and upside down, and noise.
shown = digits.IMAGES[digits.TRAIN]
outliers = caveat.data.outliers.taken_from(torch.cat([1 - shown, shown.flip(2), torch.rand_like(shown)]))
unseen = {"8-and-9": digits.loader(digits.UNSEEN), "turned": [digits.IMAGES[digits.HELD_OUT].rot90(1, (2, 3))]}

for name, objective in {
    "cross-entropy": objectives.cross_entropy,
    "outlier exposure": objectives.OutlierExposure(weight=0.5, outliers=outliers),
}.items():
    torch.manual_seed(0)
    model = digits.network()
    training.fit(
        model,
        digits.loader(digits.TRAIN, shuffle=True),
        objective,
        optimizer=torch.optim.Adam(model.parameters(), lr=3e-3),
        epochs=12,
        generator=torch.Generator().manual_seed(0),
    )
    record = caveat.audit(model.eval(), digits.loader(digits.HELD_OUT), ood=unseen, scores=["msp"], calibrations=[])
    accuracy = record.calibrations[0].summary.accuracy.value
    found = ", ".join(f"{one.ood} {one.auroc.value:.1%}" for one in record.detections)
    print(f"{name:17} accuracy {accuracy:.1%}; AUROC of the maximum softmax probability: {found}")
