"""Audit: accuracy, calibration, misclassification and out-of-distribution (OOD) detection of a network you have.

python examples/audit_your_model.py
"""

import digits

import caveat

model = digits.trained()  # any nn.Module from inputs to logits, in evaluation mode
train = digits.loader(digits.TRAIN)  # DataLoaders, lists of batches, datasets, or arrays (X, y)
test = digits.loader(digits.HELD_OUT)  # labelled data the network was not trained on
unseen = digits.loader(digits.UNSEEN)  # inputs of no class of the network: their labels are not used

record = caveat.audit(model, test, train=train, ood={"8-and-9": unseen})
print(record.summary())

# Every number of the report is in the record, with its interval.
performance = record.calibrations[0].summary
print(f"accuracy {performance.accuracy.value:.1%} ({performance.accuracy.low:.1%} to {performance.accuracy.high:.1%})")
for calibration in record.calibrations[:2]:
    print(f"expected calibration error, {calibration.name}: {calibration.summary.ece.value:.1%}")
best = max(record.detections, key=lambda found: found.auroc.value)
print(f"best detector of {best.ood}: {best.score}, AUROC {best.auroc.value:.1%}")

record.save("record.json")
record.report("report.html")  # one page that opens offline
print("Open report.html")
