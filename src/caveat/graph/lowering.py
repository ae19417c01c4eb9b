"""What each operation of PyTorch is in elementary ones: one literal table."""

from typing import Any

import torch

from caveat.graph.arithmetic import (
    cast,
    concat,
    cut,
    flip,
    largest,
    like,
    mean,
    negative,
    over,
    pad,
    permute,
    pieces,
    plus,
    reshape,
    select,
    times,
    total,
)
from caveat.graph.layers import (
    adaptive,
    avg_pool,
    batch_norm,
    clip,
    convolution,
    curve,
    first,
    linear,
    max_pool,
    product,
    relu,
    relu6,
    same,
)
from caveat.graph.value import Lower

__all__ = ["LOWER"]

aten = torch.ops.aten

LOWER: dict[Any, Lower] = {
    **dict.fromkeys(
        (
            aten.alias.default, aten.clone.default, aten.contiguous.default, aten.detach.default,
            aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default,
            aten.feature_alpha_dropout.default,
        ),
        same,
    ),
    aten.linear.default: linear,
    **dict.fromkeys((aten.matmul.default, aten.mm.default, aten.addmm.default), product),
    **dict.fromkeys(
        (
            aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.conv1d.padding, aten.conv2d.padding,
            aten.conv3d.padding, aten.convolution.default,
        ),
        convolution,
    ),
    aten.batch_norm.default: batch_norm,
    aten._native_batch_norm_legit_no_training.default: first(batch_norm),
    aten._native_batch_norm_legit.no_stats: first(batch_norm),
    aten.ones_like.default: like(1.0),
    aten.zeros_like.default: like(0.0),
    aten.full_like.default: like(None),
    **dict.fromkeys((aten.relu.default, aten.leaky_relu.default, aten.prelu.default), relu),
    **dict.fromkeys((aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default), max_pool),
    **dict.fromkeys(
        (aten.max_pool2d_with_indices.default, aten.max_pool3d_with_indices.default), first(max_pool)
    ),
    **dict.fromkeys((aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default), avg_pool),
    **dict.fromkeys(
        (aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default), adaptive
    ),
    aten.mean.dim: mean,
    aten.mean.default: mean,
    aten.sum.dim_IntList: total,
    aten.sum.default: total,
    **dict.fromkeys((aten.add.Tensor, aten.add.Scalar), plus(1.0)),
    **dict.fromkeys((aten.sub.Tensor, aten.sub.Scalar), plus(-1.0)),
    **dict.fromkeys((aten.rsub.Tensor, aten.rsub.Scalar), plus(-1.0, swapped=True)),
    **dict.fromkeys((aten.mul.Tensor, aten.mul.Scalar), times),
    **dict.fromkeys((aten.div.Tensor, aten.div.Scalar), over),
    aten.neg.default: negative,
    **dict.fromkeys(
        (
            aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints,
            aten.unflatten.int, aten.squeeze.dim, aten.squeeze.dims, aten.squeeze.default, aten.unsqueeze.default,
        ),
        reshape,
    ),
    **dict.fromkeys((aten.permute.default, aten.transpose.int), permute),
    **dict.fromkeys((aten.pad.default, aten.constant_pad_nd.default), pad),
    aten.cat.default: concat,
    aten.flip.default: flip,
    **dict.fromkeys((aten.amax.default, aten.max.default), largest),
    aten.max.dim: first(largest),
    **dict.fromkeys((aten._to_copy.default, aten.to.dtype, aten.to.dtype_layout), cast),
    **dict.fromkeys(
        (aten.hardtanh.default, aten.clamp.default, aten.clamp_min.default, aten.clamp_max.default), clip
    ),
    aten.relu6.default: relu6,
    aten.gelu.default: curve("gelu"),
    aten.sigmoid.default: curve("sigmoid"),
    aten.silu.default: curve("silu"),
    aten.tanh.default: curve("tanh"),
    aten.slice.Tensor: cut,
    aten.select.int: select,
    **dict.fromkeys((aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default), pieces),
}  # fmt: skip
