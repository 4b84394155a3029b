"""Levels and order of genes, from which scDTL starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from scvi_sctab._messages import list_names
from scvi_sctab.external.scdtl._level import fit_level
from scvi_sctab.external.scdtl._order import order_genes
from scvi_sctab.external.scdtl._scdtl_module import Profiles
from scvi_sctab.external.scdtl._transfer import dense_expression

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Pseudocount of bulk, in counts per million.
_PSEUDOCOUNT = 0.5


def summarize(
    counts: NDArray[np.float32],
    totals: NDArray[np.float64],
    shares: NDArray[np.float64],
    order: NDArray[np.intp] | None = None,
) -> Profiles:
    """Estimate levels of genes, and order them if no order is given.

    The level of genes in cells is estimated by empirical Bayes from their bulk, as that of
    :class:`~scvi_sctab.external.BulkPriorImputer`, which takes bulk to the units of cells.

    NOTE[DIFF] The released code of scDTL scales cells by the minimum and maximum of each gene in
    bulk.

    Parameters
    ----------
    counts
        Counts of some training cells, ``(n_cells, n_genes)``.
    totals
        Molecules of each gene in all training cells, ``(n_genes,)``.
    shares
        Shares of genes in bulk samples, ``(n_samples, n_genes)``.
    order
        Positions of genes in a given order, ``(n_genes,)``.
    """
    log_bulk = np.log(shares * 1e6 + _PSEUDOCOUNT)
    level = fit_level(totals, log_bulk.mean(axis=0)).mean
    cells = dense_expression(torch.from_numpy(counts))
    bulk = torch.from_numpy(shares.astype(np.float32))
    center, bulk_expression = cells.mean(dim=0), dense_expression(bulk)
    if order is None:
        order = order_genes(log_bulk, (cells - center).numpy())
    mean_share = shares.mean(axis=0)
    floor = mean_share[mean_share > 0].min()
    return Profiles(
        order=torch.from_numpy(order),
        log_level=_as_tensor(np.log(level)),
        log_bulk_level=_as_tensor(np.log(np.maximum(mean_share, floor))),
        center=center,
        scale=_root_mean_square(cells - center),
        bulk_scale=_root_mean_square(bulk_expression - bulk_expression.mean(dim=0)),
        bulk=bulk,
        n_molecules=torch.tensor(float(max(totals.sum(), 1))),
    )


def positions_in_order(genes: NDArray[np.str_], order: Sequence[str]) -> NDArray[np.intp]:
    """Find the genes of a model in a given order of names.

    Parameters
    ----------
    genes
        Genes of the model.
    order
        Names in their order; others may be among them.

    Returns
    -------
    Positions of the genes of the model, in that order.

    Raises
    ------
    ValueError
        If a gene of the model is not in the order, or is in it twice.
    """
    place = {name: position for position, name in enumerate(genes.tolist())}
    found = [place[name] for name in order if name in place]
    missing = sorted(place.keys() - set(order))
    if missing:
        raise ValueError(
            f"`gene_order` lacks {len(missing):,} genes of the model: {list_names(missing)}. Give "
            "all, or leave it out, and genes are ordered by their correlation."
        )
    if len(found) > len(place):
        raise ValueError("`gene_order` has genes of the model more than once; give each once.")
    return np.array(found, dtype=np.intp)


def _as_tensor(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _root_mean_square(values: Tensor) -> Tensor:
    """Compute the root mean square; 1 if all values are 0."""
    square = values.square().mean()
    return torch.where(square > 0, square, torch.ones_like(square)).sqrt()
