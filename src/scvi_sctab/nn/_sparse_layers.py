r"""Linear layers and batch norms of sparse cells, exact and without computing on zeros.

Batch norm is :math:`x_g s_g + t_g` with a scale and a shift per gene. A linear layer :math:`W`
after it is :math:`(W \, \mathrm{diag}(s))\, x + W t`: a product with the nonzeros and a constant.
Autograd differentiates both, including the batch statistics.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from scvi_sctab.nn._dense import ThreadedLinear
from scvi_sctab.sparse import (
    CSR,
    check_operands,
    csr_lookup,
    csr_matmul,
    csr_moments,
    csr_shifted_matmul,
)


class ShiftedCSR(NamedTuple):
    """Factors of the matrix ``rows * scale + shift``, which is not sparse itself.

    Attributes
    ----------
    rows
        ``(n_cells, n_genes)``.
    scale, shift
        ``(n_genes,)``.
    """

    rows: CSR
    scale: Tensor
    shift: Tensor


Cells = Tensor | CSR | ShiftedCSR
"""Matrix ``(n_cells, n_genes)``, dense or sparse."""


def scale_and_shift(
    norm: nn.BatchNorm1d, moments: tuple[Tensor, Tensor] | None, n_cells: int
) -> tuple[Tensor, Tensor]:
    """Express batch norm as a scale and a shift per feature.

    Parameters
    ----------
    norm
        The batch norm.
    moments
        Mean and biased variance of a training batch, each ``(n_features,)``, which also update the
        running statistics; ``None`` uses the running statistics.
    n_cells
        Size of the batch.

    Raises
    ------
    ValueError
        If a training batch has one cell.
    """
    # Optional in torch's types; batch norms of this package have statistics and momentum.
    running: tuple[Tensor, Tensor] = (norm.running_mean, norm.running_var)  # type: ignore[assignment]
    mean, variance = running if moments is None else moments
    if moments is not None:
        if n_cells < 2:
            raise ValueError("Batch norm needs two cells to train on, and got one.")
        momentum: float = norm.momentum  # type: ignore[assignment]
        with torch.no_grad():
            norm.num_batches_tracked += 1  # type: ignore[operator, assignment]
            running[0].lerp_(mean, momentum)
            running[1].lerp_(variance * (n_cells / (n_cells - 1)), momentum)
    scale = norm.weight * (variance + norm.eps).rsqrt()
    return scale, norm.bias - mean * scale


def normalize_rows(norm: nn.BatchNorm1d, x: CSR) -> ShiftedCSR:
    """Apply batch norm to sparse cells.

    Parameters
    ----------
    norm
        The batch norm.
    x
        ``(n_cells, n_genes)``.
    """
    check_operands(x, norm.weight)
    moments = csr_moments(x) if norm.training else None
    return ShiftedCSR(x, *scale_and_shift(norm, moments, len(x)))


class GeneLinear(ThreadedLinear):
    """Linear layer for dense or sparse cells.

    Its weights are stored gene by gene, in the order that products with sparse cells read; their
    shape, name and values are those of :class:`torch.nn.Linear`.

    Parameters
    ----------
    n_genes
        Width of the input.
    n_output
        Width of the output.
    bias
        Whether to add a bias.

    Notes
    -----
    - input: ``(n_cells, n_genes)``; output: ``(n_cells, n_output)``, dense.
    """

    def __init__(self, n_genes: int, n_output: int, bias: bool = True):
        super().__init__(n_genes, n_output, bias)
        self.weight = nn.Parameter(self.weight.detach().t().contiguous().t())

    def forward(self, x: Cells) -> Tensor:
        """Multiply cells by the weights."""
        if isinstance(x, Tensor):
            return super().forward(x)
        if isinstance(x, CSR):
            output = csr_matmul(x, self.weight.t())
        else:
            output = csr_shifted_matmul(x.rows, x.scale, x.shift, self.weight.t())
        return output if self.bias is None else output + self.bias


def mask_rows(mask: CSR, x: ShiftedCSR) -> CSR:
    """Multiply a sparse mask with cells, entry by entry.

    Parameters
    ----------
    mask
        ``(n_cells, n_genes)``.
    x
        ``(n_cells, n_genes)``.
    """
    values = csr_lookup(x.rows, mask) * x.scale[mask.columns] + x.shift[mask.columns]
    return mask.with_values(mask.values * values)
