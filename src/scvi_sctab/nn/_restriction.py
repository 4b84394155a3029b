"""Transfer of weights to a network that reads fewer genes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def select_entries(old: Tensor, shape: Sequence[int], genes: Tensor) -> Tensor:
    """Select the entries of some genes along the dimensions of a tensor that become shorter.

    Parameters
    ----------
    old
        Any tensor.
    shape
        Shape that it has in the network of fewer genes.
    genes
        Positions of these genes, ``(n_genes,)``.

    Examples
    --------
    >>> import torch
    >>> weight = torch.arange(6.0).reshape(2, 3)
    >>> select_entries(weight, (2, 2), torch.tensor([0, 2]))
    tensor([[0., 2.],
            [3., 5.]])
    """
    for dim, (before, after) in enumerate(zip(old.shape, shape, strict=True)):
        if before != after:
            old = old.index_select(dim, genes)
    return old
