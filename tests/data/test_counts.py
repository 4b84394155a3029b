"""What is not counts is named: what it looks like, where, and the cure."""

import numpy as np
import pytest
from scipy import sparse

from scvi_sctab.data import NotCountsError, check_counts, read_counts

CELLS = ["c0", "c1", "c2"]
GENES = ["g0", "g1"]


def counts():
    return np.array([[0.0, 3.0], [5.0, 0.0], [1.0, 900.0]])


def as_dense(x):
    return x


FORMS = [as_dense, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint16])
def test_counts_of_every_form_and_dtype_pass(form, dtype):
    check_counts(form(counts().astype(dtype)), CELLS, GENES)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, r"`X` holds NaN .*cell 'c1', gene 'g1'.*Set them to 0"),
        (np.inf, r"`X` holds infinite values.*inf in cell 'c1', gene 'g1'"),
        (-1.5, r"`X` looks scaled.*-1.5 in cell 'c1', gene 'g1'.*`layer=`"),
        (0.5, r"`X` looks normalised.*0.5 in cell 'c1', gene 'g1'"),
    ],
)
def test_the_offending_value_is_named_with_its_cell_and_gene(form, value, message):
    bad = counts()
    bad[1, 1] = value
    with pytest.raises(NotCountsError, match=message):
        check_counts(form(bad), CELLS, GENES)


def test_log_normalised_values_are_told_from_normalised_ones():
    x = np.log1p(counts() / counts().sum(axis=1, keepdims=True) * 1e4)
    with pytest.raises(NotCountsError, match=r"`layers\['a'\]` looks log-normalised"):
        check_counts(x, CELLS, GENES, source="layers['a']")


def test_negative_integers_are_refused():
    bad = counts().astype(int)
    bad[2, 0] = -4
    with pytest.raises(NotCountsError, match="-4 in cell 'c2', gene 'g0'"):
        check_counts(bad, CELLS, GENES)


def test_the_layer_that_holds_counts_is_suggested(reference):
    reference.layers["raw_counts"] = reference.X.copy()
    reference.X = reference.X.log1p()
    with pytest.raises(
        NotCountsError,
        match="`adata.layers\\['raw_counts'\\]` holds counts; set up with `layer='raw_counts'`",
    ):
        list(read_counts(reference))


def test_raw_is_suggested_where_it_holds_counts(reference):
    reference.raw = reference.copy()
    reference.X = reference.X.log1p()
    with pytest.raises(
        NotCountsError, match=r"`adata.raw.X` holds counts; pass `adata.raw.to_adata\(\)`"
    ):
        list(read_counts(reference))


def test_a_layer_that_does_not_exist_is_named_with_those_that_do(reference):
    reference.layers["counts"] = reference.X
    with pytest.raises(KeyError, match=r"no layer 'count'; `adata.layers` has \['counts'\]"):
        list(read_counts(reference, layer="count"))


def test_bad_values_beyond_the_first_block_are_found(reference):
    x = reference.X.copy()
    x.data[-1] = 0.5
    reference.X = x
    with pytest.raises(NotCountsError, match=reference.obs_names[-1]):
        list(read_counts(reference, block_size=100))


@pytest.mark.parametrize(
    "dtype", [np.float16, np.longdouble, object, np.int8, np.uint32, np.float64]
)
def test_counts_of_any_number_type_are_read_as_float32(reference, dtype):
    expected = reference.X.toarray()
    expected[expected > 100] = 100
    reference.X = expected.astype(dtype)
    blocks = list(read_counts(reference, block_size=500))
    assert all(block.dtype == np.float32 for block in blocks)
    np.testing.assert_array_equal(sparse.vstack(blocks).toarray(), expected)


@pytest.mark.parametrize("value", [0.5, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("place", [0, 1, 65_537, 131_072, 199_998, 199_999])
def test_a_single_bad_value_is_found_anywhere_in_a_big_block(value, dtype, place):
    values = np.random.default_rng(0).integers(0, 2**24, 200_000).astype(dtype)
    values[place] = value
    row, column = divmod(place, 400)
    with pytest.raises(NotCountsError, match=f"in cell 'c{row}', gene 'g{column}'"):
        check_counts(
            values.reshape(500, 400), [f"c{i}" for i in range(500)], [f"g{i}" for i in range(400)]
        )


def test_fractions_that_only_double_precision_sees_are_found():
    bad = counts()
    bad[1, 0] = 5 + 1e-12
    with pytest.raises(NotCountsError, match="looks .*normalised"):
        check_counts(bad, CELLS, GENES)


def test_counts_of_a_foreign_byte_order_are_read(reference):
    expected = reference.X.toarray()
    reference.X = expected.astype(">f8")
    np.testing.assert_array_equal(next(read_counts(reference)).toarray(), expected)


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_blocks_of_chosen_cells_are_their_rows_in_order(reference, form):
    expected = reference.X.toarray()
    reference.X = form(expected)
    cells = np.random.default_rng(0).permutation(reference.n_obs)[:300]
    blocks = list(read_counts(reference, indices=cells, block_size=100))
    np.testing.assert_array_equal(sparse.vstack(blocks).toarray(), expected[cells])
    assert all(sparse.csr_matrix(block).has_canonical_format for block in blocks)
