"""Embedding of the condition of a cell: its batch and its other categories."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scvi_sctab._constants import UNKNOWN_CODE


class BatchEmbedding(nn.Module):
    r"""Learned shift per batch, and per category of each other covariate.

    The shift is added to the first hidden layer of an encoder, and is 0 for an unknown batch: with
    categories :math:`b_f` of fields :math:`f`,

    .. math:: e = k \sum_f E_f[b_f], \qquad E_f[\text{unknown}] = 0,

    where in training :math:`k` is 0 for a random share ``dropout`` of the cells and 1 for the
    others, so that the encoder is also trained without a condition. NOTE[DIFF] Rows start at 0 and
    are deviations from the encoder without batches. New rows also start at 0, not at the mean of
    the rows; batch dropout keeps this mean near 0.

    Parameters
    ----------
    n_categories
        Number of categories of each field.
    n_output
        Width of the shift.
    dropout
        Share of cells in training whose categories are all treated as unknown.

    Notes
    -----
    - input: codes ``(n_cells, n_fields)``, ``UNKNOWN_CODE`` where unknown.
    - output: ``(n_cells, n_output)``.

    Examples
    --------
    >>> embed = BatchEmbedding([3], n_output=8)
    >>> embed(torch.tensor([[0], [-1]])).shape
    torch.Size([2, 8])
    """

    def __init__(self, n_categories: Sequence[int], n_output: int, dropout: float = 0.5):
        super().__init__()
        self.dropout = dropout
        self.rows = nn.ParameterList(torch.zeros(n, n_output) for n in n_categories)

    def forward(self, codes: Tensor) -> Tensor:
        """Look up the shift of each cell."""
        known = codes > UNKNOWN_CODE
        if self.training:
            known = known & (torch.rand(len(codes), 1, device=codes.device) >= self.dropout)
        shifts = [
            nn.functional.embedding(field.clamp(min=0), rows) * is_known[:, None]
            for field, rows, is_known in zip(codes.T, self.rows, known.T, strict=True)
        ]
        return torch.stack(shifts).sum(dim=0)
