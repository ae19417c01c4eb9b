"""What the words of the report mean: shown when a term is pointed at, focused or tapped."""

__all__ = ["TERMS"]

TERMS: dict[str, str] = {
    "accuracy": "Share of in-distribution inputs whose label the network gets right. Higher is better.",
    "interval": "95 % bootstrap interval: where the value would fall if as many other inputs were drawn.",
    "nll": "Negative log-likelihood of the right label, in nats. Punishes confident mistakes. Lower is better.",
    "brier": "Mean squared distance between the probabilities and the right answer, 0 to 2. Lower is better.",
    "murphy": "Murphy's decomposition: Brier = calibration - refinement + uncertainty. "
    "Calibration: lower is better. Refinement: higher is better. Uncertainty belongs to the data.",
    "ece": "Expected calibration error: mean distance between confidence and accuracy over 15 bins of equal width. "
    "0 is perfect.",
    "ece_equal_mass": "The same with bins that hold equally many inputs. 0 is perfect.",
    "ece_classwise": "The same for every class's probability, then averaged over the classes. 0 is perfect.",
    "mce": "The largest distance between confidence and accuracy in any bin. Noisy where bins hold few inputs.",
    "confidence": "The largest of the network's class probabilities.",
    "auroc": "Share of pairs (one known, one OOD input) in which the OOD is trusted less. "
    "50 % is chance, 100 % perfect.",
    "aupr_in": "Area under precision and recall with the in-distribution inputs as positives. Higher is better; "
    "depends on how many there are of each.",
    "aupr_out": "Area under precision and recall with the OOD inputs as positives. Higher is better; "
    "a useless score gets the share of OOD inputs.",
    "fpr": "Share of the OOD inputs that still pass when the threshold keeps 95 % of the known. Lower is better.",
    "detection_error": "Smallest mean of the two error shares (known rejected, OOD passed) over all thresholds. "
    "0 is perfect, 50 % is chance.",
    "base_rate": "Share of OOD inputs in the comparison: the AUPR-Out of a useless score.",
    "selective_auroc": "Share of pairs (one right, one wrong answer) in which the wrong one is trusted less. "
    "50 % is chance, 100 % perfect.",
    "aurc": "Area under the risk-coverage curve: the mean error among the answers kept, over all shares kept. "
    "Lower is better.",
    "e_aurc": "AURC above that of an ideal order, which rejects every mistake first. 0 is perfect.",
    "best": "Highest mean AUROC over the OOD sets, so known only by looking at them. Generated sets count as one.",
    "chosen": "Best by what can be known without OOD data: no OOD set was looked at to choose it.",
    "merit": "How well the score does at questions that in-distribution data alone can answer, 0 to 1. "
    "Higher is better.",
    "estimated": "Mean calibrated confidence: the accuracy to expect if the inputs are of the in-distribution kind. "
    "On inputs of another kind it is usually too high.",
    "unlabelled": "Inputs whose labels are not known, so that accuracy cannot be measured.",
    "conformal": "A set of classes in place of one: as large as it must be to hold the right class at a promised rate.",
    "coverage": "Share of in-distribution inputs whose set holds the right class. It should be no less than promised.",
    "set_size": "Mean number of classes in a set. Smaller is more useful on in-distribution inputs; "
    "on OOD ones a large or an empty set is a warning.",
    "total": "Predictive entropy: entropy of the networks' mean answer, in nats. Aleatoric + epistemic.",
    "aleatoric": "Expected entropy: how unsure each network is for itself, on the mean. More data would not remove it.",
    "epistemic": "Mutual information of answer and network: how far the networks disagree. More data would remove it.",
    "agreement": "Share of the networks that vote for the most voted class.",
    "gradients": "Of the loss of the network's own answer, by its parameters: sums, extremes, mean, skewness and "
    "kurtosis of its entries. Norms are small where the network is sure.",
    "importance": "AUROC (wrong and OOD against right) that is lost when these columns are shuffled over the "
    "inputs. Near 0: not needed, perhaps because others say the same.",
    "coefficient": "Of columns brought to mean 0 and deviation 1, so that their sizes compare. "
    "Positive: higher means less trustworthy.",
    "robust": "Share of the attacked inputs that no change found within the radius made the network answer wrongly. "
    "An upper bound: another attack may find more.",
    "guard": "The network with a calibration, a score and a threshold: it answers or abstains.",
    "answered_error": "Share of wrong answers among the in-distribution inputs that the guard answers.",
    "score": "A number per input: higher means less trustworthy. An answer is accepted when it is at or below the "
    "threshold.",
    "known": "Inputs of the kind the network was made for.",
    "ood": "Inputs of another kind: no class of the network fits, so the right answer is to abstain.",
    "generated": "Made by a formula, not taken from the world. Such sets are easy: passing them proves little.",
}
