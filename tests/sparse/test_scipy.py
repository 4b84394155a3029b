"""Sparse rows are the same as the dense rows they stand for, and nobody else's are written to."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from scvi_sctab.data import align_genes
from scvi_sctab.sparse import dense_to_scipy, in_order, slice_rows, to_tensor

N_GENES = 150  # more than two words of 64 bits
DTYPES = [np.float32, np.float64, np.int8, np.int32, np.int64, np.uint16, bool]


def dense_counts(n_cells=70, dtype=np.float32, seed=0):
    """Some rows empty, one full, every row otherwise a fifth full."""
    rng = np.random.default_rng(seed)
    x = rng.integers(1, 60, (n_cells, N_GENES)) * (rng.random((n_cells, N_GENES)) < 0.2)
    x[[0, 3, n_cells - 1]] = 0
    x[5] = np.arange(1, N_GENES + 1) % 100 + 1
    return x.astype(dtype)


def scrambled(dense, index_type=np.int32, seed=0):
    """CSR of a dense matrix with unsorted columns and with values split in two entries."""
    rng = np.random.default_rng(seed)
    rows, columns = np.nonzero(dense)
    values = dense[rows, columns]
    split = (values > 1) & (rng.random(len(values)) < 0.5) & (dense.dtype != bool)
    values = np.concatenate([np.where(split, values - 1, values), np.ones(split.sum())])
    rows, columns = (np.concatenate([part, part[split]]) for part in (rows, columns))
    order = np.lexsort((rng.random(len(rows)), rows))
    matrix = sparse.csr_matrix(dense.shape, dtype=dense.dtype)
    matrix.data = values[order].astype(dense.dtype)
    matrix.indices = columns[order].astype(index_type)
    matrix.indptr = np.searchsorted(rows[order], np.arange(len(dense) + 1)).astype(index_type)
    assert split.any() == (dense.dtype != bool)
    return matrix


def assert_is_csr_of(block, dense):
    """Against scipy's own CSR of the dense rows."""
    expected = sparse.csr_matrix(dense)
    assert block.shape == dense.shape
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(block, part), getattr(expected, part))
    assert block.data.dtype == dense.dtype
    assert block.indices.dtype == block.indptr.dtype == np.int32


def query_var(order):
    return pd.DataFrame(index=[f"g{i}" for i in order])


MODEL_GENES = query_var(range(N_GENES)).index


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index_type", [np.int32, np.int64])
def test_scrambled_entries_of_permuted_genes_give_the_reordered_dense_rows(dtype, index_type):
    dense = dense_counts(dtype=dtype)
    order = np.random.default_rng(1).permutation(N_GENES)
    alignment = align_genes(MODEL_GENES, query_var(order))
    assert_is_csr_of(alignment.apply(scrambled(dense[:, order], index_type)), dense)


@pytest.mark.parametrize("index_type", [np.int32, np.int64])
def test_genes_that_one_side_lacks_give_zeros_or_nothing(index_type):
    dense = dense_counts()
    shared = np.random.default_rng(1).permutation(np.arange(0, N_GENES, 2))
    foreign = np.full((len(dense), 40), 7, np.float32)
    names = [*query_var(shared).index, *(f"other{i}" for i in range(40))]
    places = np.random.default_rng(2).permutation(len(names))
    query = np.hstack([dense[:, shared], foreign])[:, places]
    with pytest.warns(UserWarning, match="only 75 of the model's 150"):
        alignment = align_genes(MODEL_GENES, pd.DataFrame(index=np.array(names)[places]))
    expected = dense.copy()
    expected[:, 1::2] = 0
    assert_is_csr_of(alignment.apply(scrambled(query, index_type)), expected)


@pytest.mark.parametrize("index_type", [np.int32, np.int64])
def test_scrambled_entries_of_the_models_genes_are_put_in_order(index_type):
    dense = dense_counts()
    alignment = align_genes(MODEL_GENES, query_var(range(N_GENES)))
    assert_is_csr_of(alignment.apply(scrambled(dense, index_type)), dense)


def test_a_block_in_order_is_not_copied():
    block = sparse.csr_matrix(dense_counts())
    alignment = align_genes(MODEL_GENES, query_var(range(N_GENES)))
    assert alignment.apply(block) is block
    assert in_order(block) is block


@pytest.mark.parametrize("row", [0, 41, 69])
def test_one_pair_out_of_order_is_noticed_in_any_row(row):
    dense = dense_counts()
    dense[row, [3, 140]] = 5, 6
    block = sparse.csr_matrix(dense)
    first = block.indptr[row]
    for part in (block.indices, block.data):
        part[[first, first + 1]] = part[[first + 1, first]]
    assert_is_csr_of(in_order(block), dense)


def test_neighbouring_entries_of_one_column_are_summed():
    dense = dense_counts()
    block = sparse.csr_matrix(dense)
    twice = sparse.csr_matrix(
        (np.repeat(block.data, 2), np.repeat(block.indices, 2), 2 * block.indptr), block.shape
    )
    assert_is_csr_of(in_order(twice), 2 * dense)


@pytest.mark.parametrize("permuted", [False, True])
def test_the_block_that_is_aligned_stays_as_it_was(permuted):
    block = scrambled(dense_counts())
    before = block.data.copy(), block.indices.copy(), block.indptr.copy()
    order = np.arange(N_GENES)[:: -1 if permuted else 1]
    align_genes(MODEL_GENES, query_var(order)).apply(block)
    for array, old in zip((block.data, block.indices, block.indptr), before, strict=True):
        np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("permuted", [False, True])
def test_blocks_without_cells_or_without_counts_are_aligned(permuted):
    order = np.arange(N_GENES)[:: -1 if permuted else 1]
    alignment = align_genes(MODEL_GENES, query_var(order))
    for n_cells in (0, 1, 40):
        dense = np.zeros((n_cells, N_GENES), np.float32)
        assert_is_csr_of(alignment.apply(sparse.csr_matrix(dense)), dense)
        assert_is_csr_of(dense_to_scipy(dense), dense)


@pytest.mark.parametrize(("place", "column"), [(0, -1), (7, 2**20), (-1, N_GENES)])
def test_columns_that_do_not_exist_are_refused_rather_than_read(place, column):
    block = sparse.csr_matrix(dense_counts())
    block.indices[place] = column
    for order in (np.arange(N_GENES), np.arange(N_GENES)[::-1]):
        with pytest.raises(ValueError, match="broken: 1 of its column indices .* 150 columns"):
            align_genes(MODEL_GENES, query_var(order)).apply(block)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dense_rows_keep_what_is_not_zero(dtype):
    dense = dense_counts(dtype=dtype)
    assert_is_csr_of(dense_to_scipy(dense), dense)
    assert_is_csr_of(dense_to_scipy(np.asfortranarray(dense)[::2]), dense[::2])


def test_dense_rows_keep_nan_so_that_it_can_be_refused():
    dense = dense_counts()
    dense[2, 2] = np.nan
    assert np.isnan(dense_to_scipy(dense).data).sum() == 1


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csr_array])
@pytest.mark.parametrize(("start", "stop"), [(0, 70), (4, 9), (69, 70), (3, 3), (0, 1)])
def test_a_slice_of_rows_is_the_same_without_a_copy(form, start, stop):
    dense = dense_counts()
    matrix = form(dense)
    part = slice_rows(matrix, start, stop)
    assert_is_csr_of(part, dense[start:stop])
    assert not part.nnz or np.shares_memory(part.data, matrix.data)
    assert not part.nnz or np.shares_memory(part.indices, matrix.indices)


def test_a_tensor_on_the_cpu_shares_the_memory_of_its_block():
    dense = dense_counts()
    block = sparse.csr_matrix(dense)
    tensor = to_tensor(block)
    assert tensor.layout is torch.sparse_csr
    assert tensor.col_indices().dtype == tensor.crow_indices().dtype == torch.int32
    assert tensor.values().data_ptr() == block.data.ctypes.data
    np.testing.assert_array_equal(tensor.to_dense(), dense)


def test_arrays_that_cannot_be_written_to_make_tensors():
    dense = dense_counts()
    block = sparse.csr_matrix(dense)
    for array in (block.data, block.indices, block.indptr):
        array.flags.writeable = False
    np.testing.assert_array_equal(to_tensor(block).to_dense(), dense)


@pytest.mark.slow(reason="imports the package anew")
def test_the_first_tensor_of_a_process_warns_of_nothing():
    code = (
        "from scipy import sparse\n"
        "from scvi_sctab.data import to_tensor\n"
        "import warnings\n"
        "warnings.simplefilter('error')\n"
        "assert to_tensor(sparse.eye(3, format='csr', dtype='float32')).sum() == 3\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
