"""Per-sample gradients of a parameter in the form in which a layer gives them, and their statistics.

Nothing larger than a few megabytes is made: products are formed block by block, and not at all where a sample's
gradient is the outer product of two vectors.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from caveat.scores.gradients import moments
from caveat.scores.gradients.moments import Sums

__all__ = ["Form", "Lookup", "Product", "added", "full", "sums"]


@dataclass(frozen=True)
class Product:
    """left^T @ right: the sum over positions `t` of outer products, in `g` groups of channels."""

    left: Float[Tensor, "n g t a"]
    right: Float[Tensor, "n g t b"]


@dataclass(frozen=True)
class Lookup:
    """Row `tokens[t]` of a table gets `values[t]`; the other rows get nothing."""

    tokens: Int[Tensor, "n t"]
    values: Float[Tensor, "n t d"]
    size: int
    """Rows of the table."""


Form: TypeAlias = Product | Lookup | Float[Tensor, "n k"]


def full(form: Form) -> Float[Tensor, "n k"]:
    """The gradients themselves."""
    if isinstance(form, Product):
        return (form.left.mT @ form.right).flatten(1)
    if isinstance(form, Lookup):
        n, _, d = form.values.shape
        table = form.values.new_zeros(n, form.size, d)
        return table.scatter_add_(1, form.tokens.unsqueeze(2).expand_as(form.values), form.values).flatten(1)
    return form


def added(forms: Sequence[Form]) -> Form:
    """The sum of what the calls of a shared parameter give; of products, without forming them."""
    if len(forms) == 1:
        return forms[0]
    products = [form for form in forms if isinstance(form, Product)]
    if len(products) == len(forms):
        left, right = [p.left for p in products], [p.right for p in products]
        return Product(torch.cat(left, dim=2), torch.cat(right, dim=2))
    lookups = [form for form in forms if isinstance(form, Lookup)]
    if len(lookups) == len(forms):
        tokens, values = [p.tokens for p in lookups], [p.values for p in lookups]
        return Lookup(torch.cat(tokens, dim=1), torch.cat(values, dim=1), lookups[0].size)
    return torch.stack([full(form) for form in forms]).sum(dim=0)


def sums(form: Form, *, budget: int) -> Sums:
    """Sums over each sample's gradient, in blocks of at most `budget` bytes (but at least one row of a product)."""
    if isinstance(form, Product):
        return _of_product(form.left, form.right, budget)
    if isinstance(form, Lookup):
        return _of_lookup(form)
    return moments.of_rows(form)


def _of_product(left: Float[Tensor, "n g t a"], right: Float[Tensor, "n g t b"], budget: int) -> Sums:
    n, groups, positions, a = left.shape
    if positions == 1 and groups == 1:
        return moments.of_outer(left[:, 0, 0], right[:, 0, 0])
    if left.dtype.itemsize < 4:
        left, right = left.float(), right.float()
    b = right.shape[3]
    step = min(a, max(1, budget // (n * groups * b * left.element_size())))
    left, right = left.mT.flatten(0, 1), right.flatten(0, 1)

    def make(factor: Tensor | None) -> Iterator[Tensor]:
        scaled = left if factor is None else left * factor.to(left.dtype).repeat_interleave(groups).view(-1, 1, 1)
        memory = left.new_empty(n * groups * step * b)  # the same for all blocks, so that it stays in the cache
        for part in scaled.split(step, dim=1):
            block = memory[: part.shape[0] * part.shape[1] * b].view(*part.shape[:2], b)
            yield torch.bmm(part, right, out=block).view(n, -1)

    return moments.of_blocks(make)


def _of_lookup(form: Lookup) -> Sums:
    n, t, d = form.values.shape
    if t >= form.size:
        return moments.of_rows(full(form))
    # one row for each different token of a sample, the rest of the t rows zero
    tokens, order = form.tokens.sort(dim=1)
    first = torch.cat([torch.zeros_like(tokens[:, :1]), (tokens[:, 1:] != tokens[:, :-1]).long()], dim=1)
    values = form.values.gather(1, order.unsqueeze(2).expand_as(form.values))
    place = first.cumsum(dim=1).unsqueeze(2).expand_as(values)
    found = torch.zeros_like(values).scatter_add_(1, place, values)
    rest = moments.of_zeros(n, (form.size - t) * d, found)
    return moments.merged(torch.stack([moments.of_rows(found.flatten(1)), rest], dim=1))
