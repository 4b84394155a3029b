"""Corpus of cells on disk, as an AnnData whose counts are read when they are used."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import pandas as pd

from scvi_sctab._messages import list_names
from scvi_sctab.data.stores._annbatch import import_annbatch
from scvi_sctab.data.stores._manifest import CELLS_FOLDER, Manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

_READ_CELLS = 1024


@dataclass(frozen=True)
class Corpus:
    """Store of cells that was written by :func:`prepare_corpus`.

    Attributes
    ----------
    path
        Its folder.
    manifest
        Its files, genes, filters and parts.

    Examples
    --------
    >>> corpus = Corpus.open("atlas")  # doctest: +SKIP
    >>> cells = corpus.read_lazily()  # doctest: +SKIP
    """

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Corpus:
        """Open a corpus.

        Parameters
        ----------
        path
            Its folder.

        Raises
        ------
        FileNotFoundError
            If there is none.
        ValueError
            If it is damaged.
        """
        import_annbatch("Corpus")
        folder = Path(path)
        manifest = Manifest.read(folder)
        if not manifest.is_whole:
            raise ValueError(
                f"{folder} is a corpus whose preparation was stopped: call `prepare_corpus` again "
                "with the same arguments to finish it."
            )
        return cls(folder, manifest)

    @property
    def collection(self) -> Path:
        """Folder of the cells, which :class:`annbatch.DatasetCollection` reads, too."""
        return self.path / CELLS_FOLDER

    def __len__(self) -> int:
        return self.manifest.n_cells

    def datasets(self) -> list[Any]:
        """Return the counts of each dataset on disk, CSR, in their order."""
        return [ad.io.sparse_dataset(group["X"]) for group in self._groups()]

    def read_lazily(self, columns: Sequence[str] | None = None) -> ad.AnnData:
        """Return all cells as an AnnData, whose counts stay on disk until they are used.

        Parameters
        ----------
        columns
            Columns of ``obs`` to load; all if not given.

        Returns
        -------
        ``(n_cells, n_genes)``; ``X`` is a dask array of CSR blocks.

        Raises
        ------
        KeyError
            If there is no such column.
        """
        import dask.array as da

        columns = self.manifest.columns if columns is None else list(columns)
        unknown = [key for key in columns if key not in self.manifest.columns]
        if unknown:
            raise KeyError(
                f"The corpus has no column {list_names(unknown)}; it has {self.manifest.columns}. "
                "Keep more when you prepare it, `obs_columns=`."
            )
        blocks, tables, genes = [], [], None
        for group in self._groups():
            shape = group["X"].attrs["shape"]
            chunks = (min(_READ_CELLS, shape[0]), shape[1])
            blocks.append(ad.experimental.read_elem_lazy(group["X"], chunks=chunks))
            stored = group["obs"]
            index = ad.io.read_elem(stored[stored.attrs["_index"]])
            table = {key: ad.io.read_elem(stored[key]) for key in columns}
            tables.append(pd.DataFrame(table, index=index))
            genes = ad.io.read_elem(group["var"]) if genes is None else genes
        # Categories are those of the corpus in every dataset, so that they stay categories.
        return ad.AnnData(da.concatenate(blocks), obs=pd.concat(tables), var=genes)

    def _groups(self) -> list[Any]:
        import zarr

        root = zarr.open_group(self.collection, mode="r")
        return [root[f"dataset_{number}"] for number in range(len(self.manifest.datasets))]
