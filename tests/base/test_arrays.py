"""Choices of cells."""

import numpy as np
import scvi

from scvi_sctab.base import draw_cells
from scvi_sctab.base._arrays import spread_cells


def test_cells_are_drawn_once_in_their_order_by_the_seed():
    cells = np.arange(100, 400, 3)
    drawn = draw_cells(cells, 20)
    assert len(drawn) == 20
    assert (np.diff(drawn) > 0).all()
    assert np.isin(drawn, cells).all()
    np.testing.assert_array_equal(draw_cells(cells, 20), drawn)
    scvi.settings.seed = 1
    assert not np.array_equal(draw_cells(cells, 20), drawn)
    assert draw_cells(cells, 100) is cells


def test_runs_of_cells_are_spread_over_all():
    assert spread_cells(50, 8, 8).tolist() == list(range(50))
    cells = spread_cells(10_000, 8, 16)
    assert len(cells) == 128
    assert len(np.unique(cells)) == 128
    runs = np.split(cells, np.flatnonzero(np.diff(cells) > 1) + 1)
    assert [len(run) for run in runs] == [16] * 8
    assert cells.min() < 100
    assert 9_900 < cells.max() < 10_000
