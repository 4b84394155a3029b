"""Recovery of latents and targets, against a search over all matchings."""

from itertools import permutations

import numpy as np
import pytest

from scvi_sctab.metrics import match_latents, mean_correlation_coefficient, target_scores


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def best_by_search(true, estimated):
    """The largest mean absolute correlation over all one-to-one matchings of the true columns."""
    n = true.shape[1]
    correlation = np.abs(np.corrcoef(true.T, estimated.T)[:n, n:])
    return max(
        correlation[range(n), columns].mean()
        for columns in permutations(range(estimated.shape[1]), n)
    )


@pytest.mark.parametrize("n_estimated", [4, 6])
def test_the_matching_is_the_best_of_all(rng, n_estimated):
    true = rng.normal(size=(60, 4))
    estimated = true @ rng.normal(size=(4, n_estimated)) + rng.normal(size=(60, n_estimated))
    found = mean_correlation_coefficient(true, estimated)
    assert found == pytest.approx(best_by_search(true, estimated))
    # The pairs of largest correlations one by one are another matching.
    assert found > 0.2


def test_a_matching_undoes_order_sign_scale_and_offset(rng):
    true = rng.normal(size=(50, 5))
    order = rng.permutation(5)
    estimated = (true * [1, -2, 3, -4, 1e-3] + 7)[:, order]
    matching = match_latents(true, estimated)
    np.testing.assert_array_equal(order[matching.second], matching.first)
    np.testing.assert_allclose(matching.correlation, [1, -1, 1, -1, 1])
    assert mean_correlation_coefficient(true, estimated) == pytest.approx(1)


def test_true_latents_without_a_partner_count_as_not_found(rng):
    true = rng.normal(size=(50, 4))
    assert mean_correlation_coefficient(true, true[:, :3]) == pytest.approx(3 / 4)
    assert mean_correlation_coefficient(true[:, :3], true) == pytest.approx(1)


def test_a_constant_latent_correlates_with_none(rng):
    true = rng.normal(size=(50, 2))
    estimated = np.column_stack([true[:, 0], np.full(50, 0.1)])
    assert mean_correlation_coefficient(true, estimated) == pytest.approx(1 / 2)


def test_targets_are_compared_along_the_matching_whatever_the_signs(rng):
    latents = rng.normal(size=(50, 3))
    true = rng.random((20, 3)) < 0.4
    order = [2, 0, 1]
    matching = match_latents(latents, -latents[:, order])
    assert target_scores(true, true[:, order], matching).f1 == 1
    wrong = true[:, order].copy()
    wrong[0] = ~wrong[0]
    counts = true[0].sum(), (~true[0]).sum(), true.sum()
    scores = target_scores(true, wrong, matching)
    missed, false, n = map(int, counts)
    assert scores.recall == pytest.approx((n - missed) / n)
    assert scores.precision == pytest.approx((n - missed) / (n - missed + false))
    harmonic = 2 / (1 / scores.recall + 1 / scores.precision)
    assert scores.f1 == pytest.approx(harmonic)


def test_targets_of_latents_without_a_partner_are_wrong(rng):
    latents = rng.normal(size=(50, 3))
    everything = np.ones((4, 3), dtype=bool)
    more = target_scores(everything[:, :2], everything, match_latents(latents[:, :2], latents))
    assert (more.precision, more.recall) == (pytest.approx(2 / 3), 1)
    fewer = target_scores(everything, everything[:, :2], match_latents(latents, latents[:, :2]))
    assert (fewer.precision, fewer.recall) == (1, pytest.approx(2 / 3))


def test_scores_without_targets_are_not_a_number(rng):
    matching = match_latents(*2 * [rng.normal(size=(9, 2))])
    none, every = np.zeros((3, 2), dtype=bool), np.ones((3, 2), dtype=bool)
    assert np.isnan(target_scores(none, none, matching).f1)
    empty = target_scores(every, none, matching)
    assert (empty.recall, empty.f1) == (0, 0)
    assert np.isnan(empty.precision)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.ones(3), np.ones((3, 1)), r"`first` has the shape \(3,\); pass a table"),
        (np.ones((3, 1)), np.ones((3, 0)), r"`second` has the shape \(3, 0\)"),
        (
            np.ones((3, 1)),
            np.ones((4, 1)),
            "have 3 and 4 rows; pass the latents of the same cells",
        ),
        (np.ones((3, 1)), np.full((3, 1), np.nan), "`second` has missing or infinite values"),
    ],
)
def test_tables_that_do_not_fit_are_refused(first, second, message):
    with pytest.raises(ValueError, match=message):
        match_latents(first, second)


def test_targets_that_do_not_fit_are_refused(rng):
    matching = match_latents(*2 * [rng.normal(size=(9, 2))])
    targets = np.ones((3, 2), dtype=bool)
    with pytest.raises(ValueError, match="`estimated_targets` is of type float64; pass booleans"):
        target_scores(targets, targets * 1.0, matching)
    with pytest.raises(
        ValueError, match="`true_targets` has the shape .*matching is of 2 latents"
    ):
        target_scores(targets[:, :1], targets, matching)
    with pytest.raises(ValueError, match="of 3 and 2 perturbations; pass those of the same ones"):
        target_scores(targets, targets[:2], matching)
