"""Sparse matrices whose arrays contradict each other, as of damaged files, are refused, not followed."""

import gzip
import pickle

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from scvi_sctab.data import read_counts
from scvi_sctab.data._reader import take_rows, where_counts_are
from scvi_sctab.data.files import RefusedInputError, open_stored
from scvi_sctab.sparse import BrokenMatrixError, check_sparse

FAR = 2**30


def far_row(indptr, indices, data):
    indptr[3] = FAR


def row_before_the_first(indptr, indices, data):
    indptr[3] = -FAR


def row_that_ends_before_it_starts(indptr, indices, data):
    indptr[3] = indptr[2] - 1


def too_many_values(indptr, indices, data):
    indptr[-1] += 5


def far_index(indptr, indices, data):
    indices[len(indices) // 2] = FAR


def negative_index(indptr, indices, data):
    indices[len(indices) // 2] = -1


BROKEN = [far_row, row_before_the_first, row_that_ends_before_it_starts, too_many_values]
BROKEN += [far_index, negative_index]
ON_DISK = [*BROKEN, lambda indptr, indices, data: indptr.__setitem__(0, 2)]
ON_DISK += [lambda indptr, indices, data: indptr.__setitem__(-1, indptr[-1] - 1)]
NAMES = [getattr(f, "__name__", "") for f in BROKEN]


@pytest.fixture
def cells():
    counts = np.random.default_rng(0).poisson(1.0, (40, 15)).astype("float32")
    obs = pd.DataFrame(index=[f"c{i}" for i in range(40)])
    names = pd.DataFrame(index=[f"GENE{i}" for i in range(15)])
    return AnnData(sparse.csr_matrix(counts), obs, names)


def read_all(adata, rows=None):
    return list(read_counts(adata, indices=rows, block_size=16))


@pytest.mark.parametrize("form", ["csr", "csc"])
@pytest.mark.parametrize(
    "rows", [None, np.array([39, 2, 3, 1, *range(10, 30)])], ids=["all", "some"]
)
@pytest.mark.parametrize("damage", BROKEN, ids=NAMES)
def test_in_memory(damage, rows, form, cells):
    cells.X = cells.X.asformat(form)
    whole = read_all(cells, rows)
    assert sum(block.shape[0] for block in whole) == (40 if rows is None else len(rows))
    damage(cells.X.indptr, cells.X.indices, cells.X.data)
    with pytest.raises(BrokenMatrixError, match="The matrix is broken: .*Write it anew"):
        read_all(cells, rows if damage is not too_many_values else None)


def damage_file(path, name, damage):
    with h5py.File(path, "r+") as file:
        arrays = [file[name][key][()] for key in ("indptr", "indices", "data")]
        damage(*arrays)
        for key, array in zip(("indptr", "indices", "data"), arrays, strict=True):
            file[name][key][...] = array


@pytest.mark.filterwarnings("ignore:`X` lies on disk by columns")
@pytest.mark.parametrize("form", ["csr", "csc"])
@pytest.mark.parametrize("damage", ON_DISK, ids=[*NAMES, "values before", "values after"])
def test_on_disk(damage, form, cells, tmp_path):
    path = tmp_path / "cells.h5ad"
    cells.X = cells.X.asformat(form)
    cells.write_h5ad(path)
    damage_file(path, "X", damage)
    backed = anndata.read_h5ad(path, backed="r")
    with pytest.raises(BrokenMatrixError, match="The matrix is broken"):
        read_all(backed)
    if form == "csr" and damage in (far_row, row_before_the_first):
        with pytest.raises(BrokenMatrixError, match="The matrix is broken"):
            take_rows(backed.X, np.array([2, 3, 30]))
    with pytest.raises(RefusedInputError, match=r"cells\.h5ad cannot be read, it is damaged"), open_stored(path) as stored:  # fmt: skip
        read_all(AnnData(stored.matrices["X"].values, stored.obs))


@pytest.mark.parametrize("damage", ON_DISK, ids=[*NAMES, "values before", "values after"])
def test_of_cell_ranger(damage, cells, tmp_path):
    path = tmp_path / "cells.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(cells.X, name)
        group["shape"] = cells.shape[::-1]
        group["barcodes"] = np.array(list(cells.obs_names), dtype="S")
        for name in ("id", "name"):
            group[f"features/{name}"] = np.array(list(cells.var_names), dtype="S")
        group["features/feature_type"] = np.array(["Gene Expression"] * 15, dtype="S")
    with open_stored(path) as stored:
        assert (stored.matrices["X"].values != cells.X).nnz == 0
    damage_file(path, "matrix", damage)
    with pytest.raises(RefusedInputError, match=r"cells\.h5 cannot be read, it is damaged"), open_stored(path):  # fmt: skip
        pass


@pytest.mark.parametrize("is_compressed", [False, True])
def test_zero_bytes_behind_a_number_of_a_matrix_market_file(is_compressed, tmp_path):
    """The reader of scipy would search for the end of the line beyond its memory."""
    for name in ("features.tsv", "barcodes.tsv"):
        (tmp_path / name).write_text("a\nb\nc\n")
    text = b"%%MatrixMarket matrix coordinate integer general\n%\n3 3 3\n1 1 1\n2 2 2\n3 3 3\n"

    def write(content):
        file = tmp_path / ("matrix.mtx.gz" if is_compressed else "matrix.mtx")
        file.write_bytes(gzip.compress(content) if is_compressed else content)

    write(text)
    with open_stored(tmp_path) as stored:
        assert stored.matrices["X"].values.diagonal().tolist() == [1, 2, 3]
    write(text.replace(b"2 2 2\n", b"2 2 2\0"))
    with pytest.raises(RefusedInputError, match="matrix.mtx.* has zero bytes"), open_stored(tmp_path):  # fmt: skip
        pass


def test_room_for_more_values_is_no_damage(cells):
    counts = cells.X.copy()
    cells.X.indices, cells.X.data = (np.append(a, a[:5]) for a in (counts.indices, counts.data))
    check_sparse(cells.X)
    assert (sparse.vstack(read_all(cells)) != counts).nnz == 0


def test_a_broken_layer_is_not_where_counts_are():
    counts = sparse.csc_matrix(np.eye(6, dtype=np.float32))
    adata = AnnData(np.log1p(np.eye(6, dtype=np.float32)), layers={"counts": counts})
    assert "adata.layers['counts']" in where_counts_are(adata, None)
    adata.layers["counts"].indices[0] = 10**8
    assert where_counts_are(adata, None) == ""


def test_the_error_reads_the_same_from_another_process():
    error = BrokenMatrixError("2 of its indices are outside of 0 to 4")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
