"""Query adapters: linear layers that queries add to the logits of their cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from scvi_sctab.nn import GeneLinear

if TYPE_CHECKING:
    from scvi_sctab.sparse import CSR


class QueryPaths(nn.Module):
    """Query adapters of all mapped queries, each for the cells of its batches only.

    Every adapter starts at zero. For cells of other batches and of unknown ones it is exactly 0.

    Parameters
    ----------
    n_input
        Number of genes, or width of the latent space that is read in their place.
    n_labels
        Number of labels.
    first_batches
        Code of the first batch of each query; its other batches follow, up to the next query.

    Notes
    -----
    - input: ``(n_cells, n_input)`` and codes of batch and covariates ``(n_cells, n_conditions)``,
      the batch first.
    - output: ``(n_cells, n_labels)``.
    """

    def __init__(self, n_input: int, n_labels: int, first_batches: Sequence[int]):
        super().__init__()
        self.first_batches = list(first_batches)
        self.paths = nn.ModuleList(GeneLinear(n_input, n_labels) for _ in first_batches)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor | CSR, conditions: Tensor) -> Tensor:
        """Compute the shift of the logits of each cell."""
        batch = conditions[:, :1]
        ends = [*self.first_batches[1:], torch.iinfo(batch.dtype).max]
        shifts = [
            path(x) * ((batch >= first) & (batch < end))
            for path, first, end in zip(self.paths, self.first_batches, ends, strict=True)
        ]
        return torch.stack(shifts).sum(dim=0)
