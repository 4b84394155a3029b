"""Levels of genes, the factor model, and the choice between its uses of bulk."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize, sparse, special, stats

from scvi_sctab._config import FACTORS
from scvi_sctab.external.scdtl._factor import GenePrior, fit_factors, infer_weights
from scvi_sctab.external.scdtl._gain import choose_use, describe_gain, gain_table
from scvi_sctab.external.scdtl._imputer_fit import shares_of_others
from scvi_sctab.external.scdtl._kernels import assign_shapes, log_gamma, share_counts, shrink_genes
from scvi_sctab.external.scdtl._level import fit_level, log_nb
from scvi_sctab.external.scdtl._starts import bulk_scores, cluster_weights, expression_scores
from scvi_sctab.external.scdtl._trials import (
    best_own_shape,
    factor_shares,
    own_posterior,
    whole_library,
)
from scvi_sctab.metrics import HeldOutScores

SHORT = replace(FACTORS, n_iterations=25)


def two_types(n_cells=40, n_genes=200, depth=400, seed=0):
    """Counts of two types, their shares of genes, and weights to start from."""
    rng = np.random.default_rng(seed)
    shares = rng.gamma(0.5, 1, n_genes) * np.exp(rng.normal(0, 1, (2, n_genes))) + 1e-3
    shares /= shares.sum(axis=1, keepdims=True)
    types = np.arange(n_cells) % 2
    counts = sparse.csr_matrix(rng.poisson(depth * shares[types]).astype(float))
    return counts, shares, types, cluster_weights(np.eye(2)[types], 2, 0)


def test_log_gamma_is_that_of_scipy():
    x = np.concatenate([np.geomspace(1e-3, 1e5, 200), np.arange(1, 9)])
    np.testing.assert_allclose([log_gamma(v) for v in x], special.gammaln(x), rtol=1e-7, atol=1e-7)


def test_the_negative_binomial_is_that_of_scipy():
    x, mean, shape = np.arange(6.0), np.full(6, 2.5), 0.7
    truth = stats.nbinom.logpmf(x, shape, shape / (shape + mean))
    np.testing.assert_allclose(log_nb(x, mean, shape) - special.gammaln(x + 1), truth)


def test_counts_are_shared_among_factors():
    rng = np.random.default_rng(0)
    counts = sparse.csr_matrix(rng.poisson(1.0, (5, 7)).astype(float))
    weights, loadings = rng.random((5, 3)), rng.random((7, 3))
    of_cells, of_genes = np.zeros((5, 3)), np.zeros((7, 3))
    share_counts(counts.indptr, counts.indices, counts.data, weights, loadings, of_cells, of_genes)
    part = weights[:, None] * loadings
    part = counts.toarray()[:, :, None] * part / part.sum(axis=2, keepdims=True)
    np.testing.assert_allclose(of_cells, part.sum(axis=1))
    np.testing.assert_allclose(of_genes, part.sum(axis=0))


def test_loadings_are_posterior_means_under_the_mixture():
    counts, exposure = np.array([0.0, 3.5, 90.0]), np.array([50.0, 40.0, 30.0])
    expected, strata = np.array([0.01, 0.05, 1.0]), np.array([0, 1, 1])
    shapes, frequencies = np.array([0.5, 20.0]), np.array([[0.3, 0.7], [0.9, 0.1]])
    shares, total = np.empty((3, 2)), np.zeros((2, 2))
    given = counts, exposure, expected
    assign_shapes(*given, strata, shapes, np.log(frequencies), shares, total)
    mean = exposure * expected
    likelihood = np.exp(log_nb(counts[:, None], mean[:, None], shapes)) * frequencies[strata]
    truth = likelihood / likelihood.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, truth, rtol=1e-6)
    np.testing.assert_allclose(total, [truth[0], truth[1] + truth[2]], rtol=1e-6)
    posterior, score, precision = np.empty((3, 3))
    shrink_genes(*given, shapes, shares, posterior, score, precision)
    by_shape = (counts[:, None] + shapes) / (exposure[:, None] + shapes / expected[:, None])
    np.testing.assert_allclose(posterior, (truth * by_shape).sum(axis=1), rtol=1e-6)
    # The score is the derivative of the expected log-likelihood by the log of the expectation.
    step = 1e-5

    def at(factor):
        return (truth * log_nb(counts[:, None], factor * mean[:, None], shapes)).sum(axis=1)

    slope = (at(np.exp(step)) - at(np.exp(-step))) / (2 * step)
    np.testing.assert_allclose(score, slope, rtol=1e-4, atol=1e-6)
    assert (precision > 0).all()


def test_the_level_recovers_shares_better_than_counts_do_and_best_with_bulk():
    rng = np.random.default_rng(0)
    bulk = rng.normal(0, 2, 2000)
    shares = np.exp(bulk) * rng.gamma(5, 1, 2000)
    shares /= shares.sum()
    totals = rng.poisson(3000 * shares).astype(float)

    def error(level):
        return float(shares @ np.log(shares / level))

    alone, informed = fit_level(totals).mean, fit_level(totals, bulk).mean
    assert error(informed) < 0.5 * error(alone)
    assert error(alone) < error((totals + 1) / (totals + 1).sum())
    for level in (alone, informed):
        assert level.sum() == pytest.approx(1)
    # Without any molecule, a gene is at the level of its like.
    others = fit_level(totals, bulk, bulk[:5]).of_others
    np.testing.assert_allclose(np.log(others / shares[:5]), 0, atol=1.5)


def test_genes_that_bulk_lacks_get_a_level_of_their_own():
    rng = np.random.default_rng(0)
    totals, bulk = rng.poisson(rng.gamma(1, 5, 300)).astype(float), rng.normal(0, 1, 300)
    bulk[::3] = np.nan
    level = fit_level(totals, bulk).mean
    assert np.isfinite(level).all()
    alone = fit_level(totals[::3]).mean
    np.testing.assert_allclose(level[::3] / level[::3].sum(), alone)


@pytest.mark.parametrize("zeros", ["all that bulk lacks", "all that bulk has"])
def test_genes_without_molecules_keep_a_level_above_0(zeros):
    rng = np.random.default_rng(0)
    totals, bulk_mean = rng.poisson(50.0, 40).astype(float), rng.normal(size=40)
    bulk_mean[:10] = np.nan
    is_zero = np.isnan(bulk_mean) == (zeros == "all that bulk lacks")
    totals[is_zero] = 0
    found = fit_level(totals, bulk_mean, np.zeros(3))
    # Together they are expected to have half a molecule.
    share = 0.5 / is_zero.sum() / (totals.sum() + 0.5)
    np.testing.assert_allclose(found.mean[is_zero], share, rtol=0.05)
    assert (found.of_others > 0).all()
    assert found.mean.sum() == pytest.approx(1)


def test_a_batch_without_cells_has_no_effect_on_factors():
    counts, shares, types, start = two_types()
    prior = GenePrior(shares.mean(axis=0), np.zeros((shares.shape[1], 0)))
    batches = np.arange(len(types)) // 2 % 2
    fit = [
        fit_factors(counts, prior, start, batches=batches, n_batches=n, config=SHORT)
        for n in (2, 3)
    ]
    np.testing.assert_allclose(fit[1].loadings, fit[0].loadings)
    np.testing.assert_allclose(fit[1].shifts, [*fit[0].shifts, np.ones(shares.shape[1])])


def test_factors_recover_two_types_and_shrink_to_bulk():
    counts, shares, types, start = two_types()
    level = fit_level(np.asarray(counts.sum(axis=0)).ravel()).mean
    contrast = np.log(shares[0] / shares[1])[:, None]
    alone = fit_factors(counts, GenePrior(level, np.zeros((200, 0))), start, config=SHORT)
    informed = fit_factors(counts, GenePrior(level, contrast), start, config=SHORT)

    def error(factors):
        predicted = factor_shares(factors, infer_weights(counts, factors), np.full(40, -1))
        return float((shares[types] * np.log(shares[types] / predicted)).sum(axis=1).mean())

    mean_error = float((shares[types] * np.log(shares[types] / level)).sum(axis=1).mean())
    assert error(alone) < 0.3 * mean_error
    assert error(informed) < 0.8 * error(alone)
    np.testing.assert_allclose(informed.loadings.sum(axis=0), 1)
    # The contrast of the types has a difference of 1 between their factors.
    assert np.ptp(informed.coefficients) == pytest.approx(1, abs=0.2)


def test_cells_without_counts_have_the_mean_weights():
    counts, _, _, start = two_types()
    prior = GenePrior(np.full(200, 1 / 200), np.zeros((200, 0)))
    factors = fit_factors(counts, prior, start, config=SHORT)
    (empty,) = infer_weights(sparse.csr_matrix((1, 200)), factors)
    np.testing.assert_allclose(empty, factors.concentration / factors.concentration.sum())
    scores = bulk_scores(sparse.csr_matrix((1, 200)), GenePrior(prior.level, np.ones((200, 2))))
    assert not scores.any()


def test_the_effect_of_batches_on_genes_is_not_taken_for_a_factor():
    rng = np.random.default_rng(1)
    counts, shares, types, start = two_types(60, depth=2000)
    effect = np.exp(rng.normal(0, 0.7, 200))
    batches = (np.arange(60) // 2) % 2
    rates = shares[types] * np.where(batches[:, None], effect, 1)
    counts = sparse.csr_matrix(
        rng.poisson(2000 * rates / rates.sum(axis=1, keepdims=True)).astype(float)
    )
    level = fit_level(np.asarray(counts.sum(axis=0)).ravel()).mean
    prior = GenePrior(level, np.zeros((200, 0)))
    factors = fit_factors(counts, prior, start, batches=batches, n_batches=2, config=SHORT)
    found = np.log(factors.shifts[1] / factors.shifts[0])
    keep = level > 2e-3
    assert np.corrcoef(found[keep], np.log(effect)[keep])[0, 1] > 0.95
    weights = infer_weights(counts, factors, batches=batches)
    shown = factor_shares(factors, weights, batches)
    without = factor_shares(factors, weights, np.full(60, -1))
    np.testing.assert_allclose(shown.sum(axis=1), 1)
    np.testing.assert_allclose(without[0], without[2], rtol=0.2)
    assert np.abs(np.log(shown[0] / shown[2]))[keep].max() > 0.5


def test_starts_do_not_depend_on_the_order_of_genes():
    counts = two_types()[0]
    order = np.random.default_rng(0).permutation(200)
    scores, permuted = expression_scores(counts), expression_scores(counts[:, order])
    np.testing.assert_allclose(np.abs(scores), np.abs(permuted), atol=1e-6)
    weights = cluster_weights(scores, 60, 0)
    assert weights.shape == (40, 60)
    np.testing.assert_allclose(weights.sum(axis=1), 1)


def test_own_counts_move_shares_by_their_precision():
    counts, shares, types, _ = two_types()
    prior = shares[types]
    np.testing.assert_allclose(own_posterior(counts, prior, 1e9), prior, rtol=1e-5)
    near = own_posterior(counts, prior, 1e-6)
    observed = counts.toarray() / counts.sum(axis=1)
    np.testing.assert_allclose(near, np.asarray(observed), atol=1e-4)
    empty = own_posterior(sparse.csr_matrix((40, 200)), prior, 3.0)
    np.testing.assert_allclose(empty, prior)
    # Cells have no expression of their own here, so that the prediction is better alone.
    other = two_types(seed=0)[0]
    held_out = sparse.csr_matrix(np.random.default_rng(9).poisson(400 * prior).astype(float))
    assert best_own_shape(other, held_out, lambda rows: prior[rows], (0.3, 1000.0)) == 1000.0


def test_shares_of_genes_in_bulk_only_are_in_the_unit_of_the_others():
    rng = np.random.default_rng(0)
    level, features, a = (
        rng.dirichlet(np.ones(30)),
        rng.normal(size=(30, 2)),
        rng.normal(size=(2, 3)),
    )
    prior = GenePrior(level, features)
    same = shares_of_others(prior, level, features, a)
    np.testing.assert_allclose(same, prior.shares(a))


def scores_of(per_cell, n_molecules=100.0):
    per_cell = np.asarray(per_cell, dtype=float)[:, None]
    return HeldOutScores(per_cell, np.full(per_cell.shape, n_molecules), ("low",))


def test_contrasts_are_used_only_if_they_are_clearly_better_than_none_and_than_the_level():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, 50)
    none = scores_of(noise)
    better = scores_of(noise + 2 + rng.normal(0, 0.3, 50))
    same = scores_of(noise + rng.normal(0, 0.3, 50))
    assert choose_use({"none": none, "level": same, "full": better, "shuffled": same}) == (
        "full",
        "",
    )
    use, reason = choose_use({"none": none, "level": better, "full": better, "shuffled": better})
    assert use == "level"
    assert "over the level of genes alone" in reason
    use, reason = choose_use({"none": none, "full": same, "shuffled": same})
    assert use == "none"
    assert "over no bulk (standard error" in reason
    table = gain_table({"none": none, "full": better, "gene mean": same})
    row = table.set_index(["use", "over", "genes"]).loc[("full", "none", "all")]
    difference = (better.log_likelihood - none.log_likelihood).sum() / 5000
    assert row["gain"] == pytest.approx(1000 * difference)
    assert "full over none: 2" in describe_gain(table)


def test_a_gain_that_is_not_a_number_is_no_reason_to_use_contrasts():
    molecules = np.ones((6, 1))
    impossible = HeldOutScores(np.full((6, 1), -np.inf), molecules, ("low",))
    with np.errstate(invalid="ignore"):
        use, reason = choose_use({"none": impossible, "level": impossible, "full": impossible})
    assert use == "none"
    assert "contrasts of bulk are not used" in reason


def test_genes_that_were_not_measured_say_nothing_of_weights():
    """Most genes of the first type are missing, which is not evidence for the second one."""
    counts, _, _, start = two_types(depth=2000)
    level = np.asarray(counts.mean(axis=0)).ravel() + 0.01
    prior = GenePrior(level / level.sum(), np.zeros((200, 0)))
    factors = fit_factors(counts, prior, start, config=SHORT)
    measured = factors.loadings[:, 0] < factors.loadings[:, 1]
    some = sparse.csr_matrix(counts.toarray() * measured)
    found = infer_weights(some, factors, measured=measured, n_iterations=500)

    def negative_log_posterior(first, cell):
        weights = np.array([first, 1 - first])
        shares = factors.loadings[measured] @ weights
        log_shares = np.log(shares / shares.sum())
        prior = factors.concentration @ np.log(weights)
        return -(some[cell, measured].toarray() @ log_shares + prior).item()

    for cell in range(10):
        best = optimize.minimize_scalar(
            negative_log_posterior, bounds=(1e-9, 1 - 1e-9), method="bounded", args=(cell,)
        ).x
        assert found[cell, 0] == pytest.approx(best, abs=1e-3)
    assert (found.argmax(axis=1) == infer_weights(counts, factors).argmax(axis=1)).all()
    everything = np.ones(200, dtype=bool)
    np.testing.assert_allclose(
        infer_weights(counts, factors, measured=everything), infer_weights(counts, factors)
    )


def test_counts_as_expected_change_nothing_where_genes_were_not_measured():
    prior = np.random.default_rng(0).dirichlet(np.ones(50), 4)
    measured = np.arange(50) % 3 > 0
    counts = sparse.csr_matrix(1000 * prior * measured)
    np.testing.assert_allclose(whole_library(counts, prior, measured), 1000)
    np.testing.assert_allclose(own_posterior(counts, prior, 2.0, measured), prior)
