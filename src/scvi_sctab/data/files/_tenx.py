"""Counts as Cell Ranger and its peers write them: HDF5 files and matrix-market folders."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.io import mmread

from scvi_sctab.data.files._refusal import RefusedInputError
from scvi_sctab.data.files._stored import StoredCells, StoredMatrix
from scvi_sctab.sparse import BrokenMatrixError, check_sparse

_BLOCK = 2**24
GENE_EXPRESSION = "Gene Expression"
_SYMBOLS, _IDS, _TYPES = "gene_symbols", "gene_ids", "feature_types"


def is_matrix_folder(path: Path) -> bool:
    """Return whether a folder holds a matrix-market file with its names."""
    return _find(path, "matrix.mtx") is not None


def read_matrix_folder(path: Path) -> StoredCells:
    """Read a folder with ``matrix.mtx``, ``barcodes.tsv`` and ``features.tsv`` or ``genes.tsv``.

    Parameters
    ----------
    path
        The folder; files may be compressed by gzip.

    Raises
    ------
    RefusedInputError
        If a file is missing, or names do not fit the matrix.
    """
    files = {name: _find(path, name) for name in ("matrix.mtx", "barcodes.tsv")}
    files["features.tsv"] = _find(path, "features.tsv") or _find(path, "genes.tsv")
    missing = [name for name, file in files.items() if file is None]
    if missing:
        raise RefusedInputError(
            f"{path} lacks {missing[0]} or {missing[0]}.gz.",
            "A matrix-market folder has matrix.mtx, barcodes.tsv and features.tsv (or genes.tsv).",
        )
    features, barcodes = (
        pd.read_csv(files[name], sep="\t", header=None, dtype=str, keep_default_na=False)
        for name in ("features.tsv", "barcodes.tsv")
    )
    _refuse_zeros(files["matrix.mtx"])
    with warnings.catch_warnings():
        # Of the type that scipy will return: either is converted here.
        warnings.simplefilter("ignore", DeprecationWarning)
        counts = sparse.csr_matrix(mmread(files["matrix.mtx"]).T)
    var = pd.DataFrame({_IDS: features[0].to_numpy()})
    var[_SYMBOLS] = features[min(1, features.shape[1] - 1)].to_numpy()
    if features.shape[1] > 2:
        var[_TYPES] = features[2].to_numpy()
    return _gather(path, "matrix-market folder", counts, barcodes[0].to_numpy(), var)


def _refuse_zeros(path: Path | None) -> None:
    """Refuse text with zero bytes: behind a number they end scipy's reader by a segmentation fault."""
    assert path is not None
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        while block := file.read(_BLOCK):
            if b"\0" in block:
                raise ValueError(f"{path.name} is a text, and has zero bytes")


def _find(folder: Path, name: str) -> Path | None:
    found = [file for file in (folder / name, folder / f"{name}.gz") if file.is_file()]
    return found[0] if found else None


def is_tenx(file: Any) -> bool:
    """Return whether an open HDF5 file is one of Cell Ranger."""
    return "matrix" in file or any(_is_genome(file[name]) for name in file)


def read_tenx(file: Any, path: Path) -> StoredCells:
    """Read an HDF5 file of Cell Ranger, of version 3 or 2.

    Parameters
    ----------
    file
        The open file.
    path
        Its path.

    Raises
    ------
    RefusedInputError
        If it has several genomes, or names do not fit the matrix.
    """
    if "matrix" in file:
        group, features = file["matrix"], file["matrix"]["features"]
        var = pd.DataFrame({_IDS: _texts(features["id"]), _SYMBOLS: _texts(features["name"])})
        if "feature_type" in features:
            var[_TYPES] = _texts(features["feature_type"])
    else:
        genomes = [name for name in file if _is_genome(file[name])]
        if len(genomes) > 1:
            raise RefusedInputError(
                f"{path} has counts of several genomes, {genomes}, each in a matrix of its own.",
                "Write the one to be annotated to a file of its own.",
            )
        group = file[genomes[0]]
        var = pd.DataFrame({_IDS: _texts(group["genes"]), _SYMBOLS: _texts(group["gene_names"])})
    n_genes, n_cells = group["shape"][()]
    # Genes by cells, by columns, is cells by genes, by rows.
    parts = (group["data"][()], group["indices"][()], group["indptr"][()])
    if parts[2][-1] != len(parts[0]):
        raise BrokenMatrixError(
            f"its pointers end at {parts[2][-1]:,} of {len(parts[0]):,} values"
        )
    counts = sparse.csr_matrix(parts, shape=(n_cells, n_genes))
    check_sparse(counts)
    return _gather(path, "10x HDF5 file", counts, _texts(group["barcodes"]), var)


def _is_genome(group: Any) -> bool:
    return hasattr(group, "keys") and {"barcodes", "gene_names", "indptr"} <= set(group.keys())


def _texts(stored: Any) -> Any:
    return np.array([text.decode() for text in stored[()]], dtype=object)


def _gather(
    path: Path, kind: str, counts: sparse.csr_matrix, barcodes: Any, var: pd.DataFrame
) -> StoredCells:
    """Join counts and names, symbols first; leave out antibodies and other features."""
    if counts.shape != (len(barcodes), len(var)):
        raise RefusedInputError(
            f"{path}: the matrix has {counts.shape[1]:,} genes and {counts.shape[0]:,} cells, but "
            f"there are {len(var):,} names of genes and {len(barcodes):,} of cells.",
            "Copy the files again; they have to come from one run.",
        )
    if _TYPES in var:
        genes = (var[_TYPES] == GENE_EXPRESSION).to_numpy()
        counts, var = counts[:, np.flatnonzero(genes)], var.loc[genes]
    var = var.set_index(_SYMBOLS)
    var.index.name = None
    obs = pd.DataFrame(index=pd.Index(barcodes, dtype=object))
    return StoredCells(path, kind, obs, {"X": StoredMatrix(counts, var)})
