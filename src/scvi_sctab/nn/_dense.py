"""Products of dense matrices, whose rows are shared among threads that sleep while they wait."""

from __future__ import annotations

from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import Function

from scvi_sctab.sparse import n_threads, over_parts

# Multiplications per part, about 0.1 ms; waking a thread takes half of that.
_MIN_PER_PART = 2**21


def _product_rows(start: int, stop: int, left: Tensor, right: Tensor, output: Tensor) -> None:
    # The mode is per thread, and only inference mode may write to inference tensors.
    with torch.inference_mode():
        torch.mm(left[start:stop], right, out=output[start:stop])


def _min_rows(right: Tensor) -> int:
    return ceil(_MIN_PER_PART / max(right.numel(), 1))


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Multiply two matrices, without a gradient."""
    output = left.new_empty(len(left), right.shape[1])
    arguments = left.detach(), right.detach(), output
    over_parts(_product_rows, len(left), *arguments, min_rows=_min_rows(right))
    return output


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight.t())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = None
        # By the same function, so that second derivatives exist.
        if ctx.needs_input_grad[0]:
            grad_x = _Linear.apply(grads[0], weight.t())  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1]:
            # With the memory order of the weights, so that optimisers need no copy.
            operands = grads[0].t(), x.t()
            if weight.is_contiguous():
                grad_weight = _Linear.apply(*operands)  # type: ignore[no-untyped-call]
            else:
                grad_weight = _Linear.apply(*operands[::-1]).t()  # type: ignore[no-untyped-call]
        return grad_x, grad_weight


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a linear layer like :func:`torch.nn.functional.linear`, on threads of this package.

    The threads are used for large products on the CPU while torch runs on one thread
    (:func:`~scvi_sctab.nn.sleeping_threads`); torch computes all other products.

    Parameters
    ----------
    x
        ``(n_cells, n_input)``.
    weight
        ``(n_output, n_input)``.
    bias
        ``(n_output,)``.

    Returns
    -------
    ``(n_cells, n_output)``.
    """
    if not _worth_parts(x, weight):
        return nn.functional.linear(x, weight, bias)
    output: Tensor = _Linear.apply(x, weight)  # type: ignore[no-untyped-call]
    return output if bias is None else output + bias


def _worth_parts(x: Tensor, weight: Tensor) -> bool:
    """Return whether sharing a product among threads pays, and torch adds no cast or tracing."""
    return (
        not torch.compiler.is_compiling()
        and x.ndim == 2
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype
        and not torch.is_autocast_enabled("cpu")
        and len(x) * weight.numel() >= 2 * _MIN_PER_PART
        and torch.get_num_threads() == 1 < n_threads()
    )


class ThreadedLinear(nn.Linear):
    """Linear layer that is computed by :func:`linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Multiply ``x`` by the weights."""
        return linear(x, self.weight, self.bias)
