"""Scores of predicted labels: macro F1, report and confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from scvi_sctab.metrics._pairs import same_cells

if TYPE_CHECKING:
    from scvi_sctab._types import Names

_SCORES = ["precision", "recall", "f1"]


def f1_macro(truth: Sequence[str], predicted: Sequence[str]) -> float:
    """Compute the mean F1 over the labels that occur in the truth.

    Parameters
    ----------
    truth, predicted
        Labels, ``(n_cells,)``.

    Examples
    --------
    >>> f1_macro(["B", "B", "NK"], ["B", "NK", "NK"])
    0.6666666666666666
    """
    return float(classification_report(truth, predicted).loc["macro average", "f1"])


def classification_report(truth: Names, predicted: Names) -> pd.DataFrame:
    """Compute precision, recall, F1 and number of cells per label, and their averages.

    Parameters
    ----------
    truth, predicted
        Labels, ``(n_cells,)``; two series are matched by the names of cells.

    Returns
    -------
    A row per label that occurs in the truth, sorted, then ``macro average``,
    ``weighted average`` (by number of cells) and ``accuracy`` (in every column).
    """
    truth, predicted = same_cells(truth, predicted)
    true, guess = np.asarray(truth, dtype=str), np.asarray(predicted, dtype=str)
    labels = np.unique(true)
    columns = precision_recall_fscore_support(true, guess, labels=labels, zero_division=0)
    report = pd.DataFrame(
        dict(zip([*_SCORES, "n_cells"], columns, strict=True)),
        index=pd.Index(labels, name="label"),
    )
    scores, n_cells = report[_SCORES], report["n_cells"]
    accuracy = accuracy_score(true, guess)
    report.loc["macro average"] = [*scores.mean(), len(true)]
    report.loc["weighted average"] = [*np.average(scores, axis=0, weights=n_cells), len(true)]
    report.loc["accuracy"] = [accuracy] * 3 + [len(true)]
    return report.astype({"n_cells": int})


def confusion(truth: Sequence[str], predicted: Sequence[str]) -> pd.DataFrame:
    """Compute the share of the cells of each true label that have each predicted label.

    Parameters
    ----------
    truth, predicted
        Labels, ``(n_cells,)``.

    Returns
    -------
    True labels by predicted labels, both sorted; rows sum to one. Cells without a label have the
    label ``missing``. ``table.attrs["n_cells"]`` holds the number of cells of each row.

    Examples
    --------
    >>> table = confusion(["B", "B", "NK"], ["B", "NK", "NK"])
    >>> table.loc["B"].to_list(), table.attrs["n_cells"]
    ([0.5, 0.5], {'B': 2, 'NK': 1})
    """
    truth, predicted = same_cells(truth, predicted)
    true, guess = (_with_missing(labels) for labels in (truth, predicted))
    labels = np.union1d(true, guess)
    present = np.isin(labels, true)
    counts = np.zeros((len(labels), len(labels)), dtype=int)
    np.add.at(counts, (np.searchsorted(labels, true), np.searchsorted(labels, guess)), 1)
    counts = counts[present]
    n_cells = counts.sum(axis=1)
    table = pd.DataFrame(
        counts / n_cells[:, None],
        index=pd.Index(labels[present], name="true label"),
        columns=pd.Index(labels, name="predicted label"),
    )
    # A dictionary, since pandas compares attrs when it joins frames.
    table.attrs["n_cells"] = dict(zip(table.index, n_cells.tolist(), strict=True))
    return table


def _with_missing(labels: Sequence[str]) -> NDArray[np.str_]:
    column = pd.Series(np.asarray(labels, dtype=object))
    return column.where(column.notna(), "missing").to_numpy().astype(str)
