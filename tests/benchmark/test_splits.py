"""Donors stay whole, every one is tried once, parts are nested."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scvi_sctab.benchmark import (
    assign_donors,
    donor_tasks,
    partial_labels,
    subsample_cells,
    subsample_donors,
)


@pytest.fixture
def donors():
    sizes = {"a": 50, "b": 7, "c": 31, "d": 20, "e": 3, "f": 12, "g": 12}
    names = np.repeat([*sizes], [*sizes.values()])
    return np.random.default_rng(0).permutation(names)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_splits", [2, 3, 7])
def test_no_donor_is_on_both_sides_and_each_is_tried_once(donors, n_splits, seed):
    adata = AnnData(np.ones((len(donors), 1)), obs=pd.DataFrame({"donor": donors}).rename(str))
    adata.obs["label"] = "B"
    tasks = donor_tasks(adata, "label", "donor", n_splits, seed)
    assert len({task.name for task in tasks}) == n_splits
    splits = [task.load(0) for task in tasks]
    for split in splits:
        sides = set(split.reference.obs["donor"]), set(split.query.obs["donor"])
        assert not sides[0] & sides[1]
        assert sides[0] | sides[1] == set(donors)
    tried = np.concatenate([split.query.obs_names for split in splits])
    assert sorted(tried) == sorted(adata.obs_names)


def test_parts_differ_by_a_donor_at_most(donors):
    for seed in range(20):
        sizes = np.bincount(assign_donors(donors, 3, seed))
        assert sizes.max() - sizes.min() <= 50
        assert sizes.min() > 0


def test_parts_depend_on_the_seed_and_not_on_the_order_of_cells(donors):
    order = np.random.default_rng(1).permutation(len(donors))
    parts = assign_donors(donors, 3, seed=5)
    np.testing.assert_array_equal(assign_donors(donors[order], 3, seed=5), parts[order])
    assert any((assign_donors(donors, 3, seed) != parts).any() for seed in range(5))


@pytest.mark.parametrize("n_splits", [1, 8])
def test_more_parts_than_donors_are_refused(donors, n_splits):
    with pytest.raises(ValueError, match=rf"n_splits={n_splits} is not from 2 to 7"):
        assign_donors(donors, n_splits)


@pytest.mark.parametrize("missing", [None, np.nan])
def test_cells_without_a_donor_are_refused(missing):
    with pytest.raises(ValueError, match=r"1 of 3 cells have no donor"):
        assign_donors(["a", missing, "b"], 2)


def test_a_column_that_does_not_exist_is_named():
    with pytest.raises(KeyError, match=r"donor_key='donor' is not a column"):
        donor_tasks(AnnData(np.ones((3, 1))), "label", "donor")


def test_shares_of_donors_are_nested_and_whole(donors):
    before: set[int] = set()
    for fraction, n_donors in [(0.1, 1), (0.3, 3), (4 / 7, 4), (1.0, 7)]:
        cells = subsample_donors(donors, fraction, seed=2)
        kept = set(donors[cells])
        assert len(kept) == n_donors
        np.testing.assert_array_equal(cells, np.flatnonzero(np.isin(donors, [*kept])))
        assert before <= set(cells)
        before = set(cells)


def test_shares_of_cells_are_nested():
    parts = [subsample_cells(100, fraction, seed=2) for fraction in (0.005, 0.07, 0.5, 1)]
    assert [len(part) for part in parts] == [1, 7, 50, 100]
    for smaller, larger in zip(parts, parts[1:], strict=False):
        assert set(smaller) <= set(larger)
        assert (np.diff(larger) > 0).all()
    assert set(parts[1]) != set(subsample_cells(100, 0.07, seed=3))


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1, np.nan])
def test_shares_that_cannot_be_are_refused(fraction):
    with pytest.raises(ValueError, match=r"is not in \(0, 1\]"):
        subsample_cells(10, fraction)


def test_few_labels_are_drawn_of_each_type_among_the_cells_of_a_donor(donors):
    labels = np.resize(["B", "B", "T", "unknown"], len(donors))
    one = donors == "a"
    few = partial_labels(labels, 3, seed=1, among=one)
    kept = few != "unknown"
    assert pd.Series(few[kept]).value_counts().to_dict() == {"B": 3, "T": 3}
    assert one[kept].all()
    assert (few[kept] == labels[kept]).all()
    np.testing.assert_array_equal(few, partial_labels(labels, 3, seed=1, among=one))
    assert (few != partial_labels(labels, 3, seed=2, among=one)).any()
    np.testing.assert_array_equal(partial_labels(labels, 1000), labels)
