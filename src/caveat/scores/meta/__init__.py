"""Meta classification: is this answer wrong, or the input OOD? Learned from any columns of scores.

Fitted on answers of held-out data of which it is known whether they were right, and on a few inputs that are known to
be OOD (200 pictures of noise go far). scikit-learn does the fitting; the result is a frozen dataclass of tensors,
and a score like any other: the probability that the answer is wrong or the input OOD.
"""

from caveat.scores.meta.importance import groups, importances
from caveat.scores.meta.linear import Linear, Path, elastic_net, glm, lasso, path, ridge
from caveat.scores.meta.network import Network, network
from caveat.scores.meta.preparation import Preparation, prepare
from caveat.scores.meta.trees import Trees, trees

__all__ = [
    "Linear",
    "Network",
    "Path",
    "Preparation",
    "Trees",
    "elastic_net",
    "glm",
    "groups",
    "importances",
    "lasso",
    "network",
    "path",
    "prepare",
    "ridge",
    "trees",
]
