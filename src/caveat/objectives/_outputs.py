"""What the objectives of regression ask of a network and its labels, so that the messages agree."""

from torch import Tensor, nn

from caveat.errors import DataError, ModelError

__all__ = ["outputs_for"]


def outputs_for(model: nn.Module, inputs: Tensor, labels: Tensor, *, what: str, count: int | None = None) -> Tensor:
    """The model's outputs `(n, k)` for real labels `(n,)`, if they fit together.

    Raises
    ------
    DataError
        If the labels are no real numbers `(n,)`.
    ModelError
        If the outputs are not `(n, count)`; any number of columns if `count` is None.
    """
    if not labels.is_floating_point() or labels.shape != inputs.shape[:1]:
        raise DataError(
            f"labels: expected real numbers of shape ({len(inputs)},), got {labels.dtype} {tuple(labels.shape)}"
        )
    outputs: Tensor = model(inputs)
    if outputs.ndim != 2 or len(outputs) != len(labels) or (count is not None and outputs.shape[1] != count):
        columns = "k" if count is None else count
        raise ModelError(f"model: expected outputs ({len(labels)}, {columns}), {what}, got {tuple(outputs.shape)}")
    return outputs
