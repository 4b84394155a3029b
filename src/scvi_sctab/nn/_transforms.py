"""Tensor transforms that training, prediction and every data module share."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

TARGET_SUM = 1e4
MAX_EXPRESSION = 9.0


def normalize_counts(counts: Tensor) -> Tensor:
    """Divide each cell by its total, multiply by 10,000, take ``log(1 + x)``.

    Parameters
    ----------
    counts
        Raw counts over the model's genes, ``(n_cells, n_genes)``, dense or sparse.

    Returns
    -------
    Dense log-normalised expression, ``(n_cells, n_genes)``. A cell without counts stays 0.

    Examples
    --------
    >>> import torch
    >>> normalize_counts(torch.tensor([[1.0, 3.0], [0.0, 0.0]]))
    tensor([[7.8244, 8.9228],
            [0.0000, 0.0000]])
    """
    dense = counts if counts.layout is torch.strided else counts.to_dense()
    total = dense.sum(dim=1, keepdim=True)
    return (dense * (TARGET_SUM / total.masked_fill(total == 0, 1))).log1p()


def augment(x: Tensor, vectors: Tensor, generator: Generator | None = None) -> Tensor:
    """Move each cell towards another donor :cite:p:`Fischer24`.

    One vector is drawn per cell, whatever its label, with a fair sign; the sum is kept in
    ``[0, 9]`` and not normalised again.

    Parameters
    ----------
    x
        Log-normalised expression, ``(n_cells, n_genes)``.
    vectors
        Differences between donors, ``(n_vectors, n_genes)``; see
        :func:`scvi_sctab.data.donor_difference_vectors`.
    generator
        Source of randomness on the device of ``x``; torch's own if not given.

    Returns
    -------
    Augmented expression, ``(n_cells, n_genes)``.
    """
    n_cells = x.shape[0]
    which = torch.randint(len(vectors), (n_cells,), generator=generator, device=x.device)
    sign = torch.randint(2, (n_cells, 1), generator=generator, device=x.device) * 2 - 1
    return (x + sign * vectors[which]).clamp_(0, MAX_EXPRESSION)
