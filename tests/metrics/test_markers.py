"""Marker scores on small arrays whose right values are worked out by hand."""

import numpy as np
import pytest

from scvi_sctab.metrics import score_markers


def statistics(groups, weights):
    """Cells per group, mean contribution, mean expression and mean square, of cells by group."""
    cells = [np.asarray(group, dtype=float) for group in groups]
    n_cells = np.array([len(group) for group in cells])
    expression = np.array([group.mean(axis=0) for group in cells])
    squares = np.array([(group**2).mean(axis=0) for group in cells])
    return n_cells, expression * np.asarray(weights, dtype=float), expression, squares


def test_the_score_is_contribution_times_the_cube_of_specificity():
    groups = [[[4, 1], [6, 1]], [[1, 1], [3, 1]]]
    found = score_markers(*statistics(groups, [[0.5, 0.3], [-0.5, 0.3]]))
    # Gene 0: means 5 and 2, variance 2 in each group and within both, two cells on each side.
    specificity = (5 - 2 - np.sqrt(2 / 2 + 2 / 2)) / 5
    np.testing.assert_allclose(found.specificity, [[specificity, 0], [0, 0]])
    np.testing.assert_allclose(found.score, [[0.5 * 5 * specificity**3, 0], [0, 0]])
    np.testing.assert_allclose(found.nearby, [[2, 1], [5, 1]])
    np.testing.assert_array_equal(found.nearest, [[1], [0]])


def test_a_gene_that_all_groups_express_loses_to_a_specific_one_with_less_contribution():
    everywhere, specific = [5.0, 5.0, 4.8], [2.0, 0.1, 0.0]
    expression = np.array([everywhere, specific]).T
    contribution = expression * [0.8, 0.3]
    assert contribution[0, 0] > 6 * contribution[0, 1]
    score = score_markers(np.full(3, 100), contribution, expression, expression**2).score
    assert score[0, 1] > 50 * score[0, 0] >= 0


def test_near_are_three_groups_and_each_weighs_the_same_whatever_its_cells():
    expression = np.array([[9.0, 0.0], [8.0, 1.0], [7.0, 0.0], [6.0, 4.0], [0.0, 8.0]])
    n_cells = np.array([5, 10, 20, 30, 1000])
    found = score_markers(n_cells, expression, expression, expression**2)
    np.testing.assert_array_equal(found.nearest[0], [1, 2, 3])
    np.testing.assert_allclose(found.nearby[0], [(8 + 7 + 6) / 3, 5 / 3])
    np.testing.assert_allclose(found.elsewhere[0], [(8 + 7 + 6 + 0) / 4, 13 / 4])
    one = score_markers(n_cells, expression, expression, expression**2, n_nearest=1)
    np.testing.assert_array_equal(one.nearest[:, 0], [1, 0, 1, 1, 3])
    np.testing.assert_allclose(one.nearby, expression[one.nearest[:, 0]])
    np.testing.assert_allclose(one.elsewhere, found.elsewhere)


def test_the_comparison_counts_in_which_a_gene_is_less_specific():
    # Group 0 is near group 1; gene 0 is shared with that one, gene 1 with the two far ones.
    expression = np.array([[4.0, 4.0], [4.0, 0.0], [0.0, 9.0], [0.0, 9.0]])
    found = score_markers(np.full(4, 9), expression, expression, expression**2, n_nearest=1)
    np.testing.assert_array_equal(found.nearest[0], [1])
    np.testing.assert_allclose(found.nearby[0], [4, 0])
    np.testing.assert_allclose(found.elsewhere[0], [4 / 3, 6])
    np.testing.assert_array_equal(found.specificity[0], [0, 0])
    # Of gene 1, group 2 expresses as much as its neighbour, and group 1 nothing.
    np.testing.assert_array_equal(found.specificity[1:, 1], [0, 0, 0])
    assert found.specificity[1, 0] == 0


def test_equally_near_groups_are_taken_by_position_and_equal_genes_score_alike():
    expression = np.array([[1.0, 1.0], [2.0, 2.0], [0.0, 0.0], [2.0, 2.0]])
    found = score_markers(np.full(4, 9), expression, expression, expression**2, n_nearest=2)
    np.testing.assert_array_equal(found.nearest, [[1, 2], [3, 0], [0, 1], [1, 0]])
    np.testing.assert_array_equal(found.score[:, 0], found.score[:, 1])


def test_scores_are_proportional_to_contributions_and_specificity_has_no_unit(rng):
    groups = [rng.gamma(1, mean, (20, 5)) for mean in (0.5, 1, 2, 3)]
    n_cells, contribution, expression, squares = statistics(groups, rng.normal(size=(4, 5)))
    found = score_markers(n_cells, contribution, expression, squares)
    assert (found.specificity > 0).any()
    larger = score_markers(n_cells, 7 * contribution, 3 * expression, 9 * squares)
    np.testing.assert_allclose(larger.specificity, found.specificity)
    np.testing.assert_allclose(larger.score, 7 * found.score)
    np.testing.assert_array_equal(larger.nearest, found.nearest)


def test_what_few_cells_express_by_chance_is_no_marker():
    neighbours = np.zeros((50, 2))
    few = [[1.5, 1.5], [0, 1.5], [0, 1.5]]  # gene 0 in one of three cells, gene 1 in all
    found = score_markers(*statistics([few, neighbours], np.ones((2, 2))))
    assert found.specificity[0, 0] < 0.01
    assert found.specificity[0, 1] == pytest.approx(1)


def test_the_error_of_a_mean_over_groups_is_that_of_its_cells():
    groups = [[[9], [9]], [[4], [6]], [[1], [3], [5]]]
    found = score_markers(*statistics(groups, np.ones((3, 1))))
    within = (0 + 2 + 8) / (7 - 3)
    error = np.sqrt(within / 2 + within * (1 / 4 * 1 / 2 + 1 / 4 * 1 / 3))
    np.testing.assert_allclose(found.specificity[0], (9 - (5 + 3) / 2 - error) / 9)


def test_a_group_of_one_cell_has_the_spread_within_the_others():
    neighbours = np.array([[1.0, 0.0], [3.0, 0.0]])
    found = score_markers(*statistics([[[4, 4]], neighbours], np.ones((2, 2))))
    # Gene 0 varies by 2 within groups (one degree of freedom), gene 1 does not vary.
    np.testing.assert_allclose(found.specificity[0], [(4 - 2 - np.sqrt(2 + 1)) / 4, 1])


def test_genes_that_speak_against_a_label_score_below_all_others():
    expression = np.array([[2.0, 2.0, 0.0], [0.0, 2.0, 0.0]])
    contribution = expression * [-1, 1, 1]
    score = score_markers(np.array([9, 9]), contribution, expression, expression**2).score
    np.testing.assert_array_equal(score[0], [-2, 0, 0])


def test_with_one_group_the_score_is_the_contribution_and_the_rest_is_missing():
    contribution, expression = np.array([[0.2, 0.7]]), np.array([[1.0, 2.0]])
    found = score_markers(np.array([9]), contribution, expression, expression**2)
    np.testing.assert_array_equal(found.score, contribution)
    assert np.isnan(found.specificity).all()
    assert np.isnan(found.nearby).all()
    assert np.isnan(found.elsewhere).all()
    assert found.nearest.shape == (1, 0)


def test_without_cells_there_are_no_scores():
    found = score_markers(np.zeros(0, int), *np.zeros((3, 0, 4)))
    assert found.score.shape == (0, 4)
    assert found.nearest.shape == (0, 0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
