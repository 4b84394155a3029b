"""Closed forms of shifts and inclusions agree with numerical optimisation."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from scvi_sctab.external.svae._shift_estimates import (
    count_cells,
    count_controls,
    design_matrix,
    half_included_shift,
    inclusions,
    least_squares_shifts,
    sparsity_of,
    standard_errors,
)

RNG = np.random.default_rng(0)
CODES = np.array([[0, -1], [0, -1], [1, -1], [-1, -1], [0, 1], [1, 2]])


def test_shifts_of_singles_are_means():
    latents, codes = RNG.normal(size=(60, 2)), np.arange(60)[:, None] % 3
    means = np.stack([latents[code::3].mean(axis=0) for code in range(3)])
    np.testing.assert_allclose(least_squares_shifts(latents, codes, 3), means, rtol=1e-4)


def test_shifts_of_combinations_are_least_squares():
    latents = RNG.normal(size=(6, 2))
    expected = np.linalg.lstsq(design_matrix(CODES, 3).toarray(), latents, rcond=None)[0]
    found = least_squares_shifts(latents, CODES, 3)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_perturbations_that_only_occur_together_share_their_sum():
    shifts = least_squares_shifts(np.full((10, 1), 4.0), np.tile([0, 1], (10, 1)), 2)
    np.testing.assert_allclose(shifts, 2, atol=1e-3)


def test_a_perturbation_without_cells_has_no_shift():
    assert least_squares_shifts(np.ones((2, 1)), np.zeros((2, 1), np.int64), 2)[1] == 0


def test_cells_of_combinations_are_counted_for_each_part():
    assert count_cells(CODES, 3).tolist() == [3, 3, 1]


def test_unperturbed_cells_are_counted_where_they_have_a_mean():
    assert count_controls(np.array([[-1, -1], [0, -1], [-1, -1]])) == 2
    assert count_controls(CODES) == 0


def test_errors_are_those_of_a_difference_of_means():
    n, n_controls = 30, 20
    latents = RNG.normal(size=(20_000, n + n_controls))
    shifts = latents[:, :n].mean(axis=1) - latents[:, n:].mean(axis=1)
    assert standard_errors(np.array([n]), n_controls).item() == pytest.approx(
        shifts.std(), rel=0.03
    )
    assert standard_errors(n, 0) == n**-0.5


@pytest.mark.parametrize("shift", [0.5, 1.5, 4.0])
@pytest.mark.parametrize("sparsity", [1.0, 2.0, 50.0])
@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_the_inclusion_is_the_optimum_of_the_objective(shift, sparsity, beta):
    n = 40

    def objective(p):
        # Expected KL divergence of n cells at distance 0 of their mean from the shift, and -log
        # of the density of Beta(1, K).
        return beta * n / 2 * (1 - p) * shift**2 - (sparsity - 1) * np.log1p(-p)

    best = minimize_scalar(objective, bounds=(0, 1 - 1e-9), method="bounded").x
    half = np.array([half_included_shift(sparsity, n, beta)])
    found = inclusions(np.array([[shift]]), half)
    assert found.item() == pytest.approx(best, abs=1e-4)


def test_at_the_threshold_the_inclusion_is_one_half():
    half = np.array([half_included_shift(sparsity_of(1.2, 70, 0.5), 70, 0.5)])
    found = inclusions(np.array([[1.2, 1.3, 1.1]]), half)[0]
    assert found[0] == pytest.approx(0.5)
    assert found[1] > 0.5 > found[2]


def test_without_sparsity_every_shift_is_included():
    assert inclusions(np.array([[0.1]]), np.array([half_included_shift(1.0, 5, 0.0)])) == 1


def test_without_a_divergence_a_penalty_excludes_every_shift():
    assert inclusions(np.array([[9.0]]), np.array([half_included_shift(2.0, 5, 0.0)])) == 0
