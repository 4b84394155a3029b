"""Alignment of the cells that a model is loaded with, by genes, labels and batches."""

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
        Path of saved cells, which need not exist.

    Raises
    ------
    TypeError
        If ``adata`` is of another type.
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
    """Align cells with the genes, labels and batches of a model.

    Parameters
    ----------
    adata
        Cells; they are not changed.
    registry
        Registry of the model.
    surgery
        Record of ``load_query_data``, for a query model.
    cls
        Class of the model, for messages.

    Returns
    -------
    ``adata`` itself if nothing has to change: its genes, and for a query model its labels and
    batches, are those of the model; otherwise a copy.

    Raises
    ------
    ValueError
        If the model does not know a batch, or genes are missing and it is not a query model.
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
    """Reorder genes as in the model; drop those that it does not know."""
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
    """Return labels to train on, unknown ones as unlabelled; ``None`` if labels are not used."""
    state = registry["field_registries"][REGISTRY_KEYS.LABELS_KEY]["state_registry"]
    key, unlabeled = registry["setup_args"]["labels_key"], str(state["unlabeled_category"])
    if not state.get("learnt", True):
        return None
    if key not in adata.obs:
        return np.full(adata.n_obs, unlabeled, dtype=object)
    known = [str(label) for label in state["categorical_mapping"]]
    labels = adata.obs[key].astype(object).map(str)
    # Unknown labels are missing values, or names by the authors of the query.
    return labels.where(labels.isin(known), unlabeled).to_numpy(dtype=object)


def _is_prepared(
    adata: AnnData, registry: dict[str, Any], labels: NDArray[np.object_] | None
) -> bool:
    """Return whether labels and batches have the names of the model."""
    key = registry["setup_args"]["labels_key"]
    if labels is not None and not (key in adata.obs and (adata.obs[key] == labels).all()):
        return False
    conditions = registered_conditions(registry)
    return all(adata.obs[name].isin(categories).all() for name, categories in conditions)


def _prepare_as_query(
    adata: AnnData, registry: dict[str, Any], genes: pd.Index, labels: NDArray[np.object_] | None
) -> AnnData:
    """Convert cells as ``load_query_data`` did for the cells of the query model."""
    setup = registry["setup_args"]
    query = query_cells(adata, setup["layer"], genes, into=setup["layer"])
    if labels is not None:
        query.obs[setup["labels_key"]] = pd.Categorical(labels)
    for condition in registered_conditions(registry):
        names = name_values(query.obs[condition.key])
        query.obs[condition.key] = name_as_known(names, condition.categories)
    return query


def _require_batches(adata: AnnData, registry: dict[str, Any], cls: type) -> None:
    """Refuse batches that the model does not know."""
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
