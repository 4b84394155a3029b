"""Selection of the cells that a method of a model reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anndata import AnnData

from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab.data._mudata import is_mudata

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

X_LAYER = "X"
"""Value of ``layer`` for ``adata.X``, for models that read a layer."""


@dataclass(frozen=True)
class CellSelection:
    """Selected cells, and the layer with their counts.

    Attributes
    ----------
    adata
        AnnData of the cells, in memory or backed.
    positions
        Positions of the selected cells, ``(n_cells,)``, in the order of the result.
    layer
        Layer with their counts; ``None`` is ``X``.
    min_gene_overlap
        Share of the model's genes below which the cells are refused.
    """

    adata: AnnData
    positions: NDArray[np.intp]
    layer: str | None = None
    min_gene_overlap: float = MIN_GENE_OVERLAP

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def names(self) -> pd.Index:
        """Names of the cells, ``(n_cells,)``."""
        return self.adata.obs_names[self.positions]

    def take(self, cells: NDArray[np.intp] | NDArray[np.bool_]) -> CellSelection:
        """Select among the selected cells, by position among them or by a mask."""
        return replace(self, positions=self.positions[cells])


def choose_layer(adata: AnnData, layer: str | None, own: str | None) -> str | None:
    """Choose the matrix to read: ``layer`` if given, else that of the model.

    Parameters
    ----------
    adata
        AnnData of the cells.
    layer
        Argument of a method; ``"X"`` is ``adata.X`` unless a layer has that name.
    own
        Layer that the model was set up with.

    Returns
    -------
    Name of a layer; ``None`` is ``X``.
    """
    if layer is None:
        return own
    return None if layer == X_LAYER and X_LAYER not in adata.layers else layer


def check_anndata(adata: Any, argument: str = "adata") -> AnnData:
    """Return an AnnData; for other types the error has the line that makes one.

    Parameters
    ----------
    adata
        Argument of a method.
    argument
        Its name, for the message.

    Raises
    ------
    TypeError
        If it is not an AnnData.
    """
    if isinstance(adata, AnnData):
        return adata
    kind = type(adata).__name__
    if is_mudata(adata):
        names = list(adata.mod)
        shown = "rna" if "rna" in names or not names else names[0]
        cure = f'pass one of its modalities, e.g. `mdata["{shown}"]`; it has {names}'
    elif isinstance(adata, str | Path):
        cure = f"read the file first, `anndata.read_h5ad({str(adata)!r})`"
        kind = "path"
    elif isinstance(adata, list | tuple) and adata and isinstance(adata[0], AnnData):
        cure = "join them first, `anndata.concat(adatas, label='batch')`"
    elif isinstance(adata, type) or callable(adata):
        cure = "pass the object itself"
    elif hasattr(adata, "columns") and hasattr(adata, "iloc"):
        cure = "make one of raw counts, cells in rows, `anndata.AnnData(table)`"
    elif hasattr(adata, "shape"):
        cure = (
            "make one with the names of genes, "
            "`anndata.AnnData(matrix, obs=..., var=pandas.DataFrame(index=gene_names))`"
        )
    else:
        cure = "cells in rows, genes in columns, raw counts in `X` or a layer"
    raise TypeError(f"{argument} must be an AnnData, not a {kind}: {cure}.")
