"""Ridge regression on views of few labelled cells."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge

from scvi_sctab._config import FewLabelsConfig
from scvi_sctab.train import fit_ridge
from scvi_sctab.train._closed_form import _read_scores, _Solver

PENALTY = 0.3
ONE = FewLabelsConfig(ratios=(1.0,), penalties=(PENALTY,))


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2], (20, 12, 8))
    return rng.normal(size=(40, 6)) + 0.8 * np.eye(3, 6)[codes], codes


def _weights(codes):
    return len(codes) / (3 * np.bincount(codes))


def _targets(codes):
    return np.where(codes[:, None] == np.arange(3), 1.0, -1.0)


def _ridge(x, codes, weights, scale):
    """scikit-learn's regression on views divided by the root of their unit."""
    return Ridge(alpha=PENALTY).fit(x * scale, _targets(codes), sample_weight=weights)


def test_scores_are_those_of_a_weighted_ridge_regression(cells):
    x, codes = cells
    weights = _weights(codes)[codes]
    coefficients, intercept = _Solver.of(x @ x.T, weights).solve(_targets(codes), PENALTY)
    expected = Ridge(alpha=PENALTY).fit(x, _targets(codes), sample_weight=weights)
    new = np.random.default_rng(1).normal(size=(10, 6))
    np.testing.assert_allclose(new @ x.T @ coefficients + intercept, expected.predict(new))
    np.testing.assert_allclose(coefficients.sum(axis=0), 0, atol=1e-9)


def test_each_cell_is_scored_by_the_fit_to_all_others(cells):
    x, codes = cells
    weights = _weights(codes)[codes]
    scores = _Solver.of(x @ x.T, weights).left_out(_targets(codes), PENALTY)
    for cell in range(40):
        others = np.delete(np.arange(40), cell)
        without = Ridge(alpha=PENALTY).fit(
            x[others], _targets(codes)[others], sample_weight=weights[others]
        )
        np.testing.assert_allclose(scores[cell], without.predict(x[[cell]])[0])


def test_the_second_reading_is_a_linear_discriminant_analysis(cells):
    scores, codes = np.random.default_rng(3).normal(size=(40, 3)) + np.eye(3)[cells[1]], cells[1]
    map_, offset, _ = _read_scores(scores, codes, _weights(codes)[codes], 0.9)
    analysis = LinearDiscriminantAnalysis("lsqr", shrinkage=0.9, priors=np.full(3, 1 / 3))
    expected = analysis.fit(scores, codes).decision_function(scores)
    # What remains is a multiple of the scores; differences between labels determine everything.
    logits = scores @ map_ + offset
    design = [np.subtract(x[:, 1:], x[:, :1]).ravel() for x in (scores, expected, logits)]
    parts, rest, *_ = np.linalg.lstsq(np.stack(design[:2], axis=1), design[2], rcond=None)
    assert parts.min() > 0
    np.testing.assert_allclose(rest, 0, atol=1e-4)


def test_logits_of_a_cell_go_without_it(cells):
    x, codes = cells
    fit = fit_ridge([x @ x.T], codes, _weights(codes), ONE)
    whole = fit.factors[0] * x @ x.T @ fit.coefficients + fit.intercept
    chosen = np.arange(40), codes
    assert fit.left_out[chosen].mean() < whole[chosen].mean()
    random = np.random.default_rng(0).permutation(codes)
    noise = fit_ridge([x @ x.T], random, _weights(random), FewLabelsConfig())
    assert (noise.left_out.argmax(axis=1) == random).mean() < 0.5


def test_a_label_between_two_others_is_found():
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2], 30)
    x = (codes[:, None] - 1.0) + 0.2 * rng.normal(size=(90, 1))
    fit = fit_ridge([x @ x.T], codes, _weights(codes), FewLabelsConfig())
    found = fit.left_out.argmax(axis=1)
    assert (found[codes == 1] == 1).mean() > 0.9
    # The scores alone are lowest for it everywhere but near the middle.
    scores = _Solver.of(x @ x.T, _weights(codes)[codes]).left_out(_targets(codes), 0.003)
    assert (scores.argmax(axis=1)[codes == 1] == 1).mean() < 0.5


def test_a_view_of_noise_gets_the_smaller_share_and_goes_if_it_may(cells):
    x, codes = cells
    noise = np.random.default_rng(2).normal(size=(40, 3))
    clear = x + 4 * np.eye(3, 6)[codes]
    kernels = [10 * clear @ clear.T, 0.1 * noise @ noise.T]
    config = FewLabelsConfig()
    both = fit_ridge(kernels, codes, _weights(codes), config)
    assert both.shares == pytest.approx([0.8, 0.2])
    # Shares count beside the mean squared norm of a view, whatever its unit.
    parts = both.factors * [np.trace(kernel) / 40 for kernel in kernels]
    assert parts == pytest.approx(both.shares)
    gone = fit_ridge(kernels, codes, _weights(codes), config, (False, True))
    assert gone.shares[1] == 0


def test_noisy_labels_get_a_large_penalty_and_clear_ones_a_small_one(cells):
    x, codes = cells
    shuffled = np.random.default_rng(0).permutation(codes)
    noisy = fit_ridge([x @ x.T], shuffled, _weights(codes), FewLabelsConfig())
    clear = fit_ridge(
        [(k := x + 9 * np.eye(3, 6)[codes]) @ k.T], codes, _weights(codes), FewLabelsConfig()
    )
    assert noisy.penalty > clear.penalty
    # Of noise, hardly anything is certain.
    spread = [fit.left_out.std() for fit in (noisy, clear)]
    assert spread[0] < spread[1] / 5


def test_labels_have_the_weight_that_is_given(cells):
    x, codes = cells
    kernel = [x @ x.T]
    favoured = [
        fit_ridge(kernel, codes, np.where(np.arange(3) == label, 50.0, 1.0), ONE)
        .left_out.argmax(axis=1)
        .tolist()
        .count(label)
        for label in range(3)
    ]
    balanced = fit_ridge(kernel, codes, _weights(codes), ONE).left_out.argmax(axis=1)
    assert all(favoured[label] > (balanced == label).sum() for label in range(3))


def test_a_label_without_cells_is_never_predicted(cells):
    x, codes = cells
    weights = np.append(_weights(codes), 0.0)
    fit = fit_ridge([x @ x.T], codes, weights, ONE)
    assert (fit.left_out[:, 3] < fit.left_out[:, :3].max(axis=1)).all()
