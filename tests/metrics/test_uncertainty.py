"""Scaling, conformal sets, p-values, distances and shift, against formulas and simulations."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import mahalanobis
from scipy.special import log_softmax, softmax
from scipy.stats import ks_2samp, kstest
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

from scvi_sctab.metrics import (
    Calibration,
    CellLogits,
    Scaling,
    conformal_threshold,
    distance_to_centers,
    fit_centers,
    fit_scaling,
    p_values,
    prediction_sets,
    shift_test,
)

N_LABELS = 4


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def draw_cells(rng, n_cells):
    """Logits that are calibrated by construction: labels are drawn from them."""
    logits = 2 * rng.normal(size=(n_cells, N_LABELS))
    cumulative = softmax(logits, axis=1).cumsum(axis=1)
    return logits, (rng.random((n_cells, 1)) > cumulative).sum(axis=1)


def likelihood(logits, labels):
    return log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()


def test_the_temperature_undoes_a_scaling_of_the_logits(rng):
    logits, labels = draw_cells(rng, 20_000)
    scaling = fit_scaling(3 * logits, labels)
    assert scaling.temperature == pytest.approx(3, rel=0.03)
    assert not scaling.bias.any()


def test_no_other_temperature_is_likelier(rng):
    logits, labels = draw_cells(rng, 500)
    temperature = fit_scaling(2.5 * logits, labels).temperature
    best = likelihood(2.5 * logits / temperature, labels)
    grid = [likelihood(2.5 * logits / t, labels) for t in np.linspace(0.5, 6, 200)]
    assert best >= max(grid) - 1e-9


def test_caution_raises_the_temperature_by_its_standard_error(rng):
    draws = [draw_cells(rng, 300) for _ in range(200)]
    fitted = np.log([fit_scaling(2 * logits, labels).temperature for logits, labels in draws])
    raised = np.log([fit_scaling(2 * x, y, caution=1.0).temperature for x, y in draws[:20]])
    assert np.mean(raised - fitted[:20]) == pytest.approx(fitted.std(), rel=0.2)
    twice = np.log(fit_scaling(2 * draws[0][0], draws[0][1], caution=2.0).temperature)
    assert twice - fitted[0] == pytest.approx(2 * (raised[0] - fitted[0]))


def test_caution_does_not_blow_up_where_any_temperature_does():
    scaling = fit_scaling(np.zeros((10, 3)), np.zeros(10, int), caution=1.0)
    assert np.isfinite(scaling.temperature)


def test_vector_scaling_follows_how_frequent_labels_are(rng):
    logits, labels = draw_cells(rng, 20_000)
    bias = np.array([1.5, 0.0, -1.0, 0.0])
    found = fit_scaling(logits - bias, labels, "vector").bias
    np.testing.assert_allclose(found - found[1], bias, atol=0.15)
    few = fit_scaling((logits - bias)[:10], labels[:10], "vector").bias
    assert np.abs(few).max() < 0.5  # ridge: ten cells prove little


FREQUENCIES = np.array([0.6, 0.3, 0.08, 0.02])


def log_odds(values):
    return values - values.mean()


def draw_unequal_cells(rng, n_cells, signal=1.5):
    """Logits of a network that was taught that labels are as frequent as each other."""
    labels = rng.choice(N_LABELS, n_cells, p=FREQUENCIES)
    seen = signal * np.eye(N_LABELS)[labels] + rng.normal(size=(n_cells, N_LABELS))
    return signal * seen, labels  # log-likelihoods, up to a constant


def test_the_prior_is_found_where_class_weights_hid_it(rng):
    logits, labels = draw_unequal_cells(rng, 20_000)
    counts = np.round(1e6 * FREQUENCIES)
    scaling = fit_scaling(2 * logits, labels, "prior", counts)
    np.testing.assert_allclose(scaling.bias, log_odds(np.log(FREQUENCIES)), rtol=0.1)
    assert scaling.temperature == pytest.approx(2, rel=0.05)
    # Without counts it is the labels that tell.
    by_labels = fit_scaling(2 * logits, labels, "prior").bias
    np.testing.assert_allclose(by_labels, scaling.bias, atol=0.1)
    # A network that knows the prior is not told it twice.
    known = fit_scaling(logits + np.log(FREQUENCIES), labels, "prior", counts)
    assert np.abs(known.bias).max() < 0.1
    # None is told more than there is, nor that rare labels are frequent.
    most = fit_scaling(logits - np.log(FREQUENCIES), labels, "prior", counts).bias
    np.testing.assert_allclose(most, log_odds(np.log(FREQUENCIES)), rtol=1e-3)
    assert not fit_scaling(logits + 3 * np.log(FREQUENCIES), labels, "prior", counts).bias.any()


@pytest.mark.parametrize("method", ["temperature", "prior"])
def test_labels_stay_what_they_are(rng, method):
    logits, labels = draw_unequal_cells(rng, 5_000, signal=2.0)
    p = fit_scaling(logits, labels, method).probabilities(logits)
    np.testing.assert_array_equal(p.argmax(axis=1), logits.argmax(axis=1))
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    first, second = np.sort(p, axis=1)[:, ::-1].T[:2]
    assert (first > second).all()


def test_knowing_the_prior_says_more_of_cells_without_moving_labels(rng):
    logits, labels = draw_unequal_cells(rng, 20_000, signal=2.0)
    rows, likely, told = np.arange(10_000), {}, {}
    for method in ("temperature", "prior"):
        p = fit_scaling(logits[::2], labels[::2], method).probabilities(logits[1::2])
        likely[method] = np.log(p[rows, labels[1::2]]).mean()
        right = p.argmax(axis=1) == labels[1::2]
        told[method] = roc_auc_score(right, p.max(axis=1))
    assert likely["prior"] > likely["temperature"] + 0.1
    assert told["prior"] > told["temperature"] + 0.05


def test_probabilities_follow_the_prior_where_it_does_not_move_the_label():
    scaling = Scaling(2.0, np.log([0.75, 0.25]))
    logits = np.array([[1.0, 0.0], [0.0, 8.0], [0.0, 0.2]])
    p = scaling.probabilities(logits)
    expected = softmax(logits / 2 + np.log([0.75, 0.25]), axis=1)
    np.testing.assert_allclose(p[:2], expected[:2], rtol=1e-3)
    np.testing.assert_allclose(p[2], [0.5, 0.5], atol=1e-3)
    assert p[2].argmax() == 1
    moved = scaling._replace(moves_labels=True).probabilities(logits)
    np.testing.assert_allclose(moved, expected, rtol=1e-6)
    # A label that came later has no bias; no cells are no probabilities.
    wider = scaling.probabilities(np.array([[3.0, 0.0, 0.5]]))
    bias = np.append(np.log([0.75, 0.25]), 0)
    np.testing.assert_allclose(wider[0], softmax(np.array([1.5, 0, 0.25]) + bias), rtol=1e-6)
    assert scaling.probabilities(np.zeros((0, 2))).shape == (0, 2)


def test_scaling_refuses_what_it_cannot_fit():
    with pytest.raises(ValueError, match="no cell to fit the calibration"):
        fit_scaling(np.zeros((0, 3)), [])
    with pytest.raises(ValueError, match="method='isotonic' is none of 'temperature', 'prior'"):
        fit_scaling(np.zeros((2, 3)), [0, 1], "isotonic")
    with pytest.raises(ValueError, match=r"counts are \(2,\), not one for each of the 3 labels"):
        fit_scaling(np.zeros((2, 3)), [0, 1], "prior", [1, 1])


@pytest.mark.parametrize("error_rate", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("by_label", [False, True])
def test_sets_miss_the_truth_as_often_as_stated(rng, error_rate, by_label):
    missed = []
    for _ in range(40):
        logits, labels = draw_cells(rng, 800)
        probabilities = softmax(1.7 * logits, axis=1)  # not calibrated, which does not matter
        true = probabilities[np.arange(800), labels]
        sets = prediction_sets(probabilities[400:], true[:400], labels[:400], error_rate, by_label)
        hit = sets[np.arange(400), labels[400:]]
        missed.append([1 - hit[labels[400:] == k].mean() for k in range(N_LABELS)])
    missed = np.mean(missed, axis=0)
    spread = 4 * np.sqrt(error_rate / (40 * 100))
    if by_label:
        np.testing.assert_allclose(missed, error_rate, atol=spread + 0.01)
    else:
        assert missed.mean() == pytest.approx(error_rate, abs=spread / 2 + 0.005)


def test_sets_grow_as_the_error_rate_falls(rng):
    logits, labels = draw_cells(rng, 400)
    probabilities = softmax(logits, axis=1)
    true = probabilities[np.arange(400), labels]
    sets = [prediction_sets(probabilities, true, labels, rate) for rate in (0.4, 0.2, 0.05)]
    assert all((small <= large).all() for small, large in zip(sets, sets[1:], strict=False))
    assert sets[0].sum() < sets[2].sum()


def test_the_threshold_is_the_rank_of_the_definition():
    scores = np.arange(1, 10) / 10  # nine cells: the tenth rank of ten is beyond them
    assert conformal_threshold(scores, 0.1) == 0.9
    assert conformal_threshold(scores, 0.5) == 0.5
    assert conformal_threshold(scores, 0.09) == np.inf
    for rate in (0, 1, -0.1):
        with pytest.raises(ValueError, match="not between 0 and 1"):
            conformal_threshold(scores, rate)


def test_a_label_without_held_out_cells_is_in_every_set():
    sets = prediction_sets(np.array([[0.9, 0.1, 0.0]]), [0.8] * 50, [0] * 50, 0.1, by_label=True)
    assert sets.tolist() == [[True, True, True]]
    assert prediction_sets(np.array([[0.9, 0.1, 0.0]]), [0.8] * 50, [0] * 50, 0.1).sum() == 1


def test_p_values_of_exchangeable_cells_are_uniform_and_never_too_small(rng):
    p = p_values(rng.normal(size=1000), rng.normal(size=100_000))
    assert kstest(p, "uniform").pvalue > 0.01
    ranks = p_values([0.0, 1.0, 1.0, 2.0], [1.0, 1.0, 3.0])
    np.testing.assert_allclose(ranks, [1, 1, 1, 0.5])


def test_distances_are_those_of_mahalanobis_to_the_nearest_center(rng):
    features = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 3))
    labels = rng.choice([0, 2], 200)  # code 1 has no cell
    features[labels == 2] += 3
    centers = {k: features[labels == k].mean(axis=0) for k in (0, 2)}
    within = features - np.stack([centers[k] for k in labels])
    precision = LedoitWolf(assume_centered=True).fit(within).precision_
    expected = [min(mahalanobis(x, c, precision) for c in centers.values()) for x in features]
    found = distance_to_centers(features, fit_centers(features, labels))
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_a_constant_feature_does_not_break_the_distance(rng):
    features = np.column_stack([rng.normal(size=(50, 2)), np.ones(50)])
    distance = distance_to_centers(features, fit_centers(features, np.zeros(50, int)))
    assert np.isfinite(distance).all()
    assert distance.max() < 10
    with pytest.raises(ValueError, match="no cell to fit the centers"):
        fit_centers(np.zeros((0, 2)), [])


def frame(labels, values):
    return pd.DataFrame({"label": labels, "statistic": values})


def test_other_frequencies_of_labels_are_no_shift(rng):
    def cells(n, share):
        labels = (rng.random(n) < share).astype(int)
        return frame(labels, rng.normal(size=n) + 3 * labels)

    held_out = cells(3000, 0.2)
    plain = ks_2samp(cells(3000, 0.8)["statistic"], held_out["statistic"]).statistic
    table = shift_test(cells(3000, 0.8), held_out)
    assert plain > 0.4
    assert not table["shifted"].any()
    assert table.loc["statistic", "distance"] < 0.1


def test_other_values_are_a_shift_if_there_are_cells_enough_to_tell(rng):
    held_out = frame(np.zeros(500, int), rng.normal(size=500))
    moved = frame(np.zeros(500, int), rng.normal(size=500) + 1)
    table = shift_test(moved, held_out)
    assert table["shifted"].all()
    expected = ks_2samp(moved["statistic"], held_out["statistic"]).statistic
    assert table.loc["statistic", "distance"] == pytest.approx(expected)
    assert not shift_test(moved[:4], held_out)["shifted"].any()
    assert shift_test(moved.assign(label=1), held_out)["shifted"].all()  # no label in common
    with pytest.raises(ValueError, match="no cell to compare"):
        shift_test(moved[:0], held_out)


def test_the_shift_test_rarely_cries_wolf(rng):
    shifted = 0
    for _ in range(300):
        held_out, same = rng.normal(size=60), rng.normal(size=80)
        table = shift_test(
            frame(np.zeros(80, int), same), frame(np.zeros(60, int), held_out), tolerance=0
        )
        shifted += table["shifted"].any()
    assert shifted <= 9  # one in a hundred is stated


@pytest.fixture
def calibration(rng):
    logits, labels = draw_cells(rng, 600)
    evidence = CellLogits(*[2 * logits] * 3)
    centers = fit_centers(evidence.features[:300], labels[:300])
    return Calibration.fit(centers, evidence.take(np.arange(300, 600)), labels[300:])


@pytest.mark.parametrize("n_cells", [50, 500])
@pytest.mark.parametrize("margin", [1.0, 30.0])
def test_cells_that_are_all_right_do_not_make_others_certain(n_cells, margin):
    labels = np.arange(n_cells) % 4
    logits = margin * np.eye(4)[labels]
    sure = fit_scaling(logits, labels).probabilities(logits).max()
    stated = fit_scaling(logits, labels, n_doubtful=1.0).probabilities(logits).max()
    assert 1 - sure < 1e-3 / n_cells
    # Of one more cell than these and one before, one was wrong.
    assert 1 - stated == pytest.approx(1 / (n_cells + 2), rel=2.1)


def test_a_calibration_is_cautious(calibration, rng):
    logits, labels = draw_cells(rng, 300)
    centers = calibration.centers
    found = Calibration.fit(centers, CellLogits(*[logits] * 3), labels).scaling
    cautious = fit_scaling(logits, labels, "prior", caution=1.0, n_doubtful=1.0)
    assert found.temperature == cautious.temperature
    assert found.temperature > fit_scaling(logits, labels, "prior").temperature


def test_a_calibration_knows_how_frequent_labels_are(calibration, rng):
    logits, labels = draw_unequal_cells(rng, 2_000)
    evidence, counts = CellLogits(*[logits] * 3), np.array([1000, 10, 100, 10])
    found = Calibration.fit(calibration.centers, evidence, labels, counts=counts).scaling
    expected = fit_scaling(logits, labels, "prior", counts, caution=1.0, n_doubtful=1.0)
    np.testing.assert_array_equal(found.bias, expected.bias)
    assert not np.allclose(found.bias, fit_scaling(logits, labels, "prior").bias, atol=0.1)


@pytest.mark.parametrize("moves_labels", [False, True])
def test_a_calibration_is_the_same_after_saving(calibration, rng, moves_labels):
    bias = np.array([2.0, 0.0, -1.0, 0.0])  # enough to move labels, if it may
    scaling = calibration.scaling._replace(bias=bias, moves_labels=moves_labels)
    calibration = replace(calibration, scaling=scaling)
    again = Calibration.from_dict(calibration.to_dict())
    logits = rng.normal(size=(50, N_LABELS))
    evidence = CellLogits(logits, logits, logits)
    probabilities = calibration.probabilities(evidence)
    np.testing.assert_array_equal(again.probabilities(evidence), probabilities)
    np.testing.assert_array_equal(again.novelty(evidence), calibration.novelty(evidence))
    np.testing.assert_array_equal(
        again.sets(probabilities, 0.2), calibration.sets(probabilities, 0.2)
    )
    described = calibration.describe(evidence)
    pd.testing.assert_frame_equal(again.shift(described), calibration.shift(described))


def test_labels_that_came_later_are_not_called_novel(calibration, rng):
    logits = rng.normal(size=(50, N_LABELS))
    later = np.column_stack([logits, np.where(np.arange(50) < 20, 20, -20)])
    before = CellLogits(logits, logits, logits)
    after = CellLogits(later, later, later)
    assert calibration.probabilities(after).shape == (50, N_LABELS + 1)
    pd.testing.assert_frame_equal(calibration.describe(after), calibration.describe(before))
    p = calibration.novelty(after)
    assert np.isnan(p[:20]).all()
    np.testing.assert_array_equal(p[20:], calibration.novelty(before)[20:])


def test_a_label_that_was_rare_does_not_outweigh_the_others(rng):
    held_out = frame(np.repeat([0, 1], [990, 10]), np.repeat([0.0, 5.0], [990, 10]))
    cells = frame(np.repeat([0, 1], [500, 500]), np.repeat([0.0, 5.0], [500, 500]))
    # Ten cells with the weight of 500 would match exactly; they count ten times each at most.
    assert shift_test(cells, held_out, tolerance=0).loc["statistic", "distance"] > 0.2


def logits_of(values):
    values = np.asarray(values, np.float32)
    return CellLogits(values, values, values)


@pytest.fixture
def calibrated():
    """A calibration on 400 cells of three labels, and the logits of these cells."""
    rng = np.random.default_rng(0)
    codes = rng.integers(3, size=400)
    logits = rng.normal(size=(400, 3)) + 3 * np.eye(3)[codes]
    cells = logits_of(logits)
    return Calibration.fit(fit_centers(cells.features, codes), cells, codes), cells


def test_sets_of_cells_like_the_held_out_ones_stay_as_they_are(calibrated):
    calibration, cells = calibrated
    assert calibration.for_query(cells).widening == 1
    sure = logits_of(cells.logits * 2)
    assert calibration.for_query(sure).widening == 1


def test_sets_grow_with_the_entropy_of_the_query(calibrated):
    calibration, cells = calibrated
    unsure = logits_of(cells.logits / 2)
    wide = calibration.for_query(unsure)
    soft = calibration.probabilities(unsure)
    entropy = -(soft * np.log(soft)).sum(axis=1).mean()
    assert wide.widening == pytest.approx(entropy / calibration.entropy, rel=1e-5)
    narrow_sets, sets = calibration.sets(soft, 0.1), wide.sets(soft, 0.1)
    assert (sets | ~narrow_sets).all()
    hit = np.arange(400), calibration.truth
    assert narrow_sets[hit].mean() < 0.8
    assert sets[hit].mean() > 0.9
    assert wide.sets(soft, 0.1, by_label=True).sum() > calibration.sets(soft, 0.1, True).sum()


def test_the_logits_before_adaptation_decide(calibrated):
    calibration, cells = calibrated
    adapted = CellLogits(cells.logits * 5, cells.logits / 2, cells.features)
    assert (
        calibration.for_query(adapted).widening
        == calibration.for_query(logits_of(cells.logits / 2)).widening
    )


def test_labels_added_by_the_query_do_not_count(calibrated):
    calibration, cells = calibrated
    more = logits_of(np.hstack([cells.logits, np.full((400, 1), 9.0)]))
    assert calibration.for_query(more).widening == 1


def test_without_cells_or_a_known_entropy_nothing_changes(calibrated):
    calibration, cells = calibrated
    assert calibration.for_query(cells.take([])) is calibration
    assert calibration.for_query(logits_of(cells.logits[:50] / 9)).widening > 1
    assert calibration.for_query(logits_of(cells.logits[:49] / 9)) is calibration
    old = calibration.to_dict()
    del old["entropy"]
    early = Calibration.from_dict(old)
    assert early.for_query(logits_of(cells.logits / 9)).widening == 1
    # Nothing new is in what the digest of its model is made from.
    assert early.to_dict().keys() == old.keys()


def farther(cells, factor):
    """Move cells away from all centers by a factor, with the same logits."""
    center = cells.features.mean(axis=0)
    return replace(cells, features=center + factor * (cells.features - center))


def test_cells_that_are_all_farther_are_no_more_novel_than_held_out_ones(calibrated):
    calibration, cells = calibrated
    far = farther(cells, 1.4)
    before = (calibration.novelty(far) <= 0.05).mean()
    after = (calibration.for_query(far).novelty(far) <= 0.05).mean()
    assert before > 0.15
    assert after < 0.08
    # The order of the cells stays.
    one, other = calibration._distance(far), calibration.for_query(far)._distance(far)
    np.testing.assert_allclose(other / one, (other / one)[0])


def test_new_cells_are_novel_among_cells_that_are_all_farther(calibrated):
    calibration, cells = calibrated
    far = farther(cells, 1.4)
    features = far.features.copy()
    features[:80] += 20
    mixed = replace(far, features=features)
    novel = calibration.for_query(mixed).novelty(mixed) <= 0.05
    assert novel[:80].all()
    assert novel[80:].mean() < 0.08


def test_cells_of_another_tissue_stay_novel(calibrated):
    calibration, cells = calibrated
    other = replace(cells, features=cells.features + 30)
    assert (calibration.for_query(other).novelty(other) <= 0.05).all()


def test_nearer_cells_and_few_cells_keep_their_p_values(calibrated):
    calibration, cells = calibrated
    codes = cells.logits.argmax(axis=1)
    means = np.stack([cells.features[codes == code].mean(axis=0) for code in range(3)])[codes]
    nearer = replace(cells, features=means + 0.3 * (cells.features - means))
    for some in (nearer, farther(cells, 1.4).take(np.arange(49))):
        expected = calibration.novelty(some)
        np.testing.assert_array_equal(calibration.for_query(some).novelty(some), expected)


def test_held_out_cells_without_any_doubt_give_a_finite_factor():
    codes = np.arange(60) % 2
    cells = logits_of(500.0 * np.eye(2)[codes])
    calibration = Calibration.fit(fit_centers(cells.features, codes), cells, codes, "temperature")
    factor = calibration.for_query(logits_of(cells.logits / 100)).widening
    assert 1 <= factor < np.inf


def test_the_rate_is_kept_within_the_worst_study():
    held_out = np.r_[np.linspace(0.5, 1, 99), np.linspace(0, 1, 99)]
    study = np.repeat([0, 1], 99)
    soft = np.array([[0.7], [0.3], [0.05]])
    args = (soft, held_out, np.zeros(198, int), 0.1)
    assert prediction_sets(*args).ravel().tolist() == [True, True, False]
    assert prediction_sets(*args, groups=study).ravel().tolist() == [True, True, False]
    assert prediction_sets(np.array([[0.12]]), *args[1:]).item() is False
    assert prediction_sets(np.array([[0.12]]), *args[1:], groups=study).item() is True
