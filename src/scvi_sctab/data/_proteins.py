"""Counts of surface proteins, from ``obsm`` or a MuData."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from scvi_sctab._messages import list_names

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def get_proteins(adata: AnnData, key: str, names_key: str | None = None) -> pd.DataFrame:
    """Read and check counts of proteins.

    Parameters
    ----------
    adata
        Cells.
    key
        Key of ``adata.obsm``: a data frame, or an array ``(n_cells, n_proteins)``. Values that
        were not measured are NaN.
    names_key
        Key of ``adata.uns`` with the names of proteins. If not given, the names of the data
        frame's columns, or numbers for an array.

    Returns
    -------
    ``(n_cells, n_proteins)``, float32, rows named by cell, columns by protein.

    Raises
    ------
    KeyError
        If there is no such key.
    ValueError
        If a value is negative or infinite, a protein is duplicated, or nothing was measured.

    Examples
    --------
    >>> from anndata import AnnData
    >>> cells = AnnData(np.ones((2, 3)), obsm={"protein": np.array([[5.0], [np.nan]])})
    >>> get_proteins(cells, "protein").iloc[:, 0].tolist()
    [5.0, nan]
    """
    values = _get_entry(adata.obsm, key, "adata.obsm", "protein_expression_obsm_key")
    frame = isinstance(values, pd.DataFrame)
    names = [*values.columns] if frame else [*range(values.shape[1])]
    if names_key is not None:
        names = [*_get_entry(adata.uns, names_key, "adata.uns", "protein_names_uns_key")]
    matrix = values.toarray() if sparse.issparse(values) else values
    counts = np.asarray(matrix, dtype=np.float32)
    if len(names) != counts.shape[1]:
        raise ValueError(f"{counts.shape[1]} proteins have {len(names)} names.")
    proteins = pd.DataFrame(counts, adata.obs_names, pd.Index(names, dtype=object).astype(str))
    if not proteins.columns.is_unique:
        twice = proteins.columns[proteins.columns.duplicated()]
        raise ValueError(f"Proteins are duplicated in `adata.obsm[{key!r}]`: {list_names(twice)}.")
    wrong = (counts < 0) | np.isinf(counts)
    if wrong.any():
        raise ValueError(
            f"`adata.obsm[{key!r}]` holds negative or infinite values, of "
            f"{list_names(proteins.columns[wrong.any(axis=0)])}. Counts are asked for, neither "
            "centred nor log-transformed; what was not measured is NaN."
        )
    if np.isnan(counts).all():
        raise ValueError(
            f"`adata.obsm[{key!r}]` is NaN throughout: no protein was measured in any cell."
        )
    return proteins


def _get_entry(mapping: Any, key: str, place: str, argument: str) -> Any:
    """Look up a key; the error names a similar one."""
    if key in mapping:
        return mapping[key]
    near = get_close_matches(key, list(mapping), n=1)
    raise KeyError(
        f"{argument}={key!r} is not in `{place}`"
        + (f"; did you mean {near[0]!r}?" if near else f", which has {list(mapping)}.")
    )


def join_proteins(
    mdata: MuData,
    rna: str = "rna",
    protein: str = "protein",
    *,
    layer: str | None = None,
    key: str = "protein_expression",
) -> AnnData:
    """Join the proteins of a MuData with its genes in an AnnData.

    Parameters
    ----------
    mdata
        MuData with both modalities; their cells may differ.
    rna, protein
        Names of the modalities with counts of genes and of proteins.
    layer
        Layer with the counts of proteins; ``None`` is ``X``.
    key
        Key of the proteins in ``obsm``.

    Returns
    -------
    A copy of the modality with genes; proteins are a data frame in ``obsm``, NaN for cells without
    proteins.

    Raises
    ------
    KeyError
        If there is no such modality or layer.
    ValueError
        If the two share no cell, or cells with proteins share names.

    Examples
    --------
    >>> from scvi_sctab import data
    >>> cells = data.join_proteins(mdata, protein="prot")  # doctest: +SKIP
    """
    genes = _get_entry(mdata.mod, rna, "mdata.mod", "rna").copy()
    other = _get_entry(mdata.mod, protein, "mdata.mod", "protein")
    values = other.X if layer is None else _get_entry(other.layers, layer, "layers", "layer")
    dense = values.toarray() if sparse.issparse(values) else np.asarray(values)
    frame = pd.DataFrame(dense.astype(np.float32), other.obs_names, other.var_names)
    if not genes.obs_names.isin(frame.index).any():
        raise ValueError(
            f"{rna!r} and {protein!r} share no cell: cells of {rna!r} are named "
            f"{list_names(genes.obs_names)}, those of {protein!r} {list_names(frame.index)}. Cells "
            "are matched by `obs_names`; name them alike."
        )
    if not frame.index.is_unique:
        twice = frame.index[frame.index.duplicated()].unique()
        raise ValueError(
            f"Cells of {protein!r} share names, {list_names(twice)}, so that rows cannot be "
            "distinguished. Make names unique in both modalities: `obs_names_make_unique()`."
        )
    genes.obsm[key] = frame.reindex(genes.obs_names)
    return genes
