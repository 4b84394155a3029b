"""Ridge regression on views of few labelled cells."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from scvi_sctab._config import FewLabelsConfig
from scvi_sctab.train import fit_ridge

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


def _factor(ours, theirs):
    """Factor between scores and logits, which is the same for all."""
    factors = (ours / theirs).ravel()
    np.testing.assert_allclose(factors, factors[0], rtol=1e-6)
    return factors[0]


def test_fit_is_that_of_a_weighted_ridge_regression(cells):
    x, codes = cells
    fit = fit_ridge([x @ x.T], codes, _weights(codes), ONE)
    scale = np.sqrt(len(x) / np.trace(x @ x.T))
    expected = _ridge(x, codes, _weights(codes)[codes], scale)
    new = np.random.default_rng(1).normal(size=(10, 6))
    logits = fit.factors[0] * (new @ x.T) @ fit.coefficients + fit.intercept
    assert _factor(logits, expected.predict(new * scale)) > 0
    np.testing.assert_allclose(fit.coefficients.sum(axis=0), 0, atol=1e-9)


def test_each_cell_is_predicted_by_the_fit_to_all_others(cells):
    x, codes = cells
    fit = fit_ridge([x @ x.T], codes, _weights(codes), ONE)
    weights, scale = _weights(codes)[codes], np.sqrt(len(x) / np.trace(x @ x.T))
    expected = np.empty((40, 3))
    for cell in range(40):
        others = np.delete(np.arange(40), cell)
        without = _ridge(x[others], codes[others], weights[others], scale)
        expected[cell] = without.predict(x[[cell]] * scale)
    assert _factor(fit.left_out, expected) > 0


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
