"""Marker genes of groups of cells, from contributions to their labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from scvi_sctab._constants import CONDITIONS_KEY
from scvi_sctab._messages import warn
from scvi_sctab.explanation._network import contributions
from scvi_sctab.metrics import score_markers

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from scvi_sctab._types import CellBatches, Network

# Small, since gradients need several dense copies of the cells.
_GRADIENT_BATCH_SIZE = 256


def group_means(
    networks: Sequence[Network],
    predictable: NDArray[np.bool_],
    cells: CellBatches,
    codes: NDArray[np.intp],
    groups: pd.Categorical,
    batch_size: int | None = None,
) -> NDArray[np.float64]:
    """Compute the mean contribution, attention, expression and squared expression of each group.

    Parameters
    ----------
    networks
        Networks of the model; the mean over them is returned.
    predictable
        Labels that can be predicted, ``(n_labels,)``.
    cells
        The cells.
    codes
        Code of the label of each cell, ``(n_cells,)``.
    groups
        Group of each cell, ``(n_cells,)``.
    batch_size
        Cells per minibatch.

    Returns
    -------
    ``(4, n_groups, n_genes)``; attention is NaN without TabNet.
    """
    if any(network.linear_skip is None for network in networks):
        batch_size = batch_size or _GRADIENT_BATCH_SIZE
    n_groups = len(groups.categories)
    sums = np.zeros((len(networks), 4, n_groups, cells.n_genes))
    start = 0

    def add(tensors: dict[str, Tensor]) -> None:
        nonlocal start
        n_cells = len(tensors[CONDITIONS_KEY])
        rows = slice(start, start + n_cells)
        start = rows.stop
        places = groups.codes[rows], np.arange(n_cells)
        member = sparse.csr_matrix((np.ones(n_cells), places), (n_groups, n_cells))
        for network, totals in zip(networks, sums, strict=True):
            values = contributions(network, predictable, tensors, codes[rows])
            for total, value in zip(totals, values, strict=True):
                total += np.nan if value is None else (member @ value).toarray()

    for _ in cells.map(add, batch_size):
        pass
    n_cells = np.maximum(np.bincount(groups.codes, minlength=n_groups), 1)
    return (sums / n_cells[:, None]).mean(axis=0)


def marker_table(
    groups: pd.Categorical,
    gene_names: NDArray[np.str_],
    means: NDArray[np.float64],
    n_genes: int,
) -> pd.DataFrame:
    """Select the genes with the highest scores of each group.

    Parameters
    ----------
    groups
        Group of each cell.
    gene_names
        Names of the genes, ``(n_genes,)``.
    means
        Means of :func:`group_means`.
    n_genes
        Number of genes per group.

    Returns
    -------
    A data frame as of :meth:`scvi_sctab.SCTAB.get_markers`.

    Warns
    -----
    UserWarning
        If there is only one group.
    """
    names = np.asarray(groups.categories)
    contribution, attention, expression, squares = means
    n_cells = np.bincount(groups.codes, minlength=len(names))
    found = score_markers(n_cells, contribution, expression, squares)
    if len(names) == 1:
        warn(
            f"All cells are in one group, {names[0]!r}, so that there is no other to compare with: "
            "its genes are ranked by contribution alone, house-keeping genes included. Ask about "
            "more cells, or group them by another column: `groupby=`."
        )
    order = np.lexsort((-contribution, -found.score), axis=1)[:, :n_genes]
    rows = np.repeat(np.arange(len(order)), order.shape[1])
    columns = order.ravel()
    nearest = pd.Series([", ".join(names[near]) or None for near in found.nearest], dtype=object)
    return pd.DataFrame(
        {
            "group": names[rows],
            "gene": gene_names[columns],
            "score": found.score[rows, columns],
            "contribution": contribution[rows, columns],
            "specificity": found.specificity[rows, columns],
            "attention": attention[rows, columns],
            "expression": expression[rows, columns],
            "expression_nearby": found.nearby[rows, columns],
            "expression_elsewhere": found.elsewhere[rows, columns],
            "nearest": nearest.to_numpy()[rows],
        }
    )
