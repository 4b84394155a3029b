"""Simulated laboratories do to counts what they say, and nothing else."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scvi_sctab.benchmark import Laboratory, simulate_laboratory

SAME = Laboratory(capture_sd=0, depth=1, ambient=0, doublet_rate=0)


@pytest.fixture(scope="module")
def cells():
    """Two types without a common gene: 60 cells of 40 genes each."""
    rng = np.random.default_rng(0)
    counts = np.zeros((120, 80), np.float32)
    counts[:60, :40] = rng.poisson(25, (60, 40))
    counts[60:, 40:] = rng.poisson(25, (60, 40))
    obs = pd.DataFrame({"label": ["a"] * 60 + ["b"] * 60}, index=[f"c{i}" for i in range(120)])
    return ad.AnnData(sparse.csr_matrix(counts), obs=obs)


def changed(**values):
    return Laboratory(**{**vars(SAME), **values})


def dense(adata):
    return adata.X.toarray()


def test_a_laboratory_that_changes_nothing_returns_the_counts(cells):
    found = simulate_laboratory(cells, SAME)
    np.testing.assert_array_equal(dense(found), dense(cells))
    assert found.obs_names.equals(cells.obs_names)
    assert not found.obs["is_doublet"].any()
    assert (found.var["capture"] == 1).all()


@pytest.mark.parametrize("depth", [0.25, 1.5, 4.0])
def test_depth_is_the_ratio_of_mean_molecules(cells, depth):
    found = simulate_laboratory(cells, changed(depth=depth))
    assert found.X.sum() / cells.X.sum() == pytest.approx(depth, rel=0.02)
    assert (dense(found) == dense(found).round()).all()


def test_capture_changes_genes_by_the_stated_spread_and_keeps_the_depth(cells):
    found = simulate_laboratory(cells, changed(capture_sd=0.6))
    ratio = dense(found).sum(axis=0) / dense(cells).sum(axis=0)
    assert np.log(ratio).std() == pytest.approx(0.6, abs=0.15)
    assert np.corrcoef(np.log(ratio), np.log(found.var["capture"]))[0, 1] > 0.99
    assert ratio.mean() == pytest.approx(1, abs=0.02)


def test_ambient_molecules_come_from_the_other_cells(cells):
    found = dense(simulate_laboratory(cells, changed(ambient=0.2)))
    np.testing.assert_array_equal(found.sum(axis=1), dense(cells).sum(axis=1))
    foreign = found[:60, 40:].sum() + found[60:, :40].sum()
    # Half of the profile is that of the other type.
    assert foreign / found.sum() == pytest.approx(0.1, abs=0.01)


def test_doublets_hold_the_molecules_of_a_second_cell(cells):
    found = simulate_laboratory(cells, changed(doublet_rate=0.3))
    added = dense(found) - dense(cells)
    doublets = found.obs["is_doublet"].to_numpy()
    assert 0.2 < doublets.mean() < 0.4
    assert not added[~doublets].any()
    known = {row.tobytes() for row in dense(cells)}
    assert all(row.tobytes() in known for row in added[doublets])


def test_lost_genes_are_not_there(cells):
    found = simulate_laboratory(cells, changed(lost_genes=0.3))
    assert 0.2 < 1 - found.n_vars / cells.n_vars < 0.4
    np.testing.assert_array_equal(dense(found), dense(cells[:, found.var_names]))


def test_a_sorted_sample_has_the_types_alone(cells):
    found = simulate_laboratory(cells, changed(types=("b",)), labels_key="label")
    assert found.obs_names.tolist() == cells.obs_names[60:].tolist()


def test_the_seed_decides_and_the_cells_stay_as_they_are(cells, tmp_path):
    before = dense(cells)
    one, same, other = (simulate_laboratory(cells, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(dense(one), dense(same))
    assert not np.array_equal(one.var_names, other.var_names) or (dense(one) != dense(other)).any()
    np.testing.assert_array_equal(dense(cells), before)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    np.testing.assert_array_equal(dense(simulate_laboratory(backed, seed=1)), dense(one))


def test_cells_without_molecules_stay_empty(cells):
    empty = cells.copy()
    empty.X = sparse.csr_matrix(cells.shape, dtype=np.float32)
    assert simulate_laboratory(empty, changed(ambient=0.2, depth=2.0)).X.sum() == 0


def test_draws_reach_from_mild_to_hard():
    drawn = [Laboratory.draw(seed, types=["a", "b", "c"]) for seed in range(200)]
    depth = np.log([one.depth for one in drawn]) / np.log(4)
    assert -1 <= depth.min() < -0.9
    assert 0.9 < depth.max() <= 1
    assert {one.capture_sd for one in drawn} == {0.3, 0.6, 1.0}
    assert max(one.ambient for one in drawn) == pytest.approx(0.2, abs=0.01)
    assert np.mean([one.types is not None for one in drawn]) == pytest.approx(1 / 3, abs=0.1)
    assert {len(one.types) for one in drawn if one.types} == {1, 2, 3}
    assert Laboratory.draw(3).types is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ambient": 1.0}, r"ambient=1\.0 is not a share"),
        ({"lost_genes": -0.1}, r"lost_genes=-0\.1 is not a share"),
        ({"depth": 0}, r"depth=0 above 0"),
        ({"capture_sd": -1}, "must be 0 or more"),
    ],
)
def test_values_that_mean_nothing_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Laboratory(**values)


def test_sorting_asks_for_labels_that_are_there(cells):
    with pytest.raises(ValueError, match="labels_key="):
        simulate_laboratory(cells, changed(types=("a",)))
    with pytest.raises(KeyError, match="labl"):
        simulate_laboratory(cells, changed(types=("a",)), labels_key="labl")
    with pytest.raises(ValueError, match="No cell has the label 'c'"):
        simulate_laboratory(cells, changed(types=("a", "c")), labels_key="label")


def test_counts_that_are_not_raw_are_refused(cells):
    scaled = cells.copy()
    scaled.X = cells.X / 3
    with pytest.raises(ValueError, match="raw counts"):
        simulate_laboratory(scaled)
