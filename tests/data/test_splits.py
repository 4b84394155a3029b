"""Splits by donor and by label, class weights."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from scvi_sctab.data import class_weights, split_by_donor, split_by_label, split_cells


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    return rng.choice(5, 2000, p=[0.5, 0.3, 0.15, 0.04, 0.01]), rng.integers(0, 12, 2000)


@pytest.mark.parametrize("seed", range(5))
def test_no_donor_stands_on_two_sides_and_training_has_every_label(cells, seed):
    labels, donors = cells
    parts = split_by_donor(labels, donors, (0.1, 0.2), seed)
    sides = [set(donors[part]) for part in parts]
    assert sides[0].isdisjoint(sides[1] | sides[2])
    assert sides[1].isdisjoint(sides[2])
    assert set(labels[parts[0]]) == set(range(5))
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(2000))
    assert [len(part) / 2000 for part in parts] == pytest.approx([0.7, 0.1, 0.2], abs=0.06)


def test_a_label_of_one_donor_keeps_that_donor_in_training(cells):
    labels, donors = cells
    donors[labels == 4] = 7
    for seed in range(10):
        train, validation, _ = split_by_donor(labels, donors, (0.1, 0.0), seed)
        assert 7 not in set(donors[validation])
        assert 4 in set(labels[train])


def test_splits_repeat_with_a_seed_and_differ_without(cells):
    chosen = [tuple(split_by_donor(*cells, (0.2, 0.0), seed)[1]) for seed in (3, 3, 4, 5, 6)]
    assert chosen[0] == chosen[1]
    assert len(set(chosen)) > 1


def test_donors_that_cannot_be_held_out_fall_back_on_labels_with_a_warning():
    labels = np.repeat([0, 1, 2], 20)
    with pytest.warns(UserWarning, match="No donors can be held out without losing a label"):
        train, validation, test = split_cells(labels, labels.copy(), 0.8, None, seed=0)
    assert [len(train), len(validation), len(test)] == [48, 12, 0]


def test_each_label_is_held_out_in_the_same_share_and_stays_in_training():
    labels = np.repeat([0, 1, 2], [100, 10, 2])
    train, validation = split_by_label(labels, (0.2,), seed=0)
    assert np.bincount(labels[validation], minlength=3).tolist() == [20, 2, 0]
    assert set(labels[train]) == {0, 1, 2}


def test_two_held_out_sets_of_labels_have_their_shares_and_no_cell_in_common():
    labels = np.repeat([0, 1], [100, 40])
    parts = split_by_label(labels, (0.2, 0.1), seed=0)
    assert [np.bincount(labels[part]).tolist() for part in parts] == [[70, 28], [20, 8], [10, 4]]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(140))


@pytest.mark.parametrize("seed", range(4))
def test_of_donors_near_the_share_those_with_most_labels_are_held_out(seed):
    # Donor 1 has exactly the share asked for, and donor 0, near it, one cell of a second label.
    labels = np.repeat([0, 1, 0, 0, 1], [149, 1, 100, 600, 150])
    donors = np.repeat([0, 0, 1, 2, 2], [149, 1, 100, 600, 150])
    _, validation = split_by_donor(labels, donors, (0.1,), seed)
    assert set(donors[validation]) == {0}


def test_one_cell_of_a_label_is_enough_to_train_on():
    labels, donors = np.array([1, 0, 0, 0, 2, 2, 1, 0, 0]), np.repeat([0, 1], [6, 3])
    _, validation = split_by_donor(labels, donors, (0.3,), seed=0)
    assert set(donors[validation]) == {1}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0.0, None), "not in"),
        ((1.2, None), "not in"),
        ((0.8, 0.4), "sum to more than 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(cells, sizes, message):
    with pytest.raises(ValueError, match=message):
        split_cells(*cells, *sizes, seed=0)


def test_training_on_everything_holds_out_nothing(cells):
    train, validation, test = split_cells(*cells, 1.0, None, seed=0)
    assert (len(train), len(validation), len(test)) == (2000, 0, 0)


def test_class_weights_are_sklearns_balanced_ones(cells):
    labels, _ = cells
    expected = compute_class_weight("balanced", classes=np.arange(5), y=labels)
    np.testing.assert_allclose(class_weights(labels, 5), expected, rtol=1e-6)


def test_a_power_below_one_lessens_the_differences_and_keeps_the_mean(cells):
    labels, _ = cells
    weights, counts = class_weights(labels, 5, power=0.5), np.bincount(labels)
    np.testing.assert_allclose(weights / weights[0], np.sqrt(counts[0] / counts), rtol=1e-5)
    assert weights[labels].mean() == pytest.approx(1, rel=1e-5)


def test_labels_without_a_cell_weigh_nothing():
    np.testing.assert_allclose(class_weights(np.array([0, 0, 2]), 4), [0.75, 0, 1.5, 0])


def test_large_donors_are_not_held_out_for_the_labels_they_cover():
    labels = np.concatenate([np.arange(6000) % 3, np.arange(2000) % 2, np.arange(2000) % 2 + 1])
    donors = np.repeat([0, 1, 2], [6000, 2000, 2000])
    for seed in range(5):
        train, validation, _ = split_cells(labels, donors, 0.9, None, seed)
        assert (len(train), len(validation)) == (8000, 2000)


def test_a_split_that_leaves_little_to_train_on_is_warned_about():
    labels, donors = np.arange(1000) % 2, np.repeat([0, 1], 500)
    with pytest.warns(UserWarning, match="leaves 50% of the cells to train on, not 90%"):
        split_cells(labels, donors, 0.9, None, seed=0)


def test_without_shuffling_the_last_cells_of_each_label_are_held_out():
    labels = np.repeat([0, 1], 10)
    train, validation, _ = split_cells(labels, None, 0.8, None, seed=0, shuffle=False)
    assert validation.tolist() == [8, 9, 18, 19]
    assert len(train) == 16
