"""Attention over genes that stores only positive entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from scvi_sctab.nn._dense import linear
from scvi_sctab.nn._entmax_kernels import support_backward_rows, support_rows
from scvi_sctab.sparse import CSR, csr_matmul, csr_transposed_matmul, over_parts

# Cells per tile of scores; for 19,331 genes a tile has 5 MB, which fits in a cache.
_CELLS_PER_TILE = 64


def _attend_tiles(
    start: int,
    stop: int,
    tiles: Sequence[Tensor],
    weight: Tensor,
    scale: Tensor,
    shift: Tensor,
    power: int,
) -> list[tuple[NDArray[Any], ...]]:
    """Return sizes, columns and values of the rows of some tiles."""
    parts: list[tuple[NDArray[Any], ...]] = []
    # The mode is per thread, and only inference mode may write to inference tensors.
    with torch.inference_mode():
        factors = scale.numpy(), shift.numpy()
        scores = weight.new_empty(len(tiles[start]), len(weight))
        for tile in tiles[start:stop]:
            rows = scores[: len(tile)]
            torch.mm(tile, weight.t(), out=rows)
            parts.append(support_rows(0, len(tile), rows.numpy(), *factors, power))
    return parts


class _Attend(Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, power: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        tiles = hidden.split(_CELLS_PER_TILE)
        found = over_parts(_attend_tiles, len(tiles), tiles, weight, scale, shift, power)
        parts = [part for some in found for part in some]
        mask = CSR.from_parts(parts, len(weight))
        ctx.power = power
        ctx.save_for_backward(hidden, weight, scale, mask.values, mask.indptr, mask.columns)
        ctx.mark_non_differentiable(mask.indptr, mask.columns)
        return mask.values, mask.indptr, mask.columns

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, scale, values, indptr, columns = ctx.saved_tensors
        grad = torch.empty_like(values)
        arrays = [t.numpy() for t in (indptr, grads[0].contiguous(), values)]
        over_parts(support_backward_rows, len(hidden), *arrays, ctx.power, grad.numpy())
        grad_shift = torch.zeros_like(scale).index_add_(0, columns, grad)
        # Gradient of `hidden @ weight.T`, not yet multiplied by `scale`.
        products = csr_transposed_matmul(CSR(indptr, columns, grad, len(weight)), hidden)
        grad_scale = torch.linalg.vecdot(products, weight)
        scaled = CSR(indptr, columns, grad * scale[columns], len(weight))
        return (
            csr_matmul(scaled, weight),
            products.mul_(scale[:, None]),
            grad_scale,
            grad_shift,
            None,
        )


def attend(hidden: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, power: int) -> CSR:
    """Apply a sparse softmax to ``hidden @ weight.T * scale + shift``, computed tile by tile.

    Parameters
    ----------
    hidden
        ``(n_cells, n_a)``.
    weight
        ``(n_genes, n_a)``.
    scale, shift
        ``(n_genes,)``.
    power
        2 for 1.5-entmax, 1 for sparsemax.

    Returns
    -------
    Positive entries of ``(n_cells, n_genes)``, differentiable with respect to all four tensors.
    """
    values, indptr, columns = _Attend.apply(  # type: ignore[no-untyped-call]
        hidden, weight, scale, shift, power
    )
    return CSR(indptr, columns, values, len(weight))


class _ScoreVariance(Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, covariance: Tensor) -> Tensor:
        product = linear(weight, covariance)
        ctx.save_for_backward(weight, product)
        return torch.linalg.vecdot(product, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        weight, product = ctx.saved_tensors
        grad = grads[0][:, None]
        return product * (2 * grad), linear(weight.t(), (weight * grad).t())


def score_variance(weight: Tensor, covariance: Tensor) -> Tensor:
    """Compute the variance of each score ``weight @ x``.

    Parameters
    ----------
    weight
        ``(n_genes, n_a)``.
    covariance
        Covariance of ``x``, ``(n_a, n_a)``, symmetric.

    Returns
    -------
    ``(n_genes,)``. There is no second derivative.
    """
    variance: Tensor = _ScoreVariance.apply(weight, covariance)  # type: ignore[no-untyped-call]
    return variance
