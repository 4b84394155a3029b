"""Sparse rows stand for the dense ones."""

import pickle
from copy import deepcopy
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from scipy import sparse
from torch.utils.data import default_collate

from scvi_sctab import nn
from scvi_sctab.sparse import CSR, concatenate_rows, to_scipy


@pytest.fixture
def dense():
    """An empty row, a full one, an empty column."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(9, 30, generator=generator) * (torch.rand(9, 30, generator=generator) < 0.3)
    x[2], x[5], x[:, 4] = 0, 1.5, 0
    return x


def assert_is_csr_of(x, dense):
    expected = CSR.from_dense(dense)
    assert x.n_columns == expected.n_columns
    for name in ("indptr", "columns", "values"):
        part, of_dense = getattr(x, name), getattr(expected, name)
        assert part.dtype == of_dense.dtype
        assert torch.equal(part, of_dense)


def test_shape_length_type_and_device_are_those_of_the_dense_rows(dense):
    x = CSR.from_dense(dense)
    assert x.shape == dense.shape
    assert len(x) == len(dense)
    assert x.dtype == dense.dtype
    assert x.device == dense.device
    assert torch.equal(x.to_dense(), dense)


def test_conversions_there_and_back_change_nothing(dense):
    x = CSR.from_dense(dense)
    assert_is_csr_of(CSR.from_torch(x.to_torch()), dense)
    assert_is_csr_of(CSR.from_scipy(x.to_scipy()), dense)
    assert_is_csr_of(CSR.from_scipy(sparse.csr_matrix(dense.numpy())), dense)
    for rows in (x, dense):
        np.testing.assert_array_equal(to_scipy(rows).toarray(), dense)


@pytest.mark.parametrize("rows", [[], [3], [2, 5, 5, 0], [8, 7, 6, 5, 4, 3, 2, 1, 0]])
def test_rows_are_selected_in_any_order(dense, rows):
    rows = torch.tensor(rows, dtype=torch.int64)
    assert_is_csr_of(CSR.from_dense(dense).take_rows(rows), dense[rows])


@pytest.mark.parametrize("columns", [[], [4], [29, 0, 7], list(range(30))[::-1]])
def test_columns_are_selected_in_any_order(dense, columns):
    columns = torch.tensor(columns, dtype=torch.int64)
    assert_is_csr_of(CSR.from_dense(dense).take_columns(columns), dense[:, columns])


def test_a_column_is_selected_once_only(dense):
    with pytest.raises(ValueError, match="A column is selected more than once"):
        CSR.from_dense(dense).take_columns(torch.tensor([3, 1, 3]))


def test_values_are_kept_by_a_mask(dense):
    x = CSR.from_dense(dense)
    assert_is_csr_of(x.keep(x.values > 0.5), dense * (dense > 0.5))


def test_rows_are_put_below_each_other(dense):
    parts = [CSR.from_dense(dense[:4]), CSR.from_dense(dense[4:5]), CSR.from_dense(dense[5:])]
    assert_is_csr_of(concatenate_rows(parts), dense)


def test_a_gradient_passes_selections(dense):
    values = CSR.from_dense(dense).values.clone().requires_grad_()
    x = CSR.from_dense(dense).with_values(values)
    rows, columns = torch.tensor([5, 0]), torch.tensor([7, 3, 0])
    x.take_rows(rows).take_columns(columns).to_dense().square().sum().backward()
    expected = torch.zeros_like(dense)
    expected[rows[:, None], columns] = 2 * dense[rows[:, None], columns]
    torch.testing.assert_close(x.with_values(values.grad).to_dense(), expected)


def test_rows_cannot_be_changed_nor_given_other_attributes(dense):
    x = CSR.from_dense(dense)
    with pytest.raises(FrozenInstanceError, match="n_columns"):
        x.n_columns = 3
    assert not hasattr(x, "__dict__")


@pytest.mark.parametrize("copy", [deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_are_rows_of_their_own(dense, copy):
    x = CSR.from_dense(dense)
    copied = copy(x)
    x.values.zero_()
    assert_is_csr_of(copied, dense)


def test_rows_are_no_tuple_that_a_loader_would_take_apart(dense):
    with pytest.raises(TypeError, match="found <class 'scvi_sctab.sparse._csr.CSR'>"):
        default_collate([CSR.from_dense(dense)])


def test_rows_and_threads_have_the_public_names_of_old():
    assert nn.CSR is CSR
    assert {"CSR", "over_parts", "sleeping_threads"} <= {*nn.__all__}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
def test_dense_rows_become_those_of_scipy(dense, dtype):
    rows = (dense * 7).to(dtype)
    expected = sparse.csr_matrix(rows.numpy())
    # As on a GPU, and as on other devices.
    for found in (CSR.from_dense(rows).to_scipy(), to_scipy(rows)):
        assert found.dtype == expected.dtype
        for name in ("indptr", "indices", "data"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_dense_rows_with_a_gradient_and_nan_are_converted(dense):
    dense[0, 3] = torch.nan
    found = to_scipy(dense.requires_grad_())
    assert np.isnan(found[0, 3])
    assert found.nnz == int((dense != 0).sum())
