"""Tests of the splitting, thinning and hiding of molecules."""

import numpy as np
import pytest
import scipy.sparse as sp

from scvi_sctab.metrics import molecular_split, simulate_dropout, thin_counts

FORMATS = [np.asarray, sp.csr_matrix, sp.csc_matrix, sp.csr_array]
IDS = ["dense", "csr", "csc", "array"]


def draw_counts(shape=(60, 40), mean=2.0, seed=0):
    return np.random.default_rng(seed).poisson(mean, shape)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_the_parts_of_a_split_sum_to_the_counts(fraction):
    counts = draw_counts()
    first, second = molecular_split(counts, fraction, seed=3)
    assert np.array_equal((first + second).toarray(), counts)
    assert min(first.data.min(), second.data.min()) > 0, "explicit zeros, or negative counts"


@pytest.mark.parametrize("store", FORMATS, ids=IDS)
def test_results_do_not_depend_on_how_counts_are_stored(store):
    counts = draw_counts()
    for function in (molecular_split, simulate_dropout):
        for ours, expected in zip(function(store(counts)), function(counts), strict=True):
            assert isinstance(ours, sp.csr_matrix)
            assert np.array_equal(ours.toarray(), expected.toarray())
    expected = thin_counts(counts, 0.3).toarray()
    assert np.array_equal(thin_counts(store(counts), 0.3).toarray(), expected)


def test_explicit_zeros_and_duplicates_do_not_change_the_draw():
    plain = sp.csr_matrix(np.array([[2, 0, 5]]))
    odd = sp.csr_matrix(([0, 5, 1, 1], [1, 2, 0, 0], [0, 4]), shape=(1, 3))
    for seed in range(20):
        ours, expected = (thin_counts(x, 0.5, seed=seed).toarray() for x in (odd, plain))
        assert np.array_equal(ours, expected)


def test_counts_that_were_given_are_not_changed():
    counts = sp.csr_matrix(draw_counts())
    before = counts.toarray()
    molecular_split(counts)
    simulate_dropout(counts)
    thin_counts(counts, 0.2)
    assert np.array_equal(counts.toarray(), before)


def test_the_dtype_of_counts_is_kept():
    counts = sp.csr_matrix(draw_counts().astype(np.float32))
    assert {part.dtype for part in molecular_split(counts)} == {np.dtype(np.float32)}


def test_the_first_part_of_a_split_is_binomial():
    counts = np.full((2000, 20), 8)
    first, _ = molecular_split(counts, 0.3)
    values = first.toarray()
    assert values.mean() == pytest.approx(8 * 0.3, rel=0.01)
    assert values.var(ddof=1) == pytest.approx(8 * 0.3 * 0.7, rel=0.03)


def test_halves_of_poisson_counts_are_independent_and_poisson():
    first, second = (part.toarray().ravel() for part in molecular_split(draw_counts((1000, 50))))
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(len(first))
    assert first.var(ddof=1) == pytest.approx(first.mean(), rel=0.05)


def test_another_seed_draws_another_split():
    counts = draw_counts()
    first, other = (molecular_split(counts, seed=seed)[0].toarray() for seed in (0, 1))
    assert not np.array_equal(first, other)


def test_thinning_has_the_expected_depth_in_each_cell():
    counts, share = np.full((3, 20_000), 5), np.array([0.0, 0.25, 1.0])
    thinned = np.asarray(thin_counts(counts, share).sum(axis=1)).ravel()
    assert thinned[0] == 0
    assert thinned[1] == pytest.approx(25_000, rel=0.03)
    assert thinned[2] == 100_000


def test_dropout_hides_the_share_of_nonzero_entries_exactly():
    counts = draw_counts()
    n_nonzero = np.count_nonzero(counts)
    for share in (0.0, 0.4, 1.0):
        kept, hidden = simulate_dropout(counts, share)
        assert hidden.nnz == round(share * n_nonzero)
        assert np.array_equal((kept + hidden).toarray(), counts)
        assert kept.multiply(hidden).nnz == 0


@pytest.mark.parametrize("value", [-1.0, 0.5, np.nan, np.inf])
@pytest.mark.parametrize("store", [np.asarray, sp.csr_matrix], ids=["dense", "csr"])
def test_values_that_are_no_counts_are_named(value, store):
    counts = np.zeros((3, 4))
    counts[1, 2] = value
    for function in (molecular_split, simulate_dropout, lambda x: thin_counts(x, 0.5)):
        with pytest.raises(ValueError, match=f"{value} of cell 1, gene 2, is not a raw count"):
            function(store(counts))


def test_a_vector_is_refused():
    with pytest.raises(ValueError, match="Counts have 1 dimensions; give cells times genes"):
        molecular_split(np.ones(3))


def test_shares_out_of_range_are_named():
    counts = draw_counts()
    for fraction in (0, 1, -0.1, np.nan):
        with pytest.raises(ValueError, match=r"fraction=.* is not in \(0, 1\)"):
            molecular_split(counts, fraction)
    for share in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match=r"share=.* is not in \[0, 1\]"):
            simulate_dropout(counts, share)
        with pytest.raises(ValueError, match=r"share=.* is not in \[0, 1\]"):
            thin_counts(counts, share)
    with pytest.raises(ValueError, match="or one for each of the 60 cells"):
        thin_counts(counts, np.full(59, 0.5))


def test_cells_without_counts_and_no_cells_stay_as_they_are():
    for counts in (np.zeros((3, 4)), np.zeros((0, 4))):
        for part in (
            *molecular_split(counts),
            *simulate_dropout(counts),
            thin_counts(counts, 0.5),
        ):
            assert part.shape == counts.shape
            assert part.nnz == 0
