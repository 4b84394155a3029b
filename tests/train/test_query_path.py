"""Self-training of what a query adds to the logits."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.special import log_softmax, softmax

from scvi_sctab._config import SELF_TRAINING
from scvi_sctab.module import QueryPaths
from scvi_sctab.train import QueryCells, diversity, fit_query_path, select_confident

N_LABELS, N_INPUT = 3, 12
NONE = N_LABELS


@pytest.fixture
def weight():
    return np.random.default_rng(0).normal(size=(N_LABELS, N_INPUT))


def make_cells(weight, n=300, shift=0.0, labels=None):
    """Cells of three types; those of the last look like the second by ``shift``."""
    rng = np.random.default_rng(1)
    truth = np.arange(n) % N_LABELS
    x = rng.poisson(1.0, size=(n, N_INPUT)) + 2.0 * (
        np.arange(N_INPUT) % N_LABELS == truth[:, None]
    )
    x = x * (rng.random(x.shape) < 0.7)
    weight = weight + 1.5 * (np.arange(N_INPUT) % N_LABELS == np.arange(N_LABELS)[:, None])
    linear = x @ weight.T / 12
    linear[:, 1] += shift
    unknown = np.full(n, NONE)
    return QueryCells(
        sparse.csr_matrix(x), linear, linear, unknown if labels is None else labels
    ), truth


def fit(cells, weight, **kwargs):
    return fit_query_path(cells, weight, SELF_TRAINING, **kwargs)


def accuracy(cells, truth, path):
    logits = cells.logits + cells.x @ path.weight.T + path.bias
    return (logits.argmax(axis=1) == truth).mean()


def test_each_round_lowers_the_loss_of_the_cells_that_it_labelled(weight):
    cells, _ = make_cells(weight, shift=0.6)
    losses = np.array(fit(cells, weight).losses).reshape(SELF_TRAINING.rounds, -1)
    assert (losses[:, -1] < losses[:, 0]).all()


@pytest.mark.parametrize("store", [np.asarray, sparse.csr_matrix], ids=["dense", "sparse"])
def test_the_first_step_is_that_of_the_gradient(weight, store):
    cells, _ = make_cells(weight)
    cells = cells._replace(x=store(cells.x.toarray()))
    config = replace(SELF_TRAINING, rounds=1, n_steps=1)
    path = fit_query_path(cells, weight, config)
    x = cells.x.toarray() if sparse.issparse(cells.x) else cells.x
    chosen = select_confident(softmax(cells.logits, axis=1), config.share)
    rows = np.flatnonzero(chosen < N_LABELS)
    importance = np.bincount(chosen[rows])[chosen[rows]] ** -0.5
    importance = torch.tensor(importance / importance.sum())
    gain = torch.zeros(N_LABELS, N_INPUT, dtype=torch.float64, requires_grad=True)
    offset = torch.zeros(N_LABELS, dtype=torch.float64, requires_grad=True)
    centred = torch.tensor(x[rows] - x.mean(axis=0))
    logits = torch.tensor(cells.linear[rows]) + centred @ (torch.tensor(weight) * gain).T + offset
    losses = torch.nn.functional.cross_entropy(
        logits, torch.tensor(chosen[rows]), reduction="none"
    )
    (importance * losses).sum().backward()
    rate = config.gain_lr / ((x**2).mean(axis=0) @ weight.var(axis=0))
    delta = -rate * gain.grad.numpy() * weight
    np.testing.assert_allclose(path.weight, delta, rtol=1e-9)
    bias = -config.offset_lr * offset.grad.numpy() - delta @ x.mean(axis=0)
    np.testing.assert_allclose(path.bias, bias, rtol=1e-9)
    assert path.losses == [pytest.approx(float((importance * losses).sum().detach()))]


def test_without_a_linear_path_an_offset_is_fitted(weight):
    cells, truth = make_cells(weight, shift=1.0)
    path = fit(cells._replace(labels=truth), None)
    assert not path.weight.any()
    assert path.weight.shape == (N_LABELS, N_INPUT)
    assert path.bias[1] < path.bias[[0, 2]].min()
    assert accuracy(cells, truth, path) > (cells.logits.argmax(axis=1) == truth).mean()


def test_cells_that_are_not_eligible_teach_nothing(weight):
    cells, _ = make_cells(weight)
    n_cells = len(cells.logits)
    assert not fit(cells, weight, eligible=np.zeros(n_cells, bool)).losses
    eligible = np.arange(n_cells) % 2 == 0
    path = fit(cells, weight, eligible=eligible)
    changed = cells.linear.copy()
    changed[~eligible] -= 50
    same = fit(cells._replace(linear=changed), weight, eligible=eligible)
    np.testing.assert_array_equal(same.bias, path.bias)
    assert (fit(cells, weight).bias != path.bias).any()


def test_cells_with_a_label_of_their_own_teach_in_any_case(weight):
    cells, truth = make_cells(weight, labels=np.arange(300) % N_LABELS)
    nobody = np.zeros(len(truth), bool)
    path = fit(cells, weight, eligible=nobody, min_cells=1000)
    np.testing.assert_array_equal(path.weight, fit(cells, weight).weight)
    assert path.losses


def test_labels_of_too_few_cells_stay_as_they_are(weight):
    cells, _ = make_cells(weight)
    surest = select_confident(softmax(cells.logits, axis=1), SELF_TRAINING.share)
    counts = np.bincount(surest[surest < NONE])
    rare = int(counts.argmin())
    eligible = np.ones(len(surest), bool)
    eligible[np.flatnonzero(surest == rare)[4:]] = False
    path = fit(cells, weight, eligible=eligible, min_cells=5)
    moved = (path.weight != 0).any(axis=1) | (path.bias != 0)
    assert moved.tolist() == [label != rare for label in range(N_LABELS)]
    assert (fit(cells, weight, eligible=eligible, min_cells=4).bias != 0).all()


def test_an_adapter_is_scaled_as_a_whole(weight):
    cells, _ = make_cells(weight, shift=0.6)
    path = fit(cells, weight)
    half = path.times(0.5)
    np.testing.assert_allclose(
        cells.x @ half.weight.T + half.bias, (cells.x @ path.weight.T + path.bias) / 2
    )
    assert half.losses == path.losses


def test_given_labels_are_believed(weight):
    cells, truth = make_cells(weight, shift=1.0)
    given = np.where(np.arange(len(truth)) % 2, truth, NONE)
    helped = fit(cells._replace(labels=given), weight)
    alone = fit(cells, weight)
    assert accuracy(cells, truth, helped) > accuracy(cells, truth, alone)


def test_labels_weigh_alike_or_as_they_are_frequent(weight):
    cells, _ = make_cells(weight)
    rows = np.r_[np.flatnonzero(cells.logits.argmax(axis=1) == 0), :20]
    cells = QueryCells(*(part[rows] for part in cells))
    configs = [replace(SELF_TRAINING, class_weight_power=power) for power in (0.0, 1.0)]
    biases = [fit_query_path(cells, None, config).bias for config in configs]
    assert biases[0][0] - biases[0][1:].mean() > biases[1][0] - biases[1][1:].mean()


def test_one_label_or_a_handful_of_cells_teach_nothing(weight):
    cells, _ = make_cells(weight)
    one = np.flatnonzero(cells.logits.argmax(axis=1) == 0)
    for rows in (one, np.arange(9)):
        path = fit(QueryCells(*(part[rows] for part in cells)), weight)
        assert not path.losses
        assert not path.weight.any()
        assert not path.bias.any()


def test_the_surest_share_of_each_predicted_label_is_taken():
    probabilities = softmax(np.random.default_rng(0).normal(size=(200, 4)) * 2, axis=1)
    codes = select_confident(probabilities, share=0.25)
    for label in range(4):
        predicted = np.flatnonzero(probabilities.argmax(axis=1) == label)
        taken = np.flatnonzero(codes == label)
        assert len(taken) == np.ceil(0.25 * len(predicted))
        others = np.setdiff1d(predicted, taken)
        assert probabilities[taken].max(axis=1).min() >= probabilities[others].max(axis=1).max()
    assert (select_confident(probabilities, 1.0, floor=0.9) < 4).sum() == (
        probabilities.max(axis=1) >= 0.9
    ).sum()


def test_diversity_is_the_number_of_equally_frequent_labels():
    assert diversity(np.repeat(np.arange(5), 7), 9) == pytest.approx(5)
    assert diversity(np.zeros(4, dtype=int), 9) == pytest.approx(1)


def test_a_path_is_taken_by_the_cells_of_its_query_alone():
    torch.manual_seed(0)
    paths = QueryPaths(N_INPUT, N_LABELS, first_batches=[2, 5])
    for parameter in paths.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.rand(8, N_INPUT)
    batch = torch.tensor([-1, 0, 1, 2, 4, 5, 6, 99])[:, None]
    shift = paths(x, batch)
    assert not shift[:3].any()
    torch.testing.assert_close(shift[3:5], paths.paths[0](x[3:5]))
    torch.testing.assert_close(shift[5:], paths.paths[1](x[5:]))


def test_log_softmax_of_the_loss_is_stable(weight):
    cells, _ = make_cells(weight)
    huge = cells._replace(linear=cells.linear * 1e4, logits=cells.logits * 1e4)
    assert np.isfinite(log_softmax(huge.linear, axis=1)).all()
    assert np.isfinite(fit(huge, weight).losses).all()
