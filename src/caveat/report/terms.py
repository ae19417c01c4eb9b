"""What the words of the report mean: shown when a term is pointed at, focused or tapped."""

__all__ = ["TERMS"]

TERMS: dict[str, str] = {
    "accuracy": "Share of in-distribution inputs that are predicted correctly. Higher is better.",
    "interval": "95 % confidence interval: in 95 of 100 audits it holds the value that infinitely many inputs would "
    "give.",
    "nll": "Negative log-likelihood of the true label, in nats. Confident wrong predictions cost most. Lower is "
    "better.",
    "brier": "Mean squared distance between the probabilities and the one-hot true label, 0 to 2. Lower is better.",
    "murphy": "Murphy's decomposition: Brier = calibration - refinement + uncertainty. Calibration: lower is better. "
    "Refinement: higher is better. Uncertainty belongs to the data.",
    "ece": "Expected calibration error: mean distance between confidence and accuracy over 15 bins of equal width. 0 "
    "is perfect.",
    "ece_equal_mass": "The same with bins that hold equally many inputs. 0 is perfect.",
    "ece_classwise": "The same for every class's probability, then averaged over the classes. 0 is perfect.",
    "mce": "The largest distance between confidence and accuracy in any bin. Noisy where bins hold few inputs.",
    "confidence": "The largest of the predicted class probabilities.",
    "accepted": "Share of the OOD inputs that a guard accepts. Its threshold was set on the calibration split, on "
    "which nothing is evaluated. Lower is better.",
    "recall": "Share of the inputs of this class that are predicted correctly: its recall.",
    "class_auroc": "Share of pairs (one correct and one wrong prediction of this class) in which the wrong one gets "
    "the higher score. None where one of them is missing.",
    "class_accepted": "Share of the inputs of this class that the previewed guard accepts.",
    "auroc": "Share of pairs (one in-distribution and one OOD input) in which the OOD input gets the higher score. 50 "
    "% is chance, 100 % perfect.",
    "aupr_in": "Area under precision and recall with the in-distribution inputs as positives. Higher is better; "
    "depends on how many there are of each.",
    "aupr_out": "Area under precision and recall with the OOD inputs as positives. Higher is better; a useless score "
    "gets the share of OOD inputs.",
    "fpr": "Share of the OOD inputs that are accepted at the threshold that accepts 95 % of the in-distribution "
    "inputs it is evaluated on: the literature's figure, to compare scores. What a guard accepts is in its section. "
    "Lower is better.",
    "detection_error": "Smallest mean of the two error rates (in-distribution inputs rejected, OOD inputs accepted) "
    "over all thresholds. 0 is perfect, 50 % is chance.",
    "base_rate": "Share of OOD inputs in the comparison: the AUPR-Out of a useless score.",
    "selective_auroc": "Share of pairs (one correct and one wrong prediction) in which the wrong one gets the higher "
    "score. 50 % is chance, 100 % perfect.",
    "aurc": "Area under the risk-coverage curve: the error among the accepted predictions, averaged over all "
    "coverages. Lower is better.",
    "e_aurc": "Excess AURC: above that of an ideal order, which rejects every wrong prediction first. 0 is perfect.",
    "best": "Highest mean AUROC over the real OOD sets, so it is known only by looking at them. Generated sets count "
    "only where there are no real ones.",
    "chosen": "The score that is best by what in-distribution data can tell; no OOD set was used to choose it.",
    "merit": "How well the score ranks wrong and atypical in-distribution inputs, from in-distribution data alone; 0 "
    "to 1. Higher is better.",
    "estimated": "Mean calibrated confidence: the accuracy to expect if the inputs are in-distribution. On others it "
    "is usually too high.",
    "unlabelled": "Inputs without labels, so that accuracy cannot be measured.",
    "conformal": "Predicts a set of classes in place of one: as large as it must be to hold the true class at a "
    "guaranteed rate.",
    "coverage": "Share of in-distribution inputs whose prediction set holds the true class. On average over "
    "calibration splits it is no less than guaranteed; with one split it may be a little less.",
    "set_size": "Mean number of classes in a set. Smaller is more useful on in-distribution inputs; on OOD ones a "
    "large or an empty set is a warning.",
    "total": "Predictive entropy: entropy of the mean prediction, in nats. Aleatoric + epistemic.",
    "aleatoric": "Expected entropy: the mean entropy of the predictions of the ensemble members or posterior samples. "
    "More data would not remove it.",
    "epistemic": "Mutual information of prediction and weights: how far the members or samples disagree. More data "
    "would reduce it.",
    "agreement": "Share of the members or samples that predict the most predicted class.",
    "gradients": "Of the loss of the predicted label, by the parameters: sums, extremes, mean, skewness and kurtosis "
    "of its entries. Norms are small where the model is confident.",
    "importance": "AUROC (wrong and OOD against correct) that is lost when these columns are shuffled over the "
    "inputs. Near 0: not needed, perhaps because other columns carry the same information.",
    "coefficient": "Of standardised columns (mean 0, standard deviation 1), so that their sizes compare. Positive: "
    "higher means less trustworthy.",
    "robust": "Robust accuracy: share of the attacked inputs that stay correctly predicted under every change that "
    "was tried. An upper bound: another attack may find more.",
    "guard": "The model with a calibration, a score and a threshold: it predicts or abstains.",
    "answered_error": "Share of wrong predictions among the in-distribution inputs that the guard accepts.",
    "score": "A number per input: higher means less trustworthy. A prediction is accepted when its score is at or "
    "below the threshold.",
    "known": "Inputs from the distribution that the model was trained for; here the evaluation split of the test set.",
    "ood": "Inputs of another kind: no class of the model fits, so the model should abstain.",
    "generated": "Made by a formula, not taken from the world. Such sets are easy to detect, so detecting them proves "
    "little.",
}
