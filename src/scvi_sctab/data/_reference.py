"""Check a reference before anything is learnt from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scvi_sctab.data._counts import describe_empty_cells, empty_cells
from scvi_sctab.data._genes import check_genes
from scvi_sctab.data._obs import check_labels, get_column
from scvi_sctab.data._reader import read_counts, refuse_view

if TYPE_CHECKING:
    from anndata import AnnData


def check_cells(adata: AnnData, layer: str | None) -> None:
    """Check that every cell holds raw counts, and some.

    Parameters
    ----------
    adata
        In memory or backed.
    layer
        Layer with the counts; ``None`` is ``X``.

    Raises
    ------
    ValueError
        If a value is not a count, or cells are empty.
    """
    start, empty = 0, []
    for block in read_counts(adata, layer):
        empty.extend(adata.obs_names[start + empty_cells(block)])
        start += block.shape[0]
    if empty:
        raise ValueError(describe_empty_cells(empty, adata.n_obs))


def check_reference(
    adata: AnnData,
    layer: str | None,
    labels_key: str,
    unlabeled_category: str,
    columns: dict[str, str | None],
    covariates: Sequence[str] | None = None,
) -> None:
    """Check genes, columns, labels and counts of a reference.

    Parameters
    ----------
    adata
        The reference.
    layer
        Layer with the counts; ``None`` is ``X``.
    labels_key, unlabeled_category
        Column of labels, and the label of cells without one.
    columns
        Further columns by the argument that named them; ``None`` is no column. Donors are looked
        up as ``"donor_key"``.
    covariates
        Columns of covariates.

    Raises
    ------
    KeyError
        If a column or the layer does not exist.
    ValueError
        If something cannot be learnt from.
    """
    refuse_view(adata)
    check_genes(adata.var_names)
    for argument, key in columns.items():
        if key is not None:
            get_column(adata.obs, key, argument)
    for key in covariates or ():
        get_column(adata.obs, key, "categorical_covariate_keys")
    check_labels(adata.obs, labels_key, unlabeled_category, columns.get("donor_key"))
    check_cells(adata, layer)
