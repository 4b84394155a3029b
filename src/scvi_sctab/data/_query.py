"""Preparation of a query: genes, batches and labels of a model."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from scvi import REGISTRY_KEYS

from scvi_sctab._constants import DONOR_KEY, MIN_CELLS_PER_LABEL, MIN_GENE_OVERLAP
from scvi_sctab._messages import list_names, warn
from scvi_sctab.data._counts import describe_empty_cells, empty_cells
from scvi_sctab.data._fields import LEARNT
from scvi_sctab.data._genes import GeneAlignment, align_genes
from scvi_sctab.data._names import canonical, check_values, fold, name_values, near_name
from scvi_sctab.data._obs import find_column, get_column, reads_as_none
from scvi_sctab.data._reader import (
    get_matrix,
    read_counts,
    row_readable,
    stored_matrix,
    take_rows,
)
from scvi_sctab.data._selection import check_anndata
from scvi_sctab.sparse import move_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scvi_sctab._types import Names


def prepare_query(
    adata: AnnData, gene_names: Sequence[str], min_gene_overlap: float = MIN_GENE_OVERLAP
) -> AnnData:
    """Reorder the genes of a query to those of a model; missing ones are 0, others are dropped.

    Parameters
    ----------
    adata
        Query in memory or backed; it is not changed.
    gene_names
        The model's genes.
    min_gene_overlap
        Share of the model's genes, 0 to 1, that the query must have.

    Returns
    -------
    ``(n_cells, n_genes)``; ``X`` and all layers are CSR and keep the type of their values;
    ``obs``, ``obsm``, ``obsp`` and ``uns`` are those of ``adata``; ``var`` has its columns, with
    missing values for missing genes.

    Raises
    ------
    GeneMismatchError
        As :func:`align_genes`.
    """
    alignment = align_genes(gene_names, check_anndata(adata).var, min_gene_overlap)
    genes = pd.Index(gene_names, dtype=object)
    present = alignment.target >= 0
    var = adata.var.loc[present].set_axis(genes[alignment.target[present]], axis=0).reindex(genes)
    names = [name for name in adata.layers if name is not None]
    x = stored_matrix(adata, None)
    return AnnData(
        None if x is None else _align(x, alignment),
        obs=adata.obs.copy(),
        var=var,
        obsm=dict(adata.obsm),
        obsp=dict(adata.obsp),
        uns=dict(adata.uns),
        layers={name: _align(stored_matrix(adata, name), alignment) for name in names},
    )


def _align(matrix: Any, alignment: GeneAlignment) -> sparse.csr_matrix:
    rows = take_rows(row_readable(matrix, "matrix"), slice(None))
    return move_columns(rows, alignment.target, alignment.n_genes)


def query_cells(
    adata: AnnData,
    layer: str | None,
    gene_names: Names,
    min_gene_overlap: float = MIN_GENE_OVERLAP,
    *,
    into: str | None = None,
) -> AnnData:
    """Check the counts of a query and align them with the genes of a model.

    Parameters
    ----------
    adata
        Query in memory or backed; it is not changed.
    layer
        Layer with the counts; ``None`` is ``X``.
    gene_names
        The model's genes.
    min_gene_overlap
        Share of the model's genes, 0 to 1, that the query must have.
    into
        Layer to put the counts into; ``None`` is ``X``.

    Returns
    -------
    A new AnnData, in memory, with counts as CSR. If the genes are the model's already, the counts
    are shared with ``adata``, not copied.

    Raises
    ------
    ValueError
        If there are no cells, a value is not a count, or cells are empty; or as
        :func:`align_genes`.
    """
    if not check_anndata(adata).n_obs:
        raise ValueError("The query has no cells.")
    alignment = align_genes(gene_names, adata.var, min_gene_overlap)
    matrix = get_matrix(adata, layer)
    as_it_is = alignment.is_identity and isinstance(matrix, sparse.csr_matrix)
    blocks, start, empty = [], 0, []
    for block in read_counts(adata, layer, alignment=alignment):
        empty.extend(adata.obs_names[start + empty_cells(block)])
        start += block.shape[0]
        if not as_it_is:
            blocks.append(block)
    if empty:
        raise ValueError(describe_empty_cells(empty, adata.n_obs))
    if not as_it_is:
        matrix = sparse.vstack(blocks, format="csr")
    var = pd.DataFrame(index=pd.Index(gene_names, dtype=object))
    counts = AnnData(matrix, adata.obs.copy(), var)
    if into is not None:
        counts.layers[into] = counts.X
        counts.X = None
    return counts


def query_labels(
    obs: pd.DataFrame, labels_key: str, unlabeled_category: str, known: Names
) -> tuple[NDArray[np.object_], list[str]]:
    """Return the labels of a query; labels may be missing or unknown to the model.

    Parameters
    ----------
    obs
        ``adata.obs``; the column of labels may be missing, and so may its values.
    labels_key, unlabeled_category
        Column of labels, and the label of cells without one.
    known
        The model's labels.

    Returns
    -------
    A label per cell, and the new labels.

    Raises
    ------
    ValueError
        If a new label has fewer than ``MIN_CELLS_PER_LABEL`` cells, or reads as missing.

    Warns
    -----
    UserWarning
        If there are new labels.
    """
    if labels_key not in obs:
        return np.full(len(obs), unlabeled_category, dtype=object), []
    unlabeled = str(unlabeled_category)
    column = find_column(obs, labels_key, "labels_key")
    check_values(column, labels_key, "labels_key")
    labels = pd.Series(np.asarray(name_values(column), dtype=object)).fillna(unlabeled)
    n_cells = labels.value_counts()
    new = sorted(set(n_cells.index) - set(known) - {unlabeled})
    for label in new:
        if fold(label) == fold(unlabeled) or reads_as_none(label):
            raise ValueError(
                f"query.obs[{labels_key!r}] holds {label!r}; the reference calls cells without a "
                f"label {unlabeled_category!r}. Rename it, or it would be learnt as a type."
            )
    rare = [label for label in new if n_cells[label] < MIN_CELLS_PER_LABEL]
    if rare:
        raise ValueError(
            f"New labels with fewer than {MIN_CELLS_PER_LABEL} cells cannot be learnt: "
            f"{list_names(rare)}. Drop the cells, or set their label to {unlabeled_category!r}."
        )
    if new:
        warn(
            f"query.obs[{labels_key!r}] holds labels that the reference does not know: "
            f"{list_names(new)}. The model grows by them. "
            f"{_advise_renaming(new, known, labels_key)}; if they are not to be learnt, leave out "
            "`learn_labels=True`."
        )
    return labels.to_numpy(dtype=object), new


def _advise_renaming(new: Sequence[str], known: Names, labels_key: str) -> str:
    meant = {label: near_name(label, known) for label in new}
    meant = {label: near for label, near in meant.items() if near is not None}
    here = f"query.obs[{labels_key!r}]"
    if meant:
        return (
            f"{list_names(meant)} may be {list_names(meant.values())}: "
            f"`{here} = {here}.astype(str).replace({meant})`"
        )
    return f"If they are other names of the reference's types, {list_names(known)}, rename them"


def n_labelled(obs: pd.DataFrame, labels_key: str, unlabeled_category: str) -> int:
    """Count the labelled cells of a query.

    Parameters
    ----------
    obs, labels_key, unlabeled_category
        As in :func:`query_labels`.
    """
    if labels_key not in obs:
        return 0
    names = name_values(find_column(obs, labels_key, "labels_key"))
    none = [name for name in names.categories if reads_as_none(name)]
    return int((names.notna() & ~names.isin([*none, str(unlabeled_category)])).sum())


def query_registry(
    registry: dict[str, Any], new_labels: Sequence[str], *, learn_labels: bool
) -> dict[str, Any]:
    """Make the registry for the set-up of a query: with its new labels, without donors.

    Parameters
    ----------
    registry
        Registry of the reference; it is not changed.
    new_labels
        Labels that the reference lacks.
    learn_labels
        Whether the labels of the query's cells are learnt from.
    """
    registry = deepcopy(registry)
    setup, fields = registry["setup_args"], registry["field_registries"]
    setup["donor_key"] = None
    fields.pop(DONOR_KEY, None)
    state = fields[REGISTRY_KEYS.LABELS_KEY]["state_registry"]
    unlabeled = str(state["unlabeled_category"])
    known = [label for label in map(canonical, state["categorical_mapping"]) if label != unlabeled]
    state["categorical_mapping"] = np.array([*known, *new_labels, unlabeled], dtype=object)
    state[LEARNT] = learn_labels
    return registry


def check_query_conditions(obs: pd.DataFrame, columns: dict[str, str]) -> None:
    """Check that a query has the columns on which the encoder is conditioned.

    Parameters
    ----------
    obs
        ``adata.obs`` of the query.
    columns
        Columns and the arguments that named them.

    Raises
    ------
    KeyError
        If a column is missing.
    ValueError
        If it has missing values, or different values have the same name.
    """
    for key, argument in columns.items():
        if key not in obs:
            raise KeyError(
                f"The reference was set up with {argument}={key!r}, which is no column of the "
                f"query's `obs`; it has {list(obs.columns)}. Say what the cells are, e.g. "
                f"`query.obs[{key!r}] = 'my query'`."
            )
        get_column(obs, key, argument)
