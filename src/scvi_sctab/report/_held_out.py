"""Held-out cells: reliability of their probabilities, and their confusions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scvi_sctab.metrics import expected_calibration_error, reliability
from scvi_sctab.report._pairs import confusable_pairs
from scvi_sctab.report._report import Confusion, ReliabilityBin
from scvi_sctab.report._training_report import ConfusedPair, ConfusionTable, HeldOut

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_CONFUSION = 0.05
"""Smallest share of confused cells that is listed."""
_MAX_CONFUSIONS = 8
_MAX_LABELS = 24
_MAX_PAIRS = 12
_REST = "other labels"


def describe_held_out(probability: NDArray[np.floating], right: NDArray[np.bool_]) -> HeldOut:
    """Describe the reliability of probabilities.

    Parameters
    ----------
    probability
        Probability of the predicted label of each cell, ``(n_cells,)``.
    right
        Whether it is the true one, ``(n_cells,)``.
    """
    stated, correct = list(np.clip(np.asarray(probability, float), 0, 1)), list(right)
    bins = reliability(stated, correct)
    return HeldOut(
        n_held_out=len(correct),
        accuracy=float(np.mean(correct)),
        calibration_error=expected_calibration_error(stated, correct),
        bins=tuple(
            ReliabilityBin(row.probability, row.accuracy, int(row.n_cells), row.low, row.high)
            for row in bins.itertuples()
        ),
    )


def list_confusions(truth: Sequence[str], predicted: Sequence[str]) -> tuple[Confusion, ...]:
    """List the labels that cells of another label got most often.

    Parameters
    ----------
    truth, predicted
        Labels, ``(n_cells,)``.

    Returns
    -------
    At most eight, each of 5 % or more of the cells of the true label.
    """
    frame = pd.DataFrame({"truth": list(truth), "predicted": list(predicted)})
    sizes = frame["truth"].value_counts()
    wrong = frame[frame["truth"] != frame["predicted"]]
    counts = wrong.groupby(["truth", "predicted"]).size()
    rows = [
        Confusion(str(one), str(other), int(n), float(n / sizes[one]))
        for (one, other), n in counts.items()
        if n / sizes[one] >= MIN_CONFUSION
    ]
    rows.sort(key=lambda row: (-row.share, row.truth))
    return tuple(rows[:_MAX_CONFUSIONS])


def tabulate_confusion(truth: Sequence[str], predicted: Sequence[str]) -> ConfusionTable:
    """Count cells by true and predicted label, the most frequent labels first.

    Parameters
    ----------
    truth, predicted
        Labels, ``(n_cells,)``.

    Returns
    -------
    All labels, if there are at most 24; else the 24 with the most errors, and the rest as one.
    """
    true, guess = pd.Series(list(truth), dtype=str), pd.Series(list(predicted), dtype=str)
    wrong = true != guess
    sizes = true.value_counts().add(0 * guess.value_counts(), fill_value=0)
    errors = true[wrong].value_counts().add(guess[wrong].value_counts(), fill_value=0)
    order = sorted(sizes.index, key=lambda name: (-errors.get(name, 0), -sizes[name], name))
    kept = sorted(order[:_MAX_LABELS], key=lambda name: (-sizes[name], name))
    rest = _name_rest(order) if len(order) > len(kept) else None
    names = kept if rest is None else [*kept, rest]
    place = {name: i for i, name in enumerate(kept)}
    codes = [[place.get(name, len(kept)) for name in column] for column in (true, guess)]
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, tuple(codes), 1)
    there = [i for i in range(len(names)) if counts[i].any()]
    return ConfusionTable(
        labels=tuple(names[i] for i in there),
        columns=tuple(names),
        n_cells=tuple(int(counts[i].sum()) for i in there),
        counts=tuple(tuple(int(n) for n in counts[i]) for i in there),
        rest=rest,
    )


def _name_rest(labels: Sequence[str]) -> str:
    """Return a name for the other labels that is none of a label."""
    name = _REST
    while name in labels:
        name = f"all {name}"
    return name


def confused_pairs(
    frame: pd.DataFrame, truth: Sequence[str], labels: Sequence[str]
) -> tuple[ConfusedPair, ...]:
    """List pairs of labels that cannot be learnt apart, by held-out cells.

    Parameters
    ----------
    frame
        A row per held-out cell: ``label``, and ``prediction_set`` if the model is calibrated.
    truth
        True labels, in the same order.
    labels
        Labels of the model.

    Returns
    -------
    At most 12 pairs: those that share prediction sets and those that are confused, the largest
    share of confused cells first.
    """
    true, guess = (
        pd.Series(list(truth), dtype=str),
        frame["label"].astype(str).reset_index(drop=True),
    )
    sizes = true.value_counts()
    wrong = true != guess
    confused = pd.Series(
        [tuple(sorted(pair)) for pair in zip(true[wrong], guess[wrong], strict=True)], dtype=object
    ).value_counts()
    shared = {row.labels: row for row in confusable_pairs(frame, labels)}
    rows = []
    for pair in {*confused.index, *shared}:
        n, total = int(confused.get(pair, 0)), int(sum(sizes.get(name, 0) for name in pair))
        both = shared.get(pair)
        if both is None and n < MIN_CONFUSION * total:
            continue
        rows.append(
            ConfusedPair(
                labels=(str(pair[0]), str(pair[1])),
                n_confused=n,
                share_confused=n / total if total else 0.0,
                n_both=(both.n_cells if both else 0) if "prediction_set" in frame else None,
                share_both=(both.share if both else 0.0) if "prediction_set" in frame else None,
            )
        )
    rows.sort(key=lambda row: (-row.share_confused, -(row.share_both or 0.0), row.labels))
    return tuple(rows[:_MAX_PAIRS])
