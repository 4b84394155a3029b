"""Cells that a saved model is loaded with, brought to its genes, labels and batches."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData, read_h5ad
from scvi import REGISTRY_KEYS

from scvi_sctab._logging import logger
from scvi_sctab.data import (
    check_genes,
    condition_codes,
    list_names,
    name_as_known,
    name_values,
    prepare_query,
    query_cells,
    registered_conditions,
    strip_versions,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


def find_anndata(
    adata: AnnData | str | os.PathLike[str] | bool | None, saved: Path
) -> AnnData | None:
    """Resolve what ``load`` was given.

    Parameters
    ----------
    adata
        Cells, their path, ``None`` for those that were saved, or ``False`` for none.
    saved
        Where cells may have been saved.

    Raises
    ------
    TypeError
        If ``adata`` is something else.
    """
    if adata is None:
        return read_h5ad(saved) if saved.exists() else None
    if adata is False:
        return None
    if isinstance(adata, str | os.PathLike):
        return read_h5ad(adata)
    if not isinstance(adata, AnnData):
        raise TypeError(f"adata must be an AnnData, a path, None or False, not {adata!r}.")
    return adata


def bring_cells(
    adata: AnnData, registry: dict[str, Any], surgery: dict[str, Any] | None, cls: type
) -> AnnData:
    """Bring cells to what a model was set up with.

    Parameters
    ----------
    adata
        Cells; left as they are.
    registry
        Registry of the model.
    surgery
        What ``load_query_data`` recorded, if it made the model.
    cls
        Class of the model, for messages.

    Returns
    -------
    ``adata`` itself, if its genes are the model's in their order, and its labels, if the model is
    one of a query, too; otherwise cells of their own.

    Raises
    ------
    ValueError
        If genes are missing of a model that is none of a query, or batches are unknown to the
        model.
    """
    genes = check_genes(registry["field_registries"]["X"]["state_registry"]["column_names"])
    _require_batches(adata, registry, cls)
    if surgery is None:
        return _align(adata, genes, cls.__name__)
    labels = _labels_of_query(adata, registry)
    in_order = list(strip_versions(adata.var_names)) == list(genes)
    if in_order and _is_prepared(adata, registry, labels):
        return adata
    return _prepare_as_query(adata, registry, genes, labels)


def _align(adata: AnnData, genes: pd.Index, model: str) -> AnnData:
    """Bring genes into order; drop those that the model does not know."""
    names = strip_versions(adata.var_names)
    if list(names) == list(genes):
        return adata
    missing = genes.difference(names, sort=False)
    if len(missing):
        raise ValueError(
            f"`adata` lacks {len(missing):,} of the model's {len(genes):,} genes, e.g. "
            f"{list_names(missing)}. To predict, load without it, "
            f"`{model}.load(path, adata=False)`: cells given later are matched by name. To train "
            f"on with zeros for these genes, bring it to them: "
            f"`{model}.prepare_query_anndata(adata, path)`."
        )
    aligned = prepare_query(adata, genes)
    logger.info(
        f"The genes of `adata` were brought into the order of the model's {len(genes):,}; "
        f"{adata.n_vars - len(genes):,} others were dropped. `model.adata` is a copy."
    )
    return aligned


def _labels_of_query(adata: AnnData, registry: dict[str, Any]) -> NDArray[np.object_] | None:
    """Labels that the model knows, which may be learnt from; ``None`` leaves the column alone."""
    state = registry["field_registries"][REGISTRY_KEYS.LABELS_KEY]["state_registry"]
    key, unlabeled = registry["setup_args"]["labels_key"], str(state["unlabeled_category"])
    if not state.get("learnt", True):
        return None
    if key not in adata.obs:
        return np.full(adata.n_obs, unlabeled, dtype=object)
    known = [str(label) for label in state["categorical_mapping"]]
    labels = adata.obs[key].astype(object).map(str)
    # Others are missing values, or the names that the query's authors gave.
    return labels.where(labels.isin(known), unlabeled).to_numpy(dtype=object)


def _is_prepared(
    adata: AnnData, registry: dict[str, Any], labels: NDArray[np.object_] | None
) -> bool:
    """Whether labels and batches are called as the model calls them."""
    key = registry["setup_args"]["labels_key"]
    if labels is not None and not (key in adata.obs and (adata.obs[key] == labels).all()):
        return False
    conditions = registered_conditions(registry)
    return all(adata.obs[name].isin(categories).all() for name, categories in conditions)


def _prepare_as_query(
    adata: AnnData, registry: dict[str, Any], genes: pd.Index, labels: NDArray[np.object_] | None
) -> AnnData:
    """Do what ``load_query_data`` did to the cells that the model was made for."""
    setup = registry["setup_args"]
    query = query_cells(adata, setup["layer"], genes, into=setup["layer"])
    if labels is not None:
        query.obs[setup["labels_key"]] = pd.Categorical(labels)
    for condition in registered_conditions(registry):
        names = name_values(query.obs[condition.key])
        query.obs[condition.key] = name_as_known(names, condition.categories)
    return query


def _require_batches(adata: AnnData, registry: dict[str, Any], cls: type) -> None:
    """Stop at batches for which the network has no row."""
    model = cls.__name__
    mapping = (
        f"Map these cells, `{model}.load_query_data(adata, path)`; to"
        if hasattr(cls, "load_query_data")
        else "To"
    )
    for condition in registered_conditions(registry):
        unknown = condition_codes([condition], adata.obs).ravel() < 0
        if unknown.any():
            values = (
                adata.obs[condition.key].astype(str)[unknown].unique()
                if condition.key in adata.obs
                else []
            )
            raise ValueError(
                f"`adata.obs[{condition.key!r}]` is missing or holds values that the model does not "
                f"know: {list_names(values)}. {mapping} predict alone, load without them, "
                f"`{model}.load(path, adata=False)`."
            )
