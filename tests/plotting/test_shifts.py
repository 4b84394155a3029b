"""The plot of shifts has a row per perturbation, grouped by latent."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from scvi_sctab.plotting import plot_shifts

EFFECTS = pd.DataFrame(
    [[0.0, 0.0, -2.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0], [5.0, 0.0, 1.0]],
    index=["STAT1", "MYC", "none", "IRF1"],
)


def image(ax):
    return ax.images[0]


def test_perturbations_of_the_same_latent_are_together_and_empty_latents_are_left_out():
    ax = plot_shifts(EFFECTS)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["IRF1", "MYC", "STAT1", "none"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "2"]
    expected = EFFECTS.loc[["IRF1", "MYC", "STAT1", "none"], [0, 2]]
    np.testing.assert_array_equal(image(ax).get_array(), expected)


def test_the_scale_of_effects_is_symmetric_and_that_of_probabilities_starts_at_0():
    assert image(plot_shifts(EFFECTS)).get_clim() == (-5, 5)
    assert image(plot_shifts((EFFECTS != 0).astype(float))).get_clim() == (0, 1)
    assert image(plot_shifts(EFFECTS > 0)).get_clim() == (0, 1)


def test_it_draws_on_given_axes():
    _, ax = plt.subplots()
    assert plot_shifts(EFFECTS, ax, label="effect") is ax
    assert ax.figure.axes[-1].get_ylabel() == "effect"


def test_a_table_of_zeros_is_drawn():
    assert image(plot_shifts(EFFECTS * 0)).get_array().shape == (4, 3)


@pytest.mark.parametrize("table", [EFFECTS.iloc[:0], EFFECTS.replace(5.0, np.nan)])
def test_nothing_to_draw_is_refused(table):
    with pytest.raises(ValueError, match="empty or has missing values"):
        plot_shifts(table)
