"""Outputs of any framework: save logits and labels as npz, audit them without the model. Here scikit-learn's.

    python examples/from_sklearn_outputs.py
    caveat audit --logits outputs.npz -o audit/        # the same from the command line

JAX, TensorFlow, ONNX, an API: whatever gives one number for every class. Logarithms of probabilities are logits.
"""

from pathlib import Path

import digits
import numpy as np
from sklearn.linear_model import LogisticRegression

from caveat.audits import audit_arrays

pixels, labels = digits.IMAGES.flatten(1).numpy(), digits.LABELS.numpy()
classifier = LogisticRegression(max_iter=500).fit(pixels[digits.TRAIN], labels[digits.TRAIN])

np.savez(
    "outputs.npz",
    **{
        "logits": classifier.decision_function(pixels[digits.HELD_OUT]),  # or predict_log_proba
        "labels": labels[digits.HELD_OUT],
        "classes": classifier.classes_.astype(str),
        "train/logits": classifier.decision_function(pixels[digits.TRAIN]),  # scores that are fitted
        "train/labels": labels[digits.TRAIN],
        "8-and-9/logits": classifier.decision_function(pixels[digits.UNSEEN]),  # an OOD set called 8-and-9
        "features": pixels[digits.HELD_OUT],  # where there are some: what the last linear layer sees
        "train/features": pixels[digits.TRAIN],
        "8-and-9/features": pixels[digits.UNSEEN],
        "weight": classifier.coef_,
        "bias": classifier.intercept_,
    },
)

record = audit_arrays(Path("outputs.npz"))
print(record.summary())
for found in sorted(record.detections, key=lambda one: one.auroc.value, reverse=True)[:5]:
    print(f"AUROC of {found.score} on {found.ood}: {found.auroc.value:.1%}")
