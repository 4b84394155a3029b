"""Conversion of a MuData to an AnnData that shares its counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from anndata import AnnData

COUNTS = "layer"
"""Key of the modality with counts in the argument ``modalities`` of ``setup_mudata``."""


def is_mudata(cells: Any) -> bool:
    """Return whether ``cells`` are a MuData, without importing mudata."""
    return hasattr(cells, "mod") and hasattr(cells, "obsmap")


def cells_of_mudata(
    mdata: Any,
    modalities: Mapping[str, str | None],
    columns: Mapping[str, str],
    *,
    required: bool = True,
) -> AnnData:
    """Return the modality with counts as an AnnData, with columns of ``obs`` from any modality.

    Parameters
    ----------
    mdata
        A MuData; it is not changed.
    modalities
        Modality of the counts (key ``"layer"``) and of columns, by argument; a column that is not
        listed is one of ``mdata.obs`` or else of the modality with counts.
    columns
        Columns to take, each with the argument that named it.
    required
        Whether a missing column is an error.

    Returns
    -------
    ``(n_cells, n_genes)``, the cells of the modality with counts; ``X`` and layers share memory.

    Raises
    ------
    KeyError
        If there is no such modality or column.
    """
    counts = mdata.mod[_modality(mdata, modalities.get(COUNTS), COUNTS)]
    obs = pd.DataFrame(index=counts.obs_names)
    for key, argument in columns.items():
        column = _column(mdata, counts, key, argument, modalities.get(argument))
        if column is not None:
            obs[key] = column.reindex(obs.index)
        elif required:
            raise KeyError(
                f"{argument}={key!r} is a column of neither `mdata.obs`, which has "
                f"{list(mdata.obs)}, nor of the modality. Name the modality that has it: "
                f"`modalities={{{COUNTS!r}: ..., {argument!r}: ...}}`."
            )
    layers = {name: counts.layers[name] for name in counts.layers if name is not None}
    return AnnData(counts.X, obs, counts.var, layers=layers)


def _modality(mdata: Any, name: str | None, argument: str) -> str:
    if name is not None and name in mdata.mod:
        return name
    raise KeyError(
        f"There is no modality {name!r}; `mdata` has {list(mdata.mod)}. Say which one holds "
        f"counts of genes: `modalities={{{argument!r}: {next(iter(mdata.mod), 'rna')!r}}}`."
    )


def _column(
    mdata: Any, counts: AnnData, key: str, argument: str, modality: str | None
) -> pd.Series | None:
    if modality:
        obs = mdata.mod[_modality(mdata, modality, argument)].obs
        return obs.get(key)
    return mdata.obs[key] if key in mdata.obs else counts.obs.get(key)
