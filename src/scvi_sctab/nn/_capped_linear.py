"""Encoder of scaled expression with a cap, as CellTypist scores cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from scvi_sctab.nn._encoders import EncoderOutput
from scvi_sctab.nn._sparse_layers import GeneLinear
from scvi_sctab.sparse import CSR

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_SCALED = 10.0
"""Largest scaled expression, by CellTypist's recipe."""


class CappedLinear(nn.Module):
    r"""Linear scores of scaled expression that is cut off above :cite:p:`DominguezConde22`.

    With :math:`x` the log-normalised expression, :math:`m` and :math:`s` the mean and the standard
    deviation of a gene, and :math:`W` and :math:`b` coefficients and intercepts,

    .. math:: z = W \min\left(\frac{x - m}{s}, 10\right) + b
                = \frac{W}{s} \min(x, m + 10 s) - \frac{W m}{s} + b,

    where the second form keeps sparse cells sparse. It is computed in double precision, since
    sums over thousands of genes cancel.

    Parameters
    ----------
    n_genes
        Number of genes.
    n_output
        Number of scores.

    Notes
    -----
    - input: ``(n_cells, n_genes)``, log-normalised expression; optionally a condition
      ``(n_cells, n_output)`` or ``(n_output,)``, which is added.
    - output: :class:`~scvi_sctab.nn.EncoderOutput` with scores ``(n_cells, n_output)``, float64.

    Examples
    --------
    >>> import torch
    >>> CappedLinear(100, n_output=4)(torch.rand(32, 100)).embedding.shape
    torch.Size([32, 4])
    """

    mean: Tensor
    cap: Tensor

    def __init__(self, n_genes: int, n_output: int):
        super().__init__()
        self.n_output = self.n_condition = n_output
        self.linear = GeneLinear(n_genes, n_output).double()
        self.register_buffer("mean", torch.zeros(n_genes, dtype=torch.float64))
        self.register_buffer("cap", torch.full((n_genes,), MAX_SCALED, dtype=torch.float64))

    @torch.no_grad()
    def set_scores(
        self,
        coefficients: NDArray[np.float64],
        intercepts: NDArray[np.float64],
        mean: NDArray[np.float64],
        scale: NDArray[np.float64],
    ) -> None:
        """Set the weights from coefficients of scaled expression.

        Parameters
        ----------
        coefficients
            ``(n_output, n_genes)``.
        intercepts
            ``(n_output,)``.
        mean, scale
            Mean and standard deviation of each gene, ``(n_genes,)``.
        """
        weight = coefficients / scale
        self.linear.weight.copy_(torch.from_numpy(weight))
        self.linear.bias.copy_(torch.from_numpy(intercepts - weight @ mean))
        self.mean.copy_(torch.from_numpy(mean))
        self.cap.copy_(torch.from_numpy(mean + MAX_SCALED * scale))

    def without(self, measured: Tensor) -> Tensor:
        """Compute the condition of cells that lack genes, which then count as at their mean.

        Parameters
        ----------
        measured
            True for genes that were measured, ``(n_genes,)``.

        Returns
        -------
        ``(n_output,)``.
        """
        return self.linear.weight @ self.mean.masked_fill(measured, 0)

    def forward(self, x: Tensor | CSR, condition: Tensor | None = None) -> EncoderOutput:
        """Score cells."""
        if isinstance(x, CSR):
            values = torch.minimum(x.values.double(), self.cap[x.columns])
            scores = self.linear(x.with_values(values))
        else:
            scores = self.linear(torch.minimum(x.double(), self.cap))
        if condition is not None:
            scores = scores + condition
        return EncoderOutput(scores, scores.new_zeros(()))
