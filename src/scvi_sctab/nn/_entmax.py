r"""Sparse alternatives to softmax: 1.5-entmax and sparsemax, without a sort.

Both map a row of scores to a probability vector with exact zeros,

.. math:: p_i = [s (z_i - \\max z) - \\tau]_+^{e}, \\qquad \\textstyle\\sum_i p_i = 1,

with :math:`(s, e) = (1/2, 2)` for 1.5-entmax and :math:`(1, 1)` for sparsemax. The sum is convex
and decreasing in :math:`\\tau`, and at least one at :math:`\\tau = -1`: Newton's iteration from
there climbs to the root without overshooting. It runs on the largest scores first. They alone sum
to no more than all do, so where they arrive is still left of the root, and a pass or two over all
scores finish the work, whatever the size of the support.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

_N_LARGEST = 64
_MAX_NEWTON_STEPS = 100


def _newton(scores: Tensor, tau: Tensor, exponent: int) -> Tensor:
    """Climb from ``tau`` to the root of ``sum((scores - tau).clamp(0) ** exponent) == 1``."""
    tolerance = torch.finfo(scores.dtype).eps
    for _ in range(_MAX_NEWTON_STEPS):
        gap = (scores - tau).clamp_(min=0)
        if exponent == 2:
            slope = 2 * gap.sum(dim=-1, keepdim=True)
            excess = torch.linalg.vector_norm(gap, dim=-1, keepdim=True).square() - 1
        else:
            slope = (gap > 0).sum(dim=-1, keepdim=True)
            excess = gap.sum(dim=-1, keepdim=True) - 1
        step = (excess / slope).clamp_(min=0)
        tau = tau + step
        if not bool((step > tolerance).any()):
            break
    return tau


def _threshold(shifted: Tensor, exponent: int) -> Tensor:
    tau = torch.full_like(shifted[..., :1], -1.0)
    if shifted.shape[-1] > _N_LARGEST:
        largest = shifted.topk(_N_LARGEST, dim=-1, sorted=False).values
        tau = _newton(largest, tau, exponent)
    return _newton(shifted, tau, exponent)


def _project(scores: Tensor, scale: float, exponent: int) -> Tensor:
    shifted = (scores - scores.amax(dim=-1, keepdim=True)) * scale
    return (shifted - _threshold(shifted, exponent)).clamp_(min=0).pow_(exponent)


class _Entmax15(Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        output = _project(scores, scale=0.5, exponent=2)
        ctx.save_for_backward(output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (output,) = ctx.saved_tensors
        root = output.sqrt()
        product = grads[0] * root
        mean = product.sum(dim=-1, keepdim=True) / root.sum(dim=-1, keepdim=True)
        return product - mean * root


class _Sparsemax(Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        output = _project(scores, scale=1.0, exponent=1)
        ctx.save_for_backward(output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (output,) = ctx.saved_tensors
        support = (output > 0).to(grads[0].dtype)
        product = grads[0] * support
        mean = product.sum(dim=-1, keepdim=True) / support.sum(dim=-1, keepdim=True)
        return product - mean * support


def _apply(function: type[Function], scores: Tensor, dim: int) -> Tensor:
    """Run ``function`` over ``dim``, in float32 at least, and return the input's dtype."""
    if scores.shape[dim] == 0:
        raise ValueError(f"Nothing to normalise: {tuple(scores.shape)=} is empty along {dim=}.")
    if scores.numel() == 0:
        return scores.clone()
    dtype = torch.promote_types(scores.dtype, torch.float32)
    output: Tensor = function.apply(scores.to(dtype).movedim(dim, -1))
    return output.movedim(-1, dim).to(scores.dtype)


def entmax15(scores: Tensor, dim: int = -1) -> Tensor:
    """1.5-entmax: a softmax with exact zeros :cite:p:`Peters19`.

    Parameters
    ----------
    scores
        Scores of any shape and floating dtype; computed in float32 or wider.
    dim
        Dimension that sums to one.

    Returns
    -------
    Probabilities, with the shape and dtype of ``scores``.

    Raises
    ------
    ValueError
        If ``scores`` has no entries along ``dim``.

    Examples
    --------
    >>> import torch
    >>> entmax15(torch.tensor([2.0, 0.0, -2.0]))
    tensor([1., 0., 0.])
    """
    return _apply(_Entmax15, scores, dim)


def sparsemax(scores: Tensor, dim: int = -1) -> Tensor:
    """Sparsemax: the Euclidean projection on the simplex :cite:p:`Martins16`.

    Parameters
    ----------
    scores
        Scores of any shape and floating dtype; computed in float32 or wider.
    dim
        Dimension that sums to one.

    Returns
    -------
    Probabilities, with the shape and dtype of ``scores``.

    Raises
    ------
    ValueError
        If ``scores`` has no entries along ``dim``.

    Examples
    --------
    >>> import torch
    >>> sparsemax(torch.tensor([0.6, 0.4, -1.0]))
    tensor([0.6000, 0.4000, 0.0000])
    """
    return _apply(_Sparsemax, scores, dim)
