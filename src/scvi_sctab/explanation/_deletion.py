"""Deletion test of gene rankings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from scvi_sctab._constants import CONDITIONS_KEY
from scvi_sctab._messages import list_names
from scvi_sctab.data import align_cells
from scvi_sctab.explanation._network import dense_expression, mean_probabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from scvi_sctab._types import CellBatches, Network

# Small, since cells are dense, and evaluated once per ranking and number of genes.
_BATCH_SIZE = 256


def delete_genes(
    networks: Sequence[Network],
    cells: CellBatches,
    scores: Mapping[str, sparse.csr_matrix],
    n_genes: Sequence[int],
    seed: int,
    batch_size: int | None = None,
) -> pd.DataFrame:
    """Delete the first genes of rankings from cells, and random genes for comparison.

    Parameters
    ----------
    networks
        Networks of the model, whose mean probability is compared.
    cells
        The cells.
    scores
        Scores ``(n_cells, n_genes)`` by the name of the ranking.
    n_genes
        Numbers of genes to delete.
    seed
        Seed of the random ranking.
    batch_size
        Cells per minibatch.

    Returns
    -------
    A data frame as of :meth:`scvi_sctab.SCTAB.deletion_test`.
    """
    rng = np.random.default_rng(seed)
    start = 0

    def delete(tensors: dict[str, Tensor]) -> NDArray[np.float64]:
        nonlocal start
        x, conditions = dense_expression(tensors), tensors[CONDITIONS_KEY]
        expressed = x.cpu().numpy()
        rows = slice(start, start + len(expressed))
        drawn = rng.random(expressed.shape, dtype=np.float32)
        given = [score[rows].toarray() for score in scores.values()]
        ranks = [_ranks(values, expressed > 0) for values in [*given, drawn]]
        start = rows.stop
        before = mean_probabilities(networks, x, conditions)
        label = before.argmax(dim=1, keepdim=True)
        results = np.empty((len(ranks), len(n_genes), 2, len(x)))
        for i, j in np.ndindex(results.shape[:2]):
            kept = torch.from_numpy(ranks[i] >= n_genes[j]).to(x.device)
            after = mean_probabilities(networks, x * kept, conditions)
            drop = before.gather(1, label) - after.gather(1, label)
            changed = after.argmax(dim=1, keepdim=True) != label
            results[i, j] = torch.stack([drop, changed])[..., 0].cpu().numpy()
        return results

    parts = list(cells.map(delete, batch_size or _BATCH_SIZE))
    empty = np.empty((len(scores) + 1, len(n_genes), 2, 0))
    drop, changed = np.moveaxis(np.concatenate([empty, *parts], axis=-1), 2, 0)
    return pd.DataFrame(
        {
            "ranking": np.repeat([*scores, "random"], len(n_genes)),
            "n_genes": np.tile(n_genes, len(drop)),
            "drop": drop.mean(axis=-1).ravel(),
            "drop_sd": drop.std(axis=-1).ravel(),
            "changed": changed.mean(axis=-1).ravel(),
        }
    )


def as_scores(
    name: str,
    ranking: sparse.csr_matrix | pd.DataFrame,
    cells: pd.Index,
    gene_names: NDArray[np.str_],
    predicted: NDArray[np.str_],
) -> sparse.csr_matrix:
    """Convert a ranking to scores, a row per cell and a column per gene of the model.

    Parameters
    ----------
    name
        Name of the ranking, for messages.
    ranking
        Matrix of scores, data frame of scores by the names of cells and genes, or data frame of
        markers.
    cells
        Names of the cells, ``(n_cells,)``.
    gene_names
        Genes of the model, ``(n_genes,)``.
    predicted
        Predicted labels of the cells, ``(n_cells,)``.

    Raises
    ------
    ValueError
        If the scores do not match the cells and genes.
    """
    if isinstance(ranking, pd.DataFrame) and {"group", "gene"} <= {*ranking.columns}:
        ranking = _scores_of_markers(ranking, gene_names, predicted)
    elif isinstance(ranking, pd.DataFrame):
        ranking = _scores_by_name(name, ranking, cells, gene_names)
    expected = (len(cells), len(gene_names))
    if ranking.shape != expected:
        raise ValueError(
            f"The scores of {name!r} are {ranking.shape}, not {expected}: one for each of the "
            "cells and of the model's genes."
        )
    return sparse.csr_matrix(ranking)


def _scores_by_name(
    name: str, scores: pd.DataFrame, cells: pd.Index, gene_names: NDArray[np.str_]
) -> NDArray[np.float64]:
    what = f"The scores of {name!r}"
    missing = pd.Index(gene_names).difference(scores.columns)
    if len(missing):
        raise ValueError(
            f"{what} lack {len(missing):,} of the model's genes: {list_names(missing)}. Give "
            "them a score, e.g. 0: `scores.reindex(columns=model.gene_names, fill_value=0)`."
        )
    return align_cells(scores, cells, what)[[*gene_names]].to_numpy()


def _scores_of_markers(
    markers: pd.DataFrame, gene_names: NDArray[np.str_], predicted: NDArray[np.str_]
) -> sparse.csr_matrix:
    groups, codes = np.unique(predicted, return_inverse=True)
    missing = sorted(set(groups.tolist()) - set(markers["group"]))
    if missing:
        raise ValueError(
            f"There are no markers of {missing}, which cells are predicted to be. Take those "
            "of the same cells: `get_markers(adata, indices=...)`."
        )
    known = pd.Index(gene_names)
    table = np.zeros((len(groups), len(gene_names)), dtype=np.float32)
    for row, group in zip(table, groups, strict=True):
        genes = markers.loc[markers["group"] == group, "gene"]
        # Positive in the order of the markers; genes that are not listed have 0.
        row[known.get_indexer(genes)] = np.arange(len(genes), 0, -1)
    member = sparse.csr_matrix((np.ones(len(codes), np.float32), (np.arange(len(codes)), codes)))
    return member @ sparse.csr_matrix(table)


def _ranks(scores: NDArray[np.floating], expressed: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Rank the expressed genes of each cell, from 0 on, and the other genes after them."""
    order = np.argsort(np.where(expressed, -scores, np.inf), axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(order.shape[1])[None], axis=1)
    return ranks
