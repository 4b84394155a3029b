"""Tests of the likelihood of held-out molecules."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import poisson

from scvi_sctab.metrics import (
    expression_tertiles,
    held_out_log_likelihood,
    molecular_split,
    score_held_out,
)


@pytest.fixture
def cells():
    generator = np.random.default_rng(0)
    rates = generator.gamma(0.5, 2.0, (30, 24))
    return generator.poisson(rates), rates + 0.1


def test_the_likelihood_is_that_of_scipy(cells):
    counts, rates = cells
    expected = poisson.logpmf(counts, rates).sum() / counts.sum()
    assert held_out_log_likelihood(counts, rates) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("store", [sp.csr_matrix, sp.csc_matrix, sp.csr_array])
def test_sparse_counts_give_the_same(cells, store):
    counts, rates = cells
    ours = held_out_log_likelihood(store(counts), rates)
    assert ours == pytest.approx(held_out_log_likelihood(counts, rates), rel=1e-12)


def test_size_factors_multiply_the_rates_of_their_cells(cells):
    counts, rates = cells
    factors = np.linspace(0.5, 2, len(counts))
    ours = held_out_log_likelihood(counts, rates, size_factors=factors)
    expected = held_out_log_likelihood(counts, rates * factors[:, None])
    assert ours == pytest.approx(expected, rel=1e-9)


def test_the_true_rates_have_the_highest_likelihood():
    generator = np.random.default_rng(0)
    rates = generator.gamma(0.5, 4.0, (200, 50)) + 0.01
    train, test = molecular_split(generator.poisson(rates), seed=1)
    truth = score_held_out(test, rates / 2)
    for wrong in (
        rates,
        rates / 4,
        np.full(rates.shape, rates.mean() / 2),
        train.toarray() + 0.01,
    ):
        assert truth.gain_over(score_held_out(test, wrong)).loc["all", "gain"] > 0.01


def test_strata_are_parts_of_the_whole(cells):
    counts, rates = cells
    strata = expression_tertiles(counts.sum(axis=0))
    scores = score_held_out(counts, rates, strata=strata)
    table = scores.per_molecule
    assert [*table.index] == ["all", "low", "mid", "high"]
    weights = scores.n_molecules.sum(axis=0)
    assert (table.iloc[1:] * weights).sum() / weights.sum() == pytest.approx(table["all"])
    low = strata == "low"
    expected = poisson.logpmf(counts[:, low], rates[:, low]).sum() / counts[:, low].sum()
    assert table["low"] == pytest.approx(expected, rel=1e-9)


def test_the_order_of_genes_does_not_matter(cells):
    counts, rates = cells
    order = np.random.default_rng(1).permutation(counts.shape[1])
    tables = [
        score_held_out(x, r, strata=expression_tertiles(x.sum(axis=0))).per_molecule
        for x, r in ((counts, rates), (counts[:, order], rates[:, order]))
    ]
    assert np.allclose(*tables, rtol=1e-9)


def test_the_standard_error_of_a_gain_is_that_of_the_bootstrap(cells):
    generator = np.random.default_rng(2)
    rates = generator.gamma(2.0, 1.0, (400, 20))
    counts = generator.poisson(rates)
    ours, baseline = (score_held_out(counts, r) for r in (rates, np.full(rates.shape, 2.0)))
    table = ours.gain_over(baseline)
    difference = (ours.log_likelihood - baseline.log_likelihood).sum(axis=1)
    molecules = counts.sum(axis=1)
    drawn = generator.integers(0, 400, (2000, 400))
    gains = difference[drawn].sum(axis=1) / molecules[drawn].sum(axis=1)
    assert table.loc["all", "se"] == pytest.approx(gains.std(ddof=1), rel=0.1)
    assert table.loc["all", "n_molecules"] == counts.sum()


def test_a_gain_over_itself_is_nothing(cells):
    scores = score_held_out(*cells)
    assert scores.gain_over(scores).loc["all", ["gain", "se"]].tolist() == [0, 0]


def test_a_single_cell_has_no_standard_error(cells):
    counts, rates = cells
    scores = score_held_out(counts[:1], rates[:1])
    assert np.isnan(scores.gain_over(scores).loc["all", "se"])


def test_a_stratum_without_molecules_has_no_score():
    counts = np.array([[3, 0], [1, 0]])
    scores = score_held_out(counts, np.ones((2, 2)), strata=["a", "b"])
    assert scores.per_molecule.isna().tolist() == [False, False, True]
    assert scores.gain_over(scores).loc["b", ["gain", "se"]].isna().all()


def test_a_molecule_of_a_gene_with_rate_0_is_impossible():
    assert held_out_log_likelihood(np.array([[1, 1]]), np.array([[1.0, 0.0]])) == -np.inf
    assert held_out_log_likelihood(np.array([[1, 0]]), np.array([[1.0, 0.0]])) == -1


def test_cells_without_held_out_molecules_are_scored_as_nothing():
    scores = score_held_out(np.zeros((2, 3)), np.ones((2, 3)), strata=["a", "b", "a"])
    np.testing.assert_array_equal(scores.n_molecules, np.zeros((2, 2)))
    np.testing.assert_array_equal(scores.log_likelihood, [[-2, -1], [-2, -1]])
    assert scores.per_molecule.isna().all()


def test_tertiles_are_thirds_and_equal_totals_stay_together():
    assert expression_tertiles(np.array([9, 1, 5, 2, 8, 6])).tolist() == [
        *("high", "low", "mid", "low", "high", "mid"),
    ]
    assert len(set(expression_tertiles(np.array([4, 4, 4, 4])).tolist())) == 1


def test_bad_input_is_named(cells):
    counts, rates = cells
    with pytest.raises(ValueError, match=r"`rates` has shape \(30, 23\), the counts have"):
        held_out_log_likelihood(counts, rates[:, 1:])
    with pytest.raises(ValueError, match="3 size factors are not one for each of 30 cells"):
        held_out_log_likelihood(counts, rates, size_factors=np.ones(3))
    with pytest.raises(ValueError, match="2 strata are not one for each of 24 genes"):
        score_held_out(counts, rates, strata=["a", "b"])
    with pytest.raises(ValueError, match="No molecule is held out"):
        held_out_log_likelihood(np.zeros((30, 24)), rates)
    with pytest.raises(ValueError, match="not a raw count"):
        held_out_log_likelihood(counts + 0.5, rates)
    with pytest.raises(ValueError, match="on other molecules or strata"):
        score_held_out(counts, rates).gain_over(score_held_out(counts + 1, rates))


@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf])
def test_rates_that_are_none_are_refused(cells, value):
    counts, rates = cells
    rates, factors = rates.copy(), np.ones(len(counts))
    rates[2, 3] = factors[4] = value
    with pytest.raises(ValueError, match="`rates` holds values that are negative or not finite"):
        held_out_log_likelihood(counts, rates)
    with pytest.raises(ValueError, match="`size_factors` holds values that are negative or not"):
        held_out_log_likelihood(counts, np.ones(counts.shape), size_factors=factors)
