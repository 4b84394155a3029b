"""Cells of a file, with counts that stay on disk where the format allows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata.io import read_elem, sparse_dataset

from scvi_sctab.data.files._refusal import RefusedInputError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

RAW = "raw.X"
"""Place of the matrix of ``raw``."""


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
        Matrices by place: ``"X"``, ``"layers['counts']"`` of each layer, and ``"raw.X"``.
    obsm
        Coordinates of cells by key, on disk.
    """

    path: Path
    kind: str
    obs: pd.DataFrame
    matrices: dict[str, StoredMatrix]
    obsm: Mapping[str, Any] = field(default_factory=dict)

    def read_coordinates(self, key: str) -> NDArray[Any]:
        """Read coordinates of the cells, ``(n_cells, n_dimensions)``.

        Parameters
        ----------
        key
            Key of ``obsm``.

        Raises
        ------
        RefusedInputError
            If there is no such key.
        """
        if key not in self.obsm:
            raise RefusedInputError(
                f"{self.path} has no {key!r} in obsm; it has {list(self.obsm.keys())}.",
                "Name one of these, or leave it out for a layout of the latent space.",
            )
        return np.asarray(read_elem(self.obsm[key]))

    def find_place(self, name: str) -> str | None:
        """Return the place of a matrix.

        Parameters
        ----------
        name
            A place, the name of a layer, or ``"raw"`` for ``raw.X``. A layer of the name
            ``"raw"`` comes before ``raw.X``, and ``X`` before a layer of the name ``"X"``.

        Returns
        -------
        A key of ``matrices``, or ``None`` if there is no such matrix.
        """
        places = (name, place_of_layer(name), *([RAW] if name == "raw" else []))
        return next((place for place in places if place in self.matrices), None)

    def name_matrices(self) -> list[str]:
        """Return a name of each matrix by which :meth:`find_place` finds it, the shortest one."""
        short = {
            place: place.removeprefix("layers['").removesuffix("']") for place in self.matrices
        }
        short |= {"X": "X", RAW: "raw"}
        return [
            short[place] if self.find_place(short[place]) == place else place
            for place in self.matrices
        ]


def place_of_layer(name: str) -> str:
    """Return the place of a layer, as messages name it."""
    return f"layers[{name!r}]"


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
    found |= {place_of_layer(name): layers[name] for name in layers.keys()}
    matrices = {
        place: StoredMatrix(_lazy(stored), var)
        for place, stored in found.items()
        if not _is_empty(stored)
    }
    if "raw" in group and "X" in group["raw"]:
        raw = group["raw"]
        matrices[RAW] = StoredMatrix(_lazy(raw["X"]), read_elem(raw["var"]))
    obsm = group["obsm"] if "obsm" in group else {}
    return StoredCells(path, kind, read_elem(group["obs"]), matrices, obsm)


def _is_empty(stored: Any) -> bool:
    """Return whether there is no matrix: an `.h5mu` file may hold an `X` that is null."""
    return stored.attrs.get("encoding-type") == "null"


def _lazy(stored: Any) -> Any:
    return sparse_dataset(stored) if hasattr(stored, "keys") else stored
