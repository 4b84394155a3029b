r"""Sparse alternatives to softmax, 1.5-entmax and sparsemax, without sorting.

Both map a row of scores to a probability vector with exact zeros,

.. math:: p_i = [(z_i - \max z) / e - \tau]_+^e, \qquad \textstyle\sum_i p_i = 1,

with the power :math:`e = 2` for 1.5-entmax and 1 for sparsemax. The sum is convex and decreasing
in :math:`\tau`, and at least one at :math:`\tau = -1`. So Newton's iteration from there increases
to the root without overshooting. It runs on the largest scores first. Their sum is at most that of
all scores, so their root is a lower bound of the root. It is the root if no other score is above it;
otherwise steps on all scores complete it.

On the CPU this is computed by the kernels of ``_entmax_kernels.py``, on other devices by
operations of torch, with a fixed number of steps: a GPU would have to wait for the program at every
step that decides whether there is another. Both are one custom operator of torch, which :func:`torch.compile` does not
trace into.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from scvi_sctab.nn._entmax_kernels import backward_rows, project_rows
from scvi_sctab.sparse import over_parts

_N_LARGEST = 512
# The most that float32 and float64 needed to converge, in a search for hard scores, is 11.
_NEWTON_STEPS = 12


def _newton(scores: Tensor, tau: Tensor, power: int) -> Tensor:
    """Find the root of ``sum((scores - tau).clamp(0) ** power) == 1`` from a lower bound."""
    for _ in range(_NEWTON_STEPS):
        gap = (scores - tau).clamp_(min=0)
        if power == 2:
            slope = 2 * gap.sum(dim=-1, keepdim=True)
            excess = torch.linalg.vector_norm(gap, dim=-1, keepdim=True).square() - 1
        else:
            slope = (gap > 0).sum(dim=-1, keepdim=True)
            excess = gap.sum(dim=-1, keepdim=True) - 1
        tau = tau + (excess / slope).clamp_(min=0)
    return tau


def _project(scores: Tensor, power: int) -> Tensor:
    """Compute probabilities by operations of torch, on any device."""
    shifted = (scores - scores.amax(dim=-1, keepdim=True)).div_(power)
    tau = torch.full_like(shifted[..., :1], -1.0)
    if shifted.shape[-1] <= _N_LARGEST:
        tau = _newton(shifted, tau, power)
    else:
        largest = shifted.topk(_N_LARGEST, dim=-1, sorted=False).values
        tau = _newton(largest, tau, power)
        # The program waits for the GPU here, once. Steps on all scores take longer than that, and
        # rows with more than `_N_LARGEST` positive probabilities are rare.
        if bool((largest.amin(dim=-1, keepdim=True) > tau).any()):
            tau = _newton(shifted, tau, power)
    return shifted.sub_(tau).clamp_(min=0).pow_(power)


def _project_backward(grad: Tensor, output: Tensor, power: int) -> Tensor:
    """Compute the gradient by operations of torch that are differentiable."""
    support = output > 0
    # The square root has an infinite slope at 0; 1 in its place keeps second derivatives finite.
    root = output.where(support, 1).sqrt() * support if power == 2 else support.to(grad.dtype)
    product = grad * root
    mean = product.sum(dim=-1, keepdim=True) / root.sum(dim=-1, keepdim=True)
    return product - mean * root


def _project_backward_once(grad: Tensor, output: Tensor, power: int) -> Tensor:
    """Compute the same gradient with few copies, on any device."""
    root = output.sqrt() if power == 2 else (output > 0).to(grad.dtype)
    mean = torch.linalg.vecdot(grad, root) / root.sum(dim=-1)
    return root.mul_(grad - mean[..., None])


_sparse_softmax = custom_op("scvi_sctab::sparse_softmax", _project, mutates_args=())
_backward = custom_op(
    "scvi_sctab::sparse_softmax_backward", _project_backward_once, mutates_args=()
)


@_sparse_softmax.register_kernel("cpu")
def _(scores: Tensor, power: int) -> Tensor:
    output = torch.empty_like(scores)
    over_parts(project_rows, len(scores), scores.numpy(), power, output.numpy())
    return output


@_backward.register_kernel("cpu")
def _(grad: Tensor, output: Tensor, power: int) -> Tensor:
    result = torch.empty_like(output)
    arrays = grad.contiguous().numpy(), output.numpy()
    over_parts(backward_rows, len(output), *arrays, power, result.numpy())
    return result


@_sparse_softmax.register_fake
def _(scores: Tensor, power: int) -> Tensor:
    return torch.empty_like(scores)


@_backward.register_fake
def _(grad: Tensor, output: Tensor, power: int) -> Tensor:
    return torch.empty_like(output)


def _keep(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
    ctx.power = inputs[1]
    ctx.save_for_backward(output)


def _gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    # The operator of the gradient is not differentiable, operations of torch are.
    (output,) = ctx.saved_tensors
    if torch.is_grad_enabled():
        return _project_backward(grad, output, ctx.power), None
    return _backward(grad, output, ctx.power), None


_sparse_softmax.register_autograd(_gradient, setup_context=_keep)


def _apply(scores: Tensor, dim: int, power: int) -> Tensor:
    """Apply the operator along ``dim``, in float32 or wider, and return the input's dtype."""
    if scores.shape[dim] == 0:
        raise ValueError(f"Nothing to normalise: {tuple(scores.shape)=} is empty along {dim=}.")
    if scores.numel() == 0:
        return scores.clone()
    dtype = torch.promote_types(scores.dtype, torch.float32)
    last = scores.to(dtype).movedim(dim, -1)
    rows = last.reshape(-1, last.shape[-1]).contiguous()
    output = _sparse_softmax(rows, power).reshape(last.shape)
    return output.movedim(-1, dim).to(scores.dtype)


def entmax15(scores: Tensor, dim: int = -1) -> Tensor:
    """Compute 1.5-entmax, a softmax with exact zeros :cite:p:`Peters19`.

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
    return _apply(scores, dim, power=2)


def sparsemax(scores: Tensor, dim: int = -1) -> Tensor:
    """Compute sparsemax, the Euclidean projection on the simplex :cite:p:`Martins16`.

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
    return _apply(scores, dim, power=1)
