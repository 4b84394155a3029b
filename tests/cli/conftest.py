"""A small saved model, a runner of commands, and writers of the same cells in each kind of file."""

import gzip
import json
from dataclasses import dataclass

import h5py
import numpy as np
import pandas as pd
import pytest
from mudata import MuData
from scipy import sparse
from scipy.io import mmwrite
from typer.testing import CliRunner

from scvi_sctab.cli import app


@pytest.fixture(scope="session")
def folder(_trained, tmp_path_factory):
    """Folder of a saved model."""
    path = tmp_path_factory.mktemp("saved") / "blood"
    _trained.save(path)
    return path


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def events(self):
        return [json.loads(line) for line in self.out.splitlines()]

    def named(self, name):
        return [event for event in self.events if event["event"] == name]


@pytest.fixture
def run():
    """Run a command in this process."""

    def invoke(*arguments, stdin=None, env=None):
        result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin, env=env)
        assert result.exception is None or isinstance(result.exception, SystemExit), (
            result.exc_info
        )
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return invoke


# ---------------------------------------------------------------- kinds of files


def _ids(adata):
    return [f"ENSG{i:011d}" for i in range(adata.n_vars)]


def h5ad(adata, folder):
    adata.write_h5ad(folder / "cells.h5ad")
    return folder / "cells.h5ad"


def dense(adata, folder):
    adata.X = adata.X.toarray()
    return h5ad(adata, folder)


def by_columns(adata, folder):
    adata.X = adata.X.tocsc()
    return h5ad(adata, folder)


def zarr(adata, folder):
    adata.write_zarr(folder / "cells.zarr")
    return folder / "cells.zarr"


def h5mu(adata, folder):
    proteins = adata[:, :3].copy()
    proteins.var_names = ["CD3", "CD4", "CD8"]
    MuData({"prot": proteins, "rna": adata}).write_h5mu(folder / "cells.h5mu")
    return folder / "cells.h5mu"


def _with_antibodies(adata):
    """Counts, ids, symbols and types of features, with two antibodies at the end."""
    counts = sparse.hstack([adata.X, sparse.csr_matrix(np.ones((adata.n_obs, 2)))]).tocsr()
    names = [*adata.var_names, "CD3_TotalSeq", "CD4_TotalSeq"]
    types = ["Gene Expression"] * adata.n_vars + ["Antibody Capture"] * 2
    return counts, [*_ids(adata), "CD3", "CD4"], names, types


def tenx(adata, folder):
    counts, ids, names, types = _with_antibodies(adata)
    with h5py.File(folder / "cells.h5", "w") as file:
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(counts, name)
        group["shape"] = counts.shape[::-1]
        group["barcodes"] = np.array(list(adata.obs_names), dtype="S")
        for name, texts in (("id", ids), ("name", names), ("feature_type", types)):
            group[f"features/{name}"] = np.array(texts, dtype="S")
    return folder / "cells.h5"


def tenx_of_version_2(adata, folder):
    with h5py.File(folder / "cells.h5", "w") as file:
        group = file.create_group("GRCh38")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(adata.X, name)
        group["shape"] = adata.shape[::-1]
        group["barcodes"] = np.array(list(adata.obs_names), dtype="S")
        group["genes"] = np.array(_ids(adata), dtype="S")
        group["gene_names"] = np.array(list(adata.var_names), dtype="S")
    return folder / "cells.h5"


def matrix_folder(adata, folder):
    counts, *features = _with_antibodies(adata)
    path = folder / "filtered"
    path.mkdir()
    mmwrite(path / "matrix.mtx", counts.T.astype(int))
    for name, columns in (("features.tsv", features), ("barcodes.tsv", [adata.obs_names])):
        with gzip.open(path / f"{name}.gz", "wt") as file:
            pd.DataFrame(dict(enumerate(columns))).to_csv(
                file, sep="\t", header=False, index=False
            )
    return path


def layer(adata, folder):
    adata.layers["counts"] = adata.X
    adata.X = adata.X.log1p()
    return h5ad(adata, folder)


def raw(adata, folder):
    adata.raw = adata.copy()
    adata = adata[:, ::2].copy()
    adata.X = adata.X.log1p()
    return h5ad(adata, folder)


def column_of_symbols(adata, folder):
    adata.var["feature_name"] = pd.Categorical(adata.var_names)
    adata.var["feature_type"] = "Gene Expression"
    adata.var_names = _ids(adata)
    return h5ad(adata, folder)


def genome_prefix(adata, folder):
    adata.var_names = [f"GRCh38_{name}" for name in adata.var_names]
    return h5ad(adata, folder)


def names_of_r(adata, folder):
    adata.var_names = [name.replace("-", ".") for name in adata.var_names]
    return h5ad(adata, folder)


def ids_and_symbols(adata, folder):
    pairs = zip(_ids(adata), adata.var_names, strict=True)
    adata.var_names = [f"{i}_{name}" for i, name in pairs]
    return h5ad(adata, folder)


def shuffled(adata, folder):
    order = np.random.default_rng(0).permutation(adata.n_vars)
    return h5ad(adata[:, order].copy(), folder)


_WRITERS = (
    h5ad,
    dense,
    by_columns,
    zarr,
    h5mu,
    tenx,
    tenx_of_version_2,
    matrix_folder,
    layer,
    raw,
    column_of_symbols,
    genome_prefix,
    names_of_r,
    ids_and_symbols,
    shuffled,
)


@pytest.fixture
def write():
    """Write cells to a folder in a kind of file: `write("zarr", cells, folder)`."""
    writers = {writer.__name__: writer for writer in _WRITERS}
    return lambda kind, adata, folder: writers[kind](adata, folder)


@pytest.fixture
def path(query, tmp_path):
    """An .h5ad file of the query."""
    return h5ad(query, tmp_path)
