"""One-dimensional U-Net over genes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, pad


class GeneUNet(nn.Module):
    """U-Net over genes in an order in which neighbours are related.

    The units of the first level read patches of neighbouring genes, and those of each further
    level the double. Coarse levels average noise over many correlated genes, fine ones separate
    them, and skip connections join both.

    NOTE[DIFF] The released code of scDTL convolves over genes in the order of the file, where
    neighbours have nothing in common, and through sigmoids, which saturate. It starts at the
    resolution of single genes; patches take a tenth of the time.

    Parameters
    ----------
    n_channels
        Channels of the input.
    widths
        Channels of each level, from fine to coarse.
    patch
        Genes per unit of the first level.

    Notes
    -----
    - input: ``(n_cells, n_channels, n_genes)``, any number of genes.
    - output: ``(n_cells, n_genes)``, real numbers, near 0 before training.

    Examples
    --------
    >>> GeneUNet(2, (8, 16))(torch.rand(3, 2, 101)).shape
    torch.Size([3, 101])
    """

    def __init__(self, n_channels: int, widths: Sequence[int], *, patch: int = 8):
        super().__init__()
        self.multiple = patch * 2 ** (len(widths) - 1)
        self.read = nn.Conv1d(n_channels, widths[0], patch, stride=patch)
        self.down = nn.ModuleList(
            _block(before, after)
            for before, after in zip([widths[0], *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            _block(fine + coarse, fine)
            for fine, coarse in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.write = nn.Conv1d(widths[0], patch, 1, bias=False)
        nn.init.normal_(self.write.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct the signal of each gene."""
        n_genes = x.shape[-1]
        hidden, skips = self.read(pad(x, (0, -n_genes % self.multiple))), []
        for depth, block in enumerate(self.down):
            hidden = block(hidden if depth == 0 else avg_pool1d(hidden, 2))
            skips.append(hidden)
        skips.pop()
        for block in self.up:
            hidden = block(torch.cat([skips.pop(), hidden.repeat_interleave(2, dim=-1)], dim=1))
        # (n_cells, patch, n_patches) -> (n_cells, n_patches * patch)
        return self.write(hidden).mT.flatten(1)[:, :n_genes]


def _block(before: int, after: int) -> nn.Sequential:
    """Build two convolutions; the normalisation is over a cell, so that no batch is needed."""
    return nn.Sequential(
        nn.Conv1d(before, after, 3, padding=1),
        nn.GroupNorm(1, after),
        nn.GELU(),
        nn.Conv1d(after, after, 3, padding=1),
        nn.GELU(),
    )
