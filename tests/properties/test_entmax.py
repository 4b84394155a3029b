"""1.5-entmax and sparsemax are projections onto the simplex that keep the order of scores."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scvi_sctab.nn import entmax15, sparsemax

SCORES = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(1, 12)),
    elements=st.floats(-30, 30),
)


@pytest.mark.parametrize("project", [entmax15, sparsemax])
@given(scores=SCORES)
def test_rows_are_probabilities_in_the_order_of_the_scores(project, scores):
    p = project(torch.from_numpy(scores)).numpy()
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-9)
    order = np.argsort(scores, axis=1)
    ordered = np.take_along_axis(p, order, axis=1)
    assert (np.diff(ordered, axis=1) >= -1e-12).all()


@pytest.mark.parametrize(("project", "power"), [(entmax15, 2), (sparsemax, 1)])
@given(scores=SCORES)
def test_one_threshold_explains_a_row(project, power, scores):
    """The definition: ``p = [z / power - tau]_+ ** power`` with one tau per row."""
    p = project(torch.from_numpy(scores)).numpy()
    for row, scaled in zip(p, scores / power, strict=True):
        on = row > 1e-12
        tau = scaled[on] - row[on] ** (1 / power)
        np.testing.assert_allclose(tau, tau[0], atol=1e-6)
        assert (scaled[~on] <= tau[0] + 1e-5).all()


@pytest.mark.parametrize("project", [entmax15, sparsemax])
@given(scores=SCORES, shift=st.floats(-50, 50))
def test_a_common_shift_changes_nothing(project, scores, shift):
    one, other = (project(torch.from_numpy(s)).numpy() for s in (scores, scores + shift))
    np.testing.assert_allclose(one, other, atol=1e-7)
