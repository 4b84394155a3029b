"""Attention over channels, which fuses several predictions of the same genes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_HIDDEN = 16
_WINDOW = 7
# Mean, mean of absolute values, standard deviation and maximum of a channel over genes.
_N_STATISTICS = 4


class CrossChannelAttention(nn.Module):
    """Weights of channels by cell and by gene, as in the CBAM block :cite:p:`Woo18`.

    The weights of a cell are computed from statistics of *all* channels and from its depth, those
    of a gene from all channels in a window around it, and a bias of each gene. Their sum goes
    through a sigmoid for every channel.

    NOTE[DIFF] The released code of scDTL reduces its 2 channels to ``2 // 16 = 0`` hidden units, so
    that its channel attention is 1/2 for every cell; and its window is over genes without order.

    Parameters
    ----------
    n_channels, n_genes
        Number of channels and of genes.

    Notes
    -----
    - input: channels ``(n_cells, n_channels, n_genes)``, genes in the order of the convolution, and
      the log of the total counts of a cell ``(n_cells,)``.
    - output: weights in (0, 1), ``(n_cells, n_channels, n_genes)``.
    """

    def __init__(self, n_channels: int, n_genes: int):
        super().__init__()
        self.of_cells = nn.Sequential(
            nn.Linear(_N_STATISTICS * n_channels + 1, _HIDDEN),
            nn.GELU(),
            nn.Linear(_HIDDEN, n_channels),
        )
        self.of_windows = nn.Conv1d(n_channels, n_channels, _WINDOW, padding=_WINDOW // 2)
        self.of_genes = nn.Parameter(torch.zeros(n_channels, n_genes))

    def forward(self, channels: Tensor, log_depth: Tensor) -> Tensor:
        """Compute the weights."""
        return torch.sigmoid(
            self.of_cells(self._statistics(channels, log_depth))[:, :, None]
            + self.of_windows(channels)
            + self.of_genes
        )

    @staticmethod
    def _statistics(channels: Tensor, log_depth: Tensor) -> Tensor:
        """Summarise each channel of a cell, ``(n_cells, n_statistics * n_channels + 1)``."""
        size = channels.abs()
        parts = [
            channels.mean(dim=-1),
            size.mean(dim=-1),
            channels.std(dim=-1, correction=0),
            size.amax(dim=-1),
            # Depths of 1,000 to 100,000 molecules are about -1 to 1.
            (log_depth[:, None] - 9) / 2,
        ]
        return torch.cat(parts, dim=1)
