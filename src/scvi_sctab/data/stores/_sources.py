"""Files that a corpus is made of, read a block at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd

from scvi_sctab._messages import list_names
from scvi_sctab.data._genes import GeneAlignment
from scvi_sctab.data._names import name_values
from scvi_sctab.data._obs import find_column
from scvi_sctab.data._reader import read_counts
from scvi_sctab.data._spelling import strip_versions

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse


@dataclass(frozen=True)
class Source:
    """An .h5ad file or a .zarr store of cells.

    Parameters
    ----------
    path
        File or folder.
    layer
        Layer with raw counts; ``None`` is ``X``.
    """

    path: Path
    layer: str | None = None

    @contextmanager
    def open(self) -> Iterator[Any]:
        """Open the file for reading.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is no AnnData, or is damaged.
        """
        if not self.path.exists():
            raise FileNotFoundError(f"There is no file {self.path}.")
        try:
            if self.path.is_dir():
                import zarr

                yield self._checked(zarr.open_group(self.path, mode="r"))
            else:
                with h5py.File(self.path, "r") as group:
                    yield self._checked(group)
        # h5py and zarr raise both for damaged files and blocks.
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"{self.path} cannot be read as an AnnData, it may be damaged: {error}"
            ) from error

    def _checked(self, group: Any) -> Any:
        if "obs" not in group or "var" not in group:
            raise ValueError(f"{self.path} is no AnnData: it lacks `obs` or `var`.")
        return group

    def read_genes(self, group: Any) -> pd.Index:
        """Return names of genes, without Ensembl versions.

        Parameters
        ----------
        group
            The opened file.

        Raises
        ------
        ValueError
            If names are duplicated.
        """
        names = strip_versions(_read_index(group["var"]))
        if names.has_duplicates:
            raise ValueError(
                f"{self.path}: gene names are duplicated (Ensembl versions ignored): "
                f"{list_names(names[names.duplicated()].unique())}."
            )
        return names

    def read_obs(self, group: Any, columns: Sequence[str]) -> pd.DataFrame:
        """Read some columns of ``obs``.

        Parameters
        ----------
        group
            The opened file.
        columns
            Names of columns.

        Raises
        ------
        KeyError
            If there is no such column.
        """
        stored = group["obs"]
        if not hasattr(stored, "attrs") or "encoding-type" not in stored.attrs:
            table = ad.io.read_elem(stored)  # of an old version of anndata
        else:
            present = [key for key in columns if key in stored]
            table = pd.DataFrame(
                {key: ad.io.read_elem(stored[key]) for key in present}, index=_read_index(stored)
            )
            if len(present) < len(set(columns)):
                missing = next(key for key in columns if key not in stored)
                # The message lists near names, so it takes the names of all columns.
                every = pd.DataFrame(columns=[str(key) for key in stored if key != "_index"])
                self._find(every, missing)
        for key in columns:
            self._find(table, key)
        return table[list(columns)]

    def _find(self, table: pd.DataFrame, key: str) -> None:
        try:
            find_column(table, key, "obs")
        except KeyError as error:
            raise KeyError(f"{self.path}: {error.args[0]}") from None

    def count_cells(self, group: Any) -> int:
        """Count the cells of the opened file."""
        return len(_read_index(group["obs"]))

    def read(
        self, group: Any, cells: NDArray[np.intp], alignment: GeneAlignment
    ) -> sparse.csr_matrix:
        """Read raw counts of some cells.

        Parameters
        ----------
        group
            The opened file.
        cells
            Positions in increasing order, ``(n_cells,)``.
        alignment
            Alignment of genes with those of the corpus.

        Returns
        -------
        CSR, ``(n_cells, n_genes)``.

        Raises
        ------
        ValueError
            If a value is not a raw count, or the file is damaged.
        """
        stored = self._matrix(group)
        # Names are read for messages only.
        obs = pd.DataFrame(index=pd.RangeIndex(stored.shape[0]).astype(str))
        var = pd.DataFrame(index=_read_index(group["var"]))
        adata = ad.AnnData(X=stored, obs=obs, var=var)
        try:
            (block,) = read_counts(adata, None, cells, alignment, block_size=max(len(cells), 1))
        except ValueError as error:
            raise type(error)(f"{self.path}: {error}") from error
        return block

    def _matrix(self, group: Any) -> Any:
        """Return the matrix of counts, on disk."""
        name = "X" if self.layer is None else f"layers/{self.layer}"
        if name not in group:
            layers = sorted(group["layers"]) if "layers" in group else []
            raise ValueError(
                f"{self.path} has no {name!r}; its layers are {layers}. Name the one with raw "
                "counts, `layer=`."
            )
        stored = group[name]
        is_sparse = str(stored.attrs.get("encoding-type", "")) in ("csr_matrix", "csc_matrix")
        return ad.io.sparse_dataset(stored) if is_sparse else stored


def _read_index(stored: Any) -> pd.Index:
    """Read the names of the rows of a table."""
    key = stored.attrs.get("_index") if hasattr(stored, "attrs") else None
    if key is None:
        return ad.io.read_elem(stored).index
    return pd.Index(np.asarray(ad.io.read_elem(stored[key]), dtype=object).astype(str))


def choose_genes(
    genes_of: Sequence[pd.Index], genes: str | Sequence[str], paths: Sequence[Path]
) -> pd.Index:
    """Choose the genes of a corpus.

    Parameters
    ----------
    genes_of
        Genes of each file.
    genes
        ``"intersection"``, ``"union"``, or names in the order that is wanted.
    paths
        The files, for messages.

    Raises
    ------
    ValueError
        If files have no gene in common, or one has none of the names.
    """
    if isinstance(genes, str):
        if genes not in ("intersection", "union"):
            raise ValueError(
                f"{genes=} is neither 'intersection' nor 'union', nor a list of names."
            )
        chosen = genes_of[0]
        for names, path in zip(genes_of[1:], paths[1:], strict=True):
            if not len(chosen.intersection(names)):
                raise ValueError(
                    f"{path} has no gene in common with the files before: its genes look like "
                    f"{list_names(names)}, theirs like {list_names(chosen)}."
                )
            chosen = (
                chosen.intersection(names, sort=False)
                if genes == "intersection"
                else chosen.union(names, sort=False)
            )
        return chosen
    chosen = strip_versions(pd.Index(list(genes), dtype=object))
    if chosen.has_duplicates:
        raise ValueError(f"genes= lists {list_names(chosen[chosen.duplicated()])} more than once.")
    for names, path in zip(genes_of, paths, strict=True):
        if not names.isin(chosen).any():
            raise ValueError(
                f"{path} has none of the {len(chosen):,} genes: its genes look like "
                f"{list_names(names)}, those wanted like {list_names(chosen)}."
            )
    return chosen


def align(genes: pd.Index, names: pd.Index) -> GeneAlignment:
    """Align the genes of a file with those of the corpus; missing ones are 0."""
    return GeneAlignment(genes.get_indexer(names), genes.difference(names), len(genes))


def as_categorical(column: pd.Series) -> pd.Categorical:
    """Name the values of a column; missing ones stay missing."""
    return name_values(column)
