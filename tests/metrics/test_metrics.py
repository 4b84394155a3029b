"""Scores against sklearn and torchmetrics."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest, entropy
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_calibration_error

from scvi_sctab.metrics import (
    classification_report,
    confusion,
    expected_calibration_error,
    f1_macro,
    normalized_entropy,
    reliability,
)


@pytest.fixture
def labels():
    rng = np.random.default_rng(0)
    truth = rng.choice(["B", "NK", "T"], 300, p=[0.2, 0.1, 0.7])
    return truth, np.where(rng.random(300) < 0.7, truth, rng.choice(["B", "NK", "DC"], 300))


def test_averages_are_those_of_sklearn_over_the_labels_of_the_truth(labels):
    truth, predicted = labels
    report = classification_report(truth, predicted)
    present = np.unique(truth)
    for average in ("macro", "weighted"):
        expected = sk.precision_recall_fscore_support(
            truth, predicted, labels=present, average=average, zero_division=0
        )[:3]
        np.testing.assert_allclose(
            report.loc[f"{average} average", ["precision", "recall", "f1"]].astype(float), expected
        )
    assert report.loc["accuracy", "f1"] == sk.accuracy_score(truth, predicted)
    assert f1_macro(truth, predicted) == pytest.approx(
        sk.f1_score(truth, predicted, labels=present, average="macro")
    )
    assert report.loc["B", "n_cells"] == (truth == "B").sum()


def test_confusion_rows_sum_to_one_and_hold_recalls(labels):
    table = confusion(*labels)
    np.testing.assert_allclose(table.sum(axis=1), 1)
    assert list(table.index) == ["B", "NK", "T"]
    assert list(table.columns) == ["B", "DC", "NK", "T"]
    assert table.loc["B", "B"] == pytest.approx(
        sk.recall_score(*labels, labels=["B"], average="macro")
    )


def test_confusion_keeps_the_number_of_cells_of_each_row_and_names_missing_labels(labels):
    table = confusion(*labels)
    assert table.attrs["n_cells"] == pd.Series(labels[0]).value_counts().to_dict()
    truth = pd.Categorical(["B", "B", "B", None], categories=["B", "T"])
    table = confusion(truth, ["B", np.nan, pd.NA, "B"])
    assert table.attrs["n_cells"] == {"B": 3, "missing": 1}
    assert table.loc["B"].to_dict() == pytest.approx({"B": 1 / 3, "missing": 2 / 3})
    assert table.loc["missing", "B"] == 1


def test_confusion_is_that_of_sklearn(labels):
    expected = sk.confusion_matrix(*labels, normalize="true", labels=confusion(*labels).columns)
    table = confusion(*labels)
    np.testing.assert_allclose(table, expected[np.isin(table.columns, table.index)])


def test_entropy_is_scipys_over_that_of_a_uniform_guess():
    probabilities = torch.softmax(torch.randn(20, 5, dtype=torch.float64), dim=1)
    expected = entropy(probabilities.numpy(), axis=1) / np.log(5)
    np.testing.assert_allclose(normalized_entropy(probabilities), expected)


def test_calibration_error_is_that_of_torchmetrics():
    torch.manual_seed(0)
    logits, truth = torch.randn(500, 4) * 2, torch.randint(4, (500,))
    probability, predicted = logits.softmax(1).max(1)
    expected = multiclass_calibration_error(logits.softmax(1), truth, 4, n_bins=10)
    ours = expected_calibration_error(probability.numpy(), (predicted == truth).numpy())
    assert ours == pytest.approx(float(expected), abs=1e-6)


def test_bins_hold_all_cells_and_the_ends_belong_to_them():
    bins = reliability([0.0, 0.05, 0.95, 1.0], [False, True, True, True], n_bins=10)
    assert bins["n_cells"].tolist() == [2, 2]
    pd.testing.assert_series_equal(
        bins["accuracy"].reset_index(drop=True), pd.Series([0.5, 1.0], name="accuracy")
    )


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_intervals_of_bins_are_those_of_scipy(confidence):
    stated = np.r_[np.full(7, 0.1), 0.5, np.full(40, 0.9)]
    bins = reliability(stated, np.arange(48) % 3 > 0, confidence=confidence)
    for _, row in bins.iterrows():
        n = int(row["n_cells"])
        test = binomtest(round(row["accuracy"] * n), n)
        expected = test.proportion_ci(confidence, method="wilson")
        assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))


def test_what_is_not_a_probability_is_refused():
    with pytest.raises(ValueError, match=r"not in \[0, 1\]: 1.2 of cell 1, as of 1 of 2 cells"):
        reliability([0.5, 1.2], [True, True])
    with pytest.raises(ValueError, match=r"not in \[0, 1\]: nan of cell 0"):
        reliability([np.nan], [True])


def test_cells_of_which_nobody_knows_whether_they_are_right_are_refused():
    with pytest.raises(ValueError, match=r"for 2 of 3 cells.*keep = ~pandas\.isna\(correct\)"):
        reliability([0.5, 0.5, 0.5], [True, None, np.nan])


def test_series_of_the_same_cells_are_matched_by_name(labels):
    truth, predicted = (pd.Series(x, [f"c{i}" for i in range(300)]) for x in labels)
    shuffled = predicted.sample(frac=1, random_state=0)
    expected = classification_report(*labels)
    pd.testing.assert_frame_equal(classification_report(truth, shuffled), expected)
    pd.testing.assert_frame_equal(confusion(truth, shuffled), confusion(*labels))
    stated = pd.Series(np.linspace(0, 1, 300), truth.index)
    right = (truth == predicted).sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(
        reliability(stated, right), reliability(stated.to_numpy(), labels[0] == labels[1])
    )
    numbered = predicted.reset_index(drop=True)
    pd.testing.assert_frame_equal(classification_report(truth, numbered), expected)


def test_series_of_different_cells_are_refused(labels):
    truth, predicted = (pd.Series(x, [f"c{i}" for i in range(300)]) for x in labels)
    for other in (predicted[:-1], predicted.rename("x{}".format)):
        with pytest.raises(ValueError, match="tables are of different cells: 300 rows.*'c0'"):
            classification_report(truth, other)
