"""Cells of a file, with counts that stay on disk where the format allows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anndata.io import read_elem, sparse_dataset

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class StoredMatrix:
    """A matrix of a file, and the table of its genes.

    Attributes
    ----------
    values
        ``(n_cells, n_genes)``, on disk or in memory; dense, CSR or CSC.
    var
        Table of genes, which differs between ``X`` and ``raw``.
    """

    values: Any
    var: pd.DataFrame


@dataclass(frozen=True)
class StoredCells:
    """Cells of an open file.

    Attributes
    ----------
    path
        The file or folder.
    kind
        Name of its format.
    obs
        Table of cells.
    matrices
        Matrices by name: ``"X"``, names of layers, and ``"raw"``.
    """

    path: Path
    kind: str
    obs: pd.DataFrame
    matrices: dict[str, StoredMatrix]


def read_stored(group: Any, path: Path, kind: str) -> StoredCells:
    """Read the tables of an AnnData on disk; matrices stay there.

    Parameters
    ----------
    group
        An open HDF5 or zarr group.
    path, kind
        As in :class:`StoredCells`.
    """
    var = read_elem(group["var"])
    found = {"X": group["X"]} if "X" in group else {}
    layers = group["layers"] if "layers" in group else {}
    found |= {name: layers[name] for name in layers.keys()}
    matrices = {name: StoredMatrix(_lazy(stored), var) for name, stored in found.items()}
    if "raw" in group and "X" in group["raw"]:
        raw = group["raw"]
        matrices["raw"] = StoredMatrix(_lazy(raw["X"]), read_elem(raw["var"]))
    return StoredCells(path, kind, read_elem(group["obs"]), matrices)


def _lazy(stored: Any) -> Any:
    return sparse_dataset(stored) if hasattr(stored, "keys") else stored
