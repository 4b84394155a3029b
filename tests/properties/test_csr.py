"""Sparse rows do what the dense ones do."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from scvi_sctab.sparse import CSR, concatenate_rows

VALUES = st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.5, -3.0])


def matrices(max_rows=6, max_columns=7, min_columns=1):
    shapes = st.tuples(st.integers(0, max_rows), st.integers(min_columns, max_columns))
    return shapes.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=VALUES))


@given(matrices())
def test_all_forms_hold_the_same(dense):
    rows = CSR.from_scipy(sparse.csr_matrix(dense))
    assert rows.shape == dense.shape
    for form in (
        rows.to_dense().numpy(),
        rows.to_scipy().toarray(),
        rows.to_torch().to_dense().numpy(),
        CSR.from_dense(torch.from_numpy(dense)).to_dense().numpy(),
        CSR.from_torch(torch.from_numpy(dense).to_sparse_csr()).to_dense().numpy(),
    ):
        np.testing.assert_array_equal(form, dense)


@given(matrices().filter(len), st.data())
def test_rows_and_columns_are_taken_in_any_order(dense, data):
    rows = CSR.from_dense(torch.from_numpy(dense))
    n_rows, n_columns = dense.shape
    chosen = data.draw(st.lists(st.integers(0, n_rows - 1), max_size=8))
    columns = data.draw(st.lists(st.integers(0, n_columns - 1), unique=True, min_size=1))
    taken = rows.take_rows(torch.tensor(chosen, dtype=torch.long))
    np.testing.assert_array_equal(taken.to_dense().numpy(), dense[chosen])
    moved = taken.take_columns(torch.tensor(columns))
    np.testing.assert_array_equal(moved.to_dense().numpy(), dense[chosen][:, columns])
    # Columns increase within each row, as the kernels assume.
    same_row = moved.rows().diff() == 0
    assert bool((moved.columns.diff()[same_row] > 0).all())


@given(matrices(), st.data())
def test_values_are_kept_by_a_mask(dense, data):
    rows = CSR.from_dense(torch.from_numpy(dense))
    n_values = len(rows.values)
    mask = data.draw(hnp.arrays(bool, n_values))
    expected = dense.copy()
    expected[dense != 0] = np.where(mask, dense[dense != 0], 0)
    np.testing.assert_array_equal(rows.keep(torch.from_numpy(mask)).to_dense().numpy(), expected)


@given(st.integers(1, 5).flatmap(lambda n: st.lists(matrices(4, n, n), min_size=1, max_size=4)))
def test_parts_are_joined_row_by_row(parts):
    joined = concatenate_rows([CSR.from_dense(torch.from_numpy(part)) for part in parts])
    np.testing.assert_array_equal(joined.to_dense().numpy(), np.concatenate(parts))


@given(matrices(), st.data())
def test_rows_are_scaled(dense, data):
    factors = data.draw(hnp.arrays(np.float32, len(dense), elements=VALUES))
    scaled = CSR.from_dense(torch.from_numpy(dense)).scale_rows(torch.from_numpy(factors))
    np.testing.assert_array_equal(scaled.to_dense().numpy(), dense * factors[:, None])
