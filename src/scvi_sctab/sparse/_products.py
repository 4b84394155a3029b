"""Products with sparse rows, some of them differentiable.

They are for the CPU; on a GPU, dense products are faster.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from scvi_sctab.sparse import _kernels as kernels
from scvi_sctab.sparse._csr import CSR
from scvi_sctab.sparse._parallel import over_parts
from scvi_sctab.sparse._scipy import MIN_ROWS


def check_operands(x: CSR, *others: Tensor, constant: bool = False) -> None:
    """Refuse operands for which the kernels would give wrong numbers or late errors."""
    devices = [x.device, *(other.device for other in others)]
    elsewhere = [device for device in devices if device.type != "cpu"]
    if elsewhere:
        raise RuntimeError(
            f"Sparse cells are for the CPU, but these or the weights are on {elsewhere[0]}. Move "
            "the minibatch to the device of the network before its first operation: "
            "`{name: tensor.to(module.device) for name, tensor in batch.items()}`."
        )
    dtypes = {x.dtype, *(other.dtype for other in others)}
    if len(dtypes) > 1 or not dtypes <= {torch.float32, torch.float64}:
        raise TypeError(
            "On the CPU sparse cells and weights are both float32 or both float64, not "
            f"{' and '.join(sorted(map(str, dtypes)))}. Train with `precision=32`."
        )
    if constant and x.values.requires_grad:
        raise RuntimeError("Sparse cells are constant here: they cannot have a gradient.")


def _matmul(x: CSR, scale: Tensor, weight: Tensor, offset: NDArray[np.float64]) -> Tensor:
    output = weight.new_empty(len(x), weight.shape[1])
    arrays = *x.numpy(), scale.numpy(), weight.numpy(), offset, output.numpy()
    over_parts(kernels.matmul_rows, len(x), *arrays, min_rows=MIN_ROWS)
    return output


class _MatMul(Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor, indptr: Tensor, columns: Tensor
    ) -> Tensor:
        ctx.save_for_backward(values, weight, indptr, columns)
        x = CSR(indptr, columns, values, len(weight))
        return _matmul(x, weight.new_ones(len(weight)), weight, np.zeros(weight.shape[1]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, indptr, columns = ctx.saved_tensors
        x = CSR(indptr, columns, values, len(weight))
        grad_values = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_values = torch.empty_like(values)
            arrays = [t.numpy() for t in (indptr, columns, grads[0].contiguous(), weight)]
            arrays.append(grad_values.numpy())
            over_parts(kernels.sampled_matmul_rows, len(x), *arrays, min_rows=MIN_ROWS)
        if ctx.needs_input_grad[1]:
            grad_weight = csr_transposed_matmul(x, grads[0])
        return grad_values, grad_weight, None, None


def csr_matmul(x: CSR, weight: Tensor) -> Tensor:
    """Multiply sparse rows by a matrix; the values and the matrix may have gradients.

    Parameters
    ----------
    x
        ``(n_rows, n_columns)``.
    weight
        ``(n_columns, k)``; fastest if its rows are contiguous.

    Returns
    -------
    ``(n_rows, k)``.
    """
    check_operands(x, weight)
    return _MatMul.apply(  # type: ignore[no-untyped-call]
        x.values, weight.contiguous(), x.indptr, x.columns
    )


def csr_transposed_matmul(x: CSR, dense: Tensor) -> Tensor:
    """Multiply the transpose of sparse rows by a matrix, without a gradient.

    Parameters
    ----------
    x
        ``(n_rows, n_columns)``.
    dense
        ``(n_rows, k)``.

    Returns
    -------
    ``(n_columns, k)``.
    """
    output = dense.new_empty(x.n_columns, dense.shape[1])
    arrays = [*x.numpy(), dense.detach().contiguous().numpy(), output.numpy()]
    over_parts(kernels.transposed_matmul_rows, x.n_columns, *arrays, min_rows=MIN_ROWS)
    return output


class _ShiftedMatMul(Function):
    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        scale: Tensor,
        shift: Tensor,
        weight: Tensor,
        indptr: Tensor,
        columns: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(indptr, columns, values, scale, shift, weight)
        # In float64: the constant nearly cancels the product, so its rounding error would count.
        parts = over_parts(
            kernels.weighted_sum_rows, len(weight), weight.numpy(), shift.numpy(), min_rows=256
        )
        return _matmul(CSR(indptr, columns, values, len(weight)), scale, weight, sum(parts))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *x, scale, shift, weight = ctx.saved_tensors
        results = [torch.empty_like(tensor) for tensor in (scale, shift, weight)]
        grad = grads[0].contiguous()
        inputs = *x, grad, grad.sum(dim=0), scale, shift, weight
        arrays = [tensor.numpy() for tensor in (*inputs, *results)]
        over_parts(kernels.shifted_backward_rows, len(weight), *arrays, min_rows=MIN_ROWS)
        return None, *results, None, None


def csr_shifted_matmul(x: CSR, scale: Tensor, shift: Tensor, weight: Tensor) -> Tensor:
    """Multiply ``x * scale + shift``, which is not sparse, by a matrix, at the cost of ``x``.

    All operands but ``x`` may have gradients.

    Parameters
    ----------
    x
        ``(n_rows, n_columns)``.
    scale, shift
        ``(n_columns,)``.
    weight
        ``(n_columns, k)``; fastest if its rows are contiguous.

    Returns
    -------
    ``(n_rows, k)``.
    """
    check_operands(x, scale, shift, weight, constant=True)
    return _ShiftedMatMul.apply(  # type: ignore[no-untyped-call]
        x.values, scale, shift, weight.contiguous(), x.indptr, x.columns
    )


def csr_lookup(x: CSR, wanted: CSR) -> Tensor:
    """Look up the values of ``x`` at the positions of those of ``wanted``, without a gradient.

    Parameters
    ----------
    x, wanted
        Matrices of the same shape.

    Returns
    -------
    ``(n_values of wanted,)``.
    """
    check_operands(x, constant=True)
    output = x.values.new_empty(len(wanted.columns))
    over_parts(
        kernels.lookup_rows,
        len(x),
        *x.numpy(),
        *wanted.numpy()[:2],
        output.numpy(),
        min_rows=MIN_ROWS,
    )
    return output


def csr_moments(x: CSR) -> tuple[Tensor, Tensor]:
    """Compute the mean and biased variance of each column, with zeros, without a gradient.

    Returns
    -------
    Two of ``(n_columns,)``, in the dtype of ``x``.
    """
    check_operands(x, constant=True)
    parts = over_parts(kernels.moments, len(x), *x.numpy(), x.n_columns, min_rows=MIN_ROWS * 16)
    mean, square = torch.from_numpy(sum(parts)) / len(x)
    variance = (square - mean.square()).clamp_(min=0)
    return mean.to(x.dtype), variance.to(x.dtype)


def csr_row_sums(x: CSR) -> Tensor:
    """Sum each row, ``(n_rows,)``, without a gradient."""
    sums = x.values.new_empty(len(x))
    indptr, _, values = x.numpy()
    over_parts(kernels.row_sums, len(x), indptr, values, sums.numpy(), min_rows=MIN_ROWS)
    return sums


def csr_add_and_clip(x: CSR, other: CSR, which: Tensor, sign: Tensor, largest: float) -> CSR:
    """Add a row of another matrix to each row and clip to ``[0, largest]``, without a gradient.

    Parameters
    ----------
    x
        ``(n_rows, n_columns)``.
    other
        ``(n_others, n_columns)``.
    which
        Row of ``other`` to add to each row, ``(n_rows,)``.
    sign
        Factor of the added row, ``(n_rows,)``.
    largest
        Upper bound.
    """
    arrays = which.numpy(), sign.to(x.dtype).numpy()
    parts = over_parts(
        kernels.sum_rows_and_clip, len(x), *x.numpy(), *other.numpy(), *arrays, largest,
        min_rows=MIN_ROWS,
    )  # fmt: skip
    return CSR.from_parts(parts, x.n_columns)
