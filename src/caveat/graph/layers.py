"""How linear maps, convolutions, normalisation, activations and pooling are lowered."""

from typing import Any

from torch import Tensor

from caveat.graph.operations import AvgPool, Conv, Curve, Linear, MaxPool, Pad, Relu, Scale
from caveat.graph.value import Adds, Given, Lower, Shapes, Unsuited, Value, need_constant, numbers

__all__ = [
    "adaptive",
    "avg_pool",
    "batch_norm",
    "clip",
    "convolution",
    "curve",
    "first",
    "linear",
    "max_pool",
    "product",
    "relu",
    "relu6",
    "same",
]


def same(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
    """Nothing happens to the values."""
    del adds, shapes, where
    if given.get("train") or given.get("training"):
        raise Unsuited("it is in training mode")
    return given["input"] if "input" in given else given["self"]


def linear(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
    """x W^T + b with constant W and b."""
    weight, bias = given["weight"], given.get("bias")
    need_constant(weight, bias)
    return adds.add(Linear(weight, bias), (given["input"],), shapes[0], where)


def product(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
    """x W (+ b), as matmul, mm and addmm write it."""
    x, weight = (given["self"], given.get("other", given.get("mat2"))) if "mat1" not in given else (
        given["mat1"], given["mat2"]
    )  # fmt: skip
    bias = given["self"] if "mat1" in given else None
    if not isinstance(x, Value) or not isinstance(weight, Tensor) or weight.ndim != 2:
        raise Unsuited("expected a value times a constant matrix")
    if bias is not None and isinstance(bias, Value):
        raise Unsuited("expected a constant bias")
    if bias is not None and (given["beta"] != 1 or given["alpha"] != 1):
        raise Unsuited("expected beta=1 and alpha=1; multiply the bias and the weight by them before")
    return adds.add(Linear(weight.T.contiguous(), bias), (x,), shapes[0], where)


def convolution(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
    """A convolution, with numbers or words for its padding."""
    weight, bias = given["weight"], given.get("bias")
    need_constant(weight, bias)
    if given.get("transposed"):
        raise Unsuited("transposed convolutions are not in the list of operations")
    axes = weight.ndim - 2
    stride, dilation = numbers(given["stride"], axes), numbers(given["dilation"], axes)
    padding, x = given["padding"], given["input"]
    if padding == "same":  # the odd one out goes to the end, as in PyTorch
        total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        widths = [w for t in reversed(total) for w in (t // 2, t - t // 2)]
        shape = (x.shape[0], *(s + t for s, t in zip(x.shape[1:], total, strict=True)))
        x, padding = adds.add(Pad(tuple(widths), 0.0), (x,), shape, where), 0
    padding = 0 if padding == "valid" else padding
    operation = Conv(weight, bias, stride, numbers(padding, axes), dilation, given["groups"])
    return adds.add(operation, (x,), shapes[0], where)


def batch_norm(adds: Adds, given: Given, shapes: Shapes, where: str) -> Any:
    """(x - mean) / sqrt(var + eps) weight + bias, channel by channel."""
    mean, variance = given.get("running_mean"), given.get("running_var")
    if given.get("training") or mean is None or variance is None:
        raise Unsuited("it normalises by the batch: it needs running statistics and eval mode")
    weight, bias = given.get("weight"), given.get("bias")
    need_constant(weight, bias, mean, variance)
    factor = (variance.double() + given["eps"]).rsqrt()
    factor = factor if weight is None else factor * weight.double()
    shift = -mean.double() * factor if bias is None else bias.double() - mean.double() * factor
    across = (1, -1) + (1,) * (len(shapes[0]) - 1)
    scale = Scale(factor.reshape(across).to(mean.dtype), shift.reshape(across).to(mean.dtype))
    return adds.add(scale, (given["input"],), shapes[0], where)


def first(lower: Lower) -> Lower:
    """The same for an operation whose result is the first of several."""

    def lowered(adds: Adds, given: Given, shapes: Shapes, where: str) -> tuple[Value]:
        return (lower(adds, given, shapes, where),)

    return lowered


def relu(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
    """ReLU, leaky ReLU, PReLU, by their slope below 0."""
    slope = given.get("negative_slope", given.get("weight", 0.0))
    need_constant(slope)
    if isinstance(slope, Tensor):
        slope = slope.reshape((1, -1) + (1,) * (len(shapes[0]) - 1))
    return adds.add(Relu(slope), (given["self"],), shapes[0], where)


def clip(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
    """Between two numbers: ReLU6, hardtanh, clamp. Formula: high - relu(high - low - relu(x - low))."""
    found = given.get("min_val", given.get("min")), given.get("max_val", given.get("max"))
    need_constant(*found)
    if any(isinstance(end, Tensor) for end in found):
        raise Unsuited("expected numbers to clip at")
    low, high = (None if end is None else float(end) for end in found)
    if low is not None and high is not None and low > high:
        raise Unsuited(f"it clips between {low} and {high}")
    x, shape = given["self"], shapes[0]
    if low is not None:
        x = adds.add(Scale(1.0, -low), (x,), shape, where) if low else x
        x = adds.add(Relu(0.0), (x,), shape, where)
        if high is None:
            return adds.add(Scale(1.0, low), (x,), shape, where) if low else x
    if high is not None:
        x = adds.add(Scale(-1.0, high - (low or 0.0)), (x,), shape, where)
        x = adds.add(Relu(0.0), (x,), shape, where)
        x = adds.add(Scale(-1.0, high), (x,), shape, where)
    return x


def relu6(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
    """Between 0 and 6."""
    return clip(adds, {**given, "min": 0.0, "max": 6.0}, shapes, where)


def curve(name: str) -> Lower:
    """A smooth function of every value."""

    def lowered(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
        kind = f"{name}_tanh" if given.get("approximate") == "tanh" else name
        return adds.add(Curve(kind), (given["self"],), shapes[0], where)

    return lowered


def max_pool(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
    """Maxima of windows."""
    axes = len(shapes[0]) - 1
    kernel = numbers(given["kernel_size"], axes)
    stride, padding, dilation = (numbers(given[key], axes) for key in ("stride", "padding", "dilation"))
    return adds.add(
        MaxPool(kernel, stride or kernel, padding, dilation, given["ceil_mode"]), (given["self"],), shapes[0], where
    )


def avg_pool(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
    """Means of windows."""
    axes = len(shapes[0]) - 1
    kernel, stride = numbers(given["kernel_size"], axes), numbers(given["stride"], axes)
    pool = AvgPool(
        kernel, stride or kernel, numbers(given["padding"], axes), given["ceil_mode"], given["count_include_pad"],
        given.get("divisor_override"),
    )  # fmt: skip
    return adds.add(pool, (given["self"],), shapes[0], where)


def adaptive(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
    """Average pooling to a size, where all windows are alike."""
    before, after = given["self"].shape[1:], shapes[0][1:]
    if any(b % a for b, a in zip(before, after, strict=True)):
        raise Unsuited(f"adaptive pooling from {before} to {after} has windows of several sizes")
    kernel = tuple(b // a for b, a in zip(before, after, strict=True))
    pool = AvgPool(kernel, kernel, (0,) * len(kernel), ceil=False, padded=True, divisor=None)
    return adds.add(pool, (given["self"],), shapes[0], where)
