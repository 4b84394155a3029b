"""Conformal prediction keeps its rate for exchangeable scores, exactly where it can be counted."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scvi_sctab.metrics import conformal_threshold, p_values, prediction_sets

RATES = st.floats(0.01, 0.99)
SCORES = hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-5, 5))


@given(SCORES, RATES)
def test_a_cell_among_its_equals_exceeds_the_threshold_at_the_rate(scores, rate):
    """Each in turn is the new cell; averaged over turns this is the coverage of a random one."""
    exceeded = [
        score > conformal_threshold(np.delete(scores, i), rate) for i, score in enumerate(scores)
    ]
    assert np.mean(exceeded) <= rate + 1e-9


@given(SCORES, RATES, RATES)
def test_a_larger_rate_lowers_the_threshold(scores, one, other):
    low, high = sorted([one, other])
    assert conformal_threshold(scores, high) <= conformal_threshold(scores, low)


@given(SCORES, RATES)
def test_p_values_of_equals_are_small_at_their_own_rate(scores, rate):
    values = [p_values([s], np.delete(scores, i))[0] for i, s in enumerate(scores)]
    assert np.mean(np.array(values) <= rate) <= rate + 1e-9
    assert min(values) > 0
    assert max(values) <= 1


@st.composite
def held_out_cells(draw):
    n_labels = draw(st.integers(1, 5))
    raw = draw(
        hnp.arrays(np.float64, (draw(st.integers(1, 30)), n_labels), elements=st.floats(0.01, 1))
    )
    codes = draw(hnp.arrays(np.int64, len(raw), elements=st.integers(0, n_labels - 1)))
    groups = draw(hnp.arrays(np.int64, len(raw), elements=st.integers(0, 2)))
    return raw / raw.sum(axis=1, keepdims=True), codes, groups


@given(held_out_cells(), RATES)
def test_sets_by_study_hold_those_without(case, rate):
    probabilities, codes, groups = case
    own = probabilities[np.arange(len(codes)), codes]
    plain = prediction_sets(probabilities, own, codes, rate)
    for kind in ({"groups": groups}, {"groups": np.zeros_like(codes)}):
        by_study = prediction_sets(probabilities, own, codes, rate, **kind)
        if np.unique(kind["groups"]).size == 1:
            np.testing.assert_array_equal(by_study, plain)
    # Among all cells, at most as many exceed the threshold of the worst study as the pooled one.
    by_study = prediction_sets(probabilities, own, codes, rate, groups=groups)
    assert (by_study | ~plain).all()
    # The cells themselves miss their label at most at the rate, in each study, too.
    hit = by_study[np.arange(len(codes)), codes]
    for study in np.unique(groups):
        assert 1 - hit[groups == study].mean() <= rate + 1e-9


@given(held_out_cells(), RATES)
def test_sets_by_label_hold_the_label_at_the_rate_in_each(case, rate):
    probabilities, codes, _ = case
    own = probabilities[np.arange(len(codes)), codes]
    sets = prediction_sets(probabilities, own, codes, rate, by_label=True)
    hit = sets[np.arange(len(codes)), codes]
    for label in np.unique(codes):
        assert 1 - hit[codes == label].mean() <= rate + 1e-9
    absent = np.setdiff1d(np.arange(probabilities.shape[1]), codes)
    assert sets[:, absent].all()
