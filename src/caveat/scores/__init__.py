"""How far may this one answer be trusted? Every score: higher = less trustworthy.

The tables at the end say what each score needs. What needs no fitting is a function of logits. What is fitted is a
frozen dataclass that `fit` returns, called on features.
"""

from collections.abc import Callable
from typing import Any

from caveat.scores import (
    activations,
    ash,
    cosine,
    dice,
    distribution,
    draws,
    evidential,
    fdbd,
    gaussian_mixture,
    gradients,
    gradnorm,
    gram,
    kl_matching,
    knn,
    logits,
    lts,
    mahalanobis,
    mahalanobis_layers,
    mahalanobis_odin,
    mc_dropout,
    meta,
    moments,
    multilabel,
    nac,
    nci,
    nnguide,
    odin,
    openmax,
    pnml,
    pooled,
    rankfeat,
    react,
    reconstruction,
    regression,
    relative_mahalanobis,
    residual,
    scale,
    shaped_maps,
    she,
    vim,
    vra,
    weighted_energy,
)

__all__ = [
    "FROM_COLUMNS",
    "FROM_DRAWS",
    "FROM_DROPOUT",
    "FROM_FEATURES",
    "FROM_GAUSSIANS",
    "FROM_GRADIENTS",
    "FROM_HEAD",
    "FROM_KNOWN_LOGITS",
    "FROM_LAYERS",
    "FROM_LOGITS",
    "FROM_MAPS",
    "FROM_MODEL",
    "FROM_MOMENTS",
    "FROM_RAW_LOGITS",
    "FROM_RECONSTRUCTION",
    "FROM_SIGMOIDS",
    "FROM_STEPS",
    "FROM_UNIFORM_GRADIENTS",
    "activations",
    "ash",
    "cosine",
    "dice",
    "distribution",
    "draws",
    "evidential",
    "fdbd",
    "gaussian_mixture",
    "gradients",
    "gradnorm",
    "gram",
    "kl_matching",
    "knn",
    "logits",
    "lts",
    "mahalanobis",
    "mahalanobis_layers",
    "mahalanobis_odin",
    "mc_dropout",
    "meta",
    "moments",
    "multilabel",
    "nac",
    "nci",
    "nnguide",
    "odin",
    "openmax",
    "pnml",
    "pooled",
    "rankfeat",
    "react",
    "reconstruction",
    "regression",
    "relative_mahalanobis",
    "residual",
    "scale",
    "shaped_maps",
    "she",
    "vim",
    "vra",
    "weighted_energy",
]

FROM_LOGITS: dict[str, Callable[..., Any]] = {
    "msp": logits.msp,
    "entropy": logits.entropy,
    "margin": logits.margin,
    "doctor": logits.doctor,
    "gen": logits.gen,
}
"""`score(logits)`; adding a constant to all logits of a sample changes nothing."""

FROM_RAW_LOGITS: dict[str, Callable[..., Any]] = {
    "max_logit": logits.max_logit,
    "energy": logits.energy,
}
"""`score(logits)`; the level of the logits counts."""

FROM_KNOWN_LOGITS: dict[str, Callable[..., Any]] = {
    "weighted_energy": weighted_energy.fit,
    "kl_matching": kl_matching.fit,
    "openmax": openmax.fit,
}
"""`fit(logits, labels) -> score(logits)`."""

FROM_DRAWS: dict[str, Callable[..., Any]] = {
    "predictive_entropy": draws.predictive_entropy,
    "expected_entropy": draws.expected_entropy,
    "mutual_information": draws.mutual_information,
    "variation_ratio": draws.variation_ratio,
    "draw_variance": draws.draw_variance,
    "mean_msp": draws.mean_msp,
    "pairwise_kl": draws.pairwise_kl,
}
"""`score(draws)` of the logits `(s, n, c)` of an ensemble or of posterior samples."""

FROM_DROPOUT: dict[str, Callable[..., Any]] = {
    "dropout_msp": draws.mean_msp,
    "dropout_entropy": draws.predictive_entropy,
    "dropout_information": draws.mutual_information,
    "dropout_variance": draws.draw_variance,
}
"""`score(draws)`, as `FROM_DRAWS`, of one network with dropout, whose draws `mc_dropout.probe(model, inputs)` makes."""

FROM_MOMENTS: dict[str, Callable[..., Any]] = {
    "mahalanobis": mahalanobis.from_moments,
    "relative_mahalanobis": relative_mahalanobis.from_moments,
    "cosine": cosine.from_moments,
}
"""`from_moments(moments) -> score(features)`; the module's `fit(features, labels)` gathers the moments itself."""

FROM_FEATURES: dict[str, Callable[..., Any]] = {
    "gaussian_mixture": gaussian_mixture.fit,
    "knn": knn.fit,
}
"""`fit(features, labels) -> score(features)`."""

FROM_HEAD: dict[str, Callable[..., Any]] = {
    "vim": vim.fit,
    "residual": residual.fit,
    "nnguide": nnguide.fit,
    "she": she.fit,
    "fdbd": fdbd.fit,
    "nci": nci.fit,
    "pnml": pnml.fit,
    "gradnorm": gradnorm.fit,
    "react": react.fit,
    "vra": vra.fit,
    "ash_p": ash.pruned,
    "ash_b": ash.binarised,
    "ash_s": ash.scaled,
    "scale": scale.fit,
    "lts": lts.fit,
    "dice": dice.fit,
}
"""`fit(features, labels, head) -> score(features)`; `head` is weight and bias of the last linear layer."""

FROM_LAYERS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "mahalanobis_layers": (pooled.probe, mahalanobis_layers.fit),
    "gram": (gram.probe, gram.fit),
    "nac": (nac.probe, nac.fit),
}
"""`probe(activations)`, then `fit(probed, logits, labels, probe) -> score(probed, logits)`."""

FROM_MAPS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "rankfeat": (rankfeat.probe, rankfeat.fit),
    "ash_p_maps": (shaped_maps.to_prune, shaped_maps.pruned),
    "ash_b_maps": (shaped_maps.to_binarise, shaped_maps.binarised),
    "ash_s_maps": (shaped_maps.to_scale, shaped_maps.scaled),
    "scale_maps": (shaped_maps.to_stretch, shaped_maps.stretched),
}
"""`probe(activations, features)`, then `fit(head) -> score(probed, logits)`."""

FROM_MODEL: dict[str, Callable[..., Any]] = {
    "odin": odin.choose,
}
"""`choose(model, inputs, labels) -> probe`, whose numbers are the score."""

FROM_STEPS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "mahalanobis_odin": (mahalanobis_odin.choose, mahalanobis_odin.fit),
}
"""`choose(model, inputs, labels, *, head, pooled) -> probe`, then `fit(moments, *, dtype) -> score(probed)` of the
moments of unperturbed features."""

FROM_RECONSTRUCTION: dict[str, Callable[..., Any]] = {
    "reconstruction": reconstruction.choose,
}
"""As `FROM_MODEL`, for models that reconstruct their inputs too."""

FROM_GRADIENTS: dict[str, Callable[..., Any]] = {
    "grad_l1": gradients.l1,
    "grad_l2": gradients.l2,
    "grad_max": gradients.largest,
    "grad_min": gradients.smallest,
}
"""`score(probed)` of what one shared `gradients.probe(model, inputs)` gives; in its last seven columns, all parameters.

Mean, skewness and kurtosis have no direction in which trust falls; they are there for meta classification.
"""

FROM_UNIFORM_GRADIENTS: dict[str, Callable[..., Any]] = {
    "grad_uncertainty": gradients.uncertainty,
}
"""`score(probed)` of what `gradients.probe(model, inputs, target="uniform")` gives."""

FROM_GAUSSIANS: dict[str, Callable[..., Any]] = {
    "total_variance": regression.total,
    "aleatoric_variance": regression.aleatoric,
    "epistemic_variance": regression.epistemic,
    "entropy_bound": regression.entropy_bound,
}
"""`score(mean, variance)` of the Gaussians `(s, n)` of a regression network's draws."""

FROM_SIGMOIDS: dict[str, Callable[..., Any]] = {
    "joint_energy": multilabel.joint_energy,
    "max_label": multilabel.max_label,
    "binary_entropy": multilabel.binary_entropy,
    "label_disagreement": multilabel.label_disagreement,
}
"""`score(logits)` of the logits `(s, n, c)` of a multi-label network's draws (of one network, s = 1); None where one
network does not tell it."""

FROM_COLUMNS: dict[str, Callable[..., Any]] = {
    "meta_glm": meta.glm,
    "meta_lasso": meta.lasso,
    "meta_ridge": meta.ridge,
    "meta_elastic_net": meta.elastic_net,
    "meta_network": meta.network,
    "meta_trees": meta.trees,
}
"""`fit(columns, wrong) -> score(columns)` of any columns of scores; in audits and guards, those of the gradient probe
and the entropy. `wrong` marks the wrong answers and the inputs that are known to be OOD."""
