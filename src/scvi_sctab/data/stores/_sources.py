"""Files that a corpus is made of, read a block at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd

from scvi_sctab._constants import WARN_GENE_OVERLAP
from scvi_sctab._messages import list_names, warn
from scvi_sctab.data._counts import Cures, NotCountsError, diagnose
from scvi_sctab.data._genes import GeneAlignment, check_genes
from scvi_sctab.data._obs import find_column
from scvi_sctab.data._reader import row_readable, take_rows
from scvi_sctab.data._selection import X_LAYER
from scvi_sctab.data._spelling import strip_versions
from scvi_sctab.sparse import BrokenMatrixError, as_float32

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse

# Files that are open at a time, each with the positions of its rows in memory.
_MAX_OPEN = 64


class OpenFiles:
    """Context that keeps files open that are read in turns, and closes them at its end."""

    def __init__(self) -> None:
        self._opened: OrderedDict[tuple[Path, str | None], tuple[Any, Any]] = OrderedDict()

    def __enter__(self) -> OpenFiles:
        return self

    def __exit__(self, *_: Any) -> None:
        while self._opened:
            self._close_oldest()

    def matrix(self, path: Path, layer: str | None) -> Any:
        """Return counts on disk.

        Parameters
        ----------
        path, layer
            As in :class:`Source`.
        """
        key = (path, layer)
        if key not in self._opened:
            if len(self._opened) == _MAX_OPEN:
                self._close_oldest()
            self._opened[key] = _open_matrix(path, layer)
        self._opened.move_to_end(key)
        return self._opened[key][1]

    def _close_oldest(self) -> None:
        _, (group, _) = self._opened.popitem(last=False)
        if isinstance(group, h5py.File):
            group.close()


@dataclass(frozen=True)
class Source:
    """An .h5ad file or a .zarr store of cells.

    Parameters
    ----------
    path
        File or folder.
    layer
        Layer with raw counts; ``None`` or ``"X"`` is ``X``.
    files
        Files that are open.

    Raises
    ------
    FileNotFoundError
        If there is no such file; by every method.
    PermissionError
        If it may not be read.
    ValueError
        If it is no AnnData, or is damaged.
    """

    path: Path
    layer: str | None
    files: OpenFiles = field(repr=False)

    @property
    def matrix(self) -> Any:
        """Counts on disk, ``(n_cells, n_genes)``."""
        return self.files.matrix(self.path, self.layer)

    def read_genes(self) -> pd.Index:
        """Return names of genes, without Ensembl versions.

        Raises
        ------
        ValueError
            If names are duplicated.
        """
        with _Reading(self.path) as group:
            names = strip_versions(_read_index(group["var"]))
        if names.has_duplicates:
            raise ValueError(
                f"{self.path}: gene names are duplicated (Ensembl versions ignored): "
                f"{list_names(names[names.duplicated()].unique())}."
            )
        return names

    def read_obs(self, columns: Mapping[str, str]) -> pd.DataFrame:
        """Read some columns of ``obs``.

        Parameters
        ----------
        columns
            Names of columns, and the argument that named each.

        Raises
        ------
        KeyError
            If there is no such column.
        ValueError
            If names of cells are duplicated.
        """
        with _Reading(self.path) as group:
            stored = group["obs"]
            if "encoding-type" in getattr(stored, "attrs", {}):
                names = [key for key in stored.attrs.get("column-order", ()) if key in columns]
                read = {key: ad.io.read_elem(stored[key]) for key in names}
                table = pd.DataFrame(read, index=_read_index(stored))
                every = pd.DataFrame(columns=list(stored.attrs.get("column-order", ())))
            else:
                table = every = ad.io.read_elem(stored)  # of an old version of anndata
        for key, argument in columns.items():
            try:
                find_column(table if key in table else every, key, argument)
            except KeyError as error:
                raise KeyError(f"{self.path}: {error.args[0]}") from None
        if not table.index.is_unique:
            twice = table.index[table.index.duplicated()].unique()
            raise ValueError(f"{self.path}: names of cells are duplicated: {list_names(twice)}.")
        return table[list(columns)]

    def read(self, cells: NDArray[np.intp], alignment: GeneAlignment) -> sparse.csr_matrix:
        """Read raw counts of some cells.

        Parameters
        ----------
        cells
            Positions in increasing order, ``(n_cells,)``.
        alignment
            Alignment of genes with those of the corpus.

        Returns
        -------
        CSR, float32, ``(n_cells, n_genes)``.

        Raises
        ------
        NotCountsError
            If a value is not a raw count.
        """
        with _Reading(self.path, opens=False):
            block = take_rows(row_readable(self.matrix, "X"), cells)
        found = diagnose(block)
        if found is not None:
            with _Reading(self.path) as group:
                names = _read_index(group["obs"])[cells]
                genes = _read_index(group["var"])
                layers = sorted(group["layers"]) if "layers" in group else []
            place = "X" if _is_x(self.layer) else f"layers[{self.layer!r}]"
            cures = Cures.of(self.matrix, f"adata.{place}", is_backed=True)
            hint = f"name a layer, `layer=`; the file has {layers}" if layers else ""
            raise NotCountsError(
                f"{self.path}: {found.describe(names, genes, place, cures, hint)}"
            )
        return alignment.apply(as_float32(block))


class _Reading:
    """Context that opens a file, and names it in errors."""

    def __init__(self, path: Path, opens: bool = True):
        self.path, self.opens = path, opens
        self.group: Any = None

    def __enter__(self) -> Any:
        if self.opens:
            try:
                self.group = _open_group(self.path)
            except (OSError, RuntimeError, ValueError) as error:
                self._explain(error)
            if "obs" not in self.group or "var" not in self.group:
                raise ValueError(f"{self.path} is no AnnData: it lacks `obs` or `var`.")
        return self.group

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if isinstance(self.group, h5py.File):
            self.group.close()
        # h5py and zarr raise the first two for damaged files and blocks.
        if isinstance(error, OSError | RuntimeError | BrokenMatrixError):
            self._explain(error)

    def _explain(self, error: Exception) -> None:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise error
        raise ValueError(
            f"{self.path} cannot be read as an AnnData, it may be damaged: {error}"
        ) from error


def _open_group(path: Path) -> Any:
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.is_dir():
        import zarr

        return zarr.open_group(path, mode="r")
    return h5py.File(path, "r")


def _open_matrix(path: Path, layer: str | None) -> tuple[Any, Any]:
    """Open a file and its counts."""
    name = "X" if _is_x(layer) else f"layers/{layer}"
    try:
        group = _open_group(path)
    except (OSError, RuntimeError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise ValueError(f"{path} cannot be read, it may be damaged: {error}") from error
    if name not in group:
        layers = sorted(group["layers"]) if "layers" in group else []
        raise ValueError(
            f"{path} has no {name!r}; its layers are {layers}. Name the one with raw counts, "
            "`layer=`."
        )
    stored = group[name]
    encoding = str(stored.attrs.get("encoding-type", ""))
    if encoding == "csc_matrix":
        raise ValueError(
            f"{path} holds `{name}` by columns (CSC), so that cells cannot be read one by one. Write "
            "it by rows: `adata.X = adata.X.tocsr(); adata.write_h5ad(path)`."
        )
    return group, ad.io.sparse_dataset(stored) if encoding == "csr_matrix" else stored


def _is_x(layer: str | None) -> bool:
    return layer is None or layer == X_LAYER


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
        If files have no gene in common, one has none of the names, or there are too few genes.

    Warns
    -----
    UserWarning
        If a file has few of the genes.
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
    else:
        chosen = strip_versions(pd.Index(list(genes), dtype=object))
        if chosen.has_duplicates:
            twice = chosen[chosen.duplicated()]
            raise ValueError(f"genes= lists {list_names(twice)} more than once.")
    few = {}
    for names, path in zip(genes_of, paths, strict=True):
        n_found = int(names.isin(chosen).sum())
        if not n_found:
            raise ValueError(
                f"{path} has none of the {len(chosen):,} genes: its genes look like "
                f"{list_names(names)}, those wanted like {list_names(chosen)}."
            )
        if n_found < WARN_GENE_OVERLAP * len(chosen):
            few[path.name] = n_found
    if few:
        warn(
            f"Some files have few of the {len(chosen):,} genes, {few}; the others count as 0 in "
            "their cells."
        )
    return check_genes(chosen)
