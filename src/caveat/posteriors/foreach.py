"""One operation over many tensors: a single kernel on a GPU. Torch's own optimizers use these; they have no public name
yet, so they are named once, here."""

import torch

__all__ = ["add_", "addcmul_", "lerp_", "mul_", "sub"]

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false
add_ = torch._foreach_add_
addcmul_ = torch._foreach_addcmul_
lerp_ = torch._foreach_lerp_
mul_ = torch._foreach_mul_
sub = torch._foreach_sub
