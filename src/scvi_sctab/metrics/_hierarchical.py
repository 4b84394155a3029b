"""Scores of predicted labels that use the Cell Ontology: corrected and hierarchical scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvi_sctab._constants import N_NAMES_SHOWN
from scvi_sctab.metrics._classification import classification_report
from scvi_sctab.metrics._pairs import same_cells

if TYPE_CHECKING:
    from scvi_sctab._types import Names
    from scvi_sctab.ontology import LabelHierarchy


class CorrectedLabels(NamedTuple):
    """Labels after scTab's ontology correction.

    Attributes
    ----------
    truth
        The prediction where it is accepted, else the truth, ``(n_cells,)``.
    predicted
        The truth where the prediction is accepted, else the prediction, ``(n_cells,)``.
    """

    truth: NDArray[Any]
    predicted: NDArray[Any]


def ontology_corrected(
    truth: Names, predicted: Names, hierarchy: LabelHierarchy
) -> CorrectedLabels:
    """Accept descendants of the true label, as scTab does :cite:p:`Fischer24`.

    A cell annotated as *T cell* and predicted as *CD4-positive, alpha-beta T cell* counts as
    right; the reverse counts as wrong, since the prediction is less specific than the annotation.

    Parameters
    ----------
    truth, predicted
        Labels, ``(n_cells,)``.
    hierarchy
        Hierarchy with all of these labels, with or without a term.

    Returns
    -------
    Compare the original truth with ``predicted`` for scores; use ``truth`` for the cross-entropy.

    Raises
    ------
    ValueError
        If the hierarchy lacks a label, or the lengths differ.

    Examples
    --------
    >>> from scvi_sctab.ontology import CellOntology, LabelHierarchy
    >>> terms = {"T": "CL:0000084", "CD4 T": "CL:0000624"}
    >>> hierarchy = LabelHierarchy.build(["T", "CD4 T"], terms, CellOntology.load())
    >>> ontology_corrected(["T", "CD4 T"], ["CD4 T", "T"], hierarchy).predicted.tolist()
    ['T', 'T']
    """
    true, guess = _pairs(truth, predicted, hierarchy)
    accepted = hierarchy.child_matrix()[true, guess]
    labels = hierarchy.labels
    return CorrectedLabels(
        truth=labels[np.where(accepted, guess, true)],
        predicted=labels[np.where(accepted, true, guess)],
    )


def ontology_report(
    truth: Sequence[str], predicted: Sequence[str], hierarchy: LabelHierarchy
) -> pd.DataFrame:
    """Compute ontology-corrected scores as scTab does :cite:p:`Fischer24`.

    Parameters
    ----------
    truth, predicted, hierarchy
        As in :func:`ontology_corrected`.

    Returns
    -------
    As :func:`classification_report`: a row per label that occurs in the truth, sorted, then
    ``macro average``, ``weighted average`` and ``accuracy``. Predicting an ancestor of the truth
    counts as wrong.

    Raises
    ------
    ValueError
        As in :func:`ontology_corrected`.
    """
    return classification_report(
        truth, ontology_corrected(truth, predicted, hierarchy).predicted.tolist()
    )


def ontology_cross_entropy(
    truth: Sequence[str], probabilities: pd.DataFrame, hierarchy: LabelHierarchy
) -> float:
    """Compute the ontology-corrected cross-entropy, every cell with the same weight.

    The target of a cell is its most probable label if that is accepted, else the truth
    :cite:p:`Fischer24`. It is therefore lower than the cross-entropy against the truth where
    descendants of the truth are predicted, even with a low probability.

    Parameters
    ----------
    truth
        Labels, ``(n_cells,)``.
    probabilities
        ``(n_cells, n_labels)``, columns named by label, as ``predict(soft=True)`` gives them.
    hierarchy
        Hierarchy with the labels of both, with or without a term.

    Returns
    -------
    Mean over cells, in nats. A probability of 0 is replaced by the machine epsilon of its type.

    Raises
    ------
    ValueError
        If the hierarchy lacks a label, the lengths differ, or the target of a cell has no column.
    """
    truth, probabilities = same_cells(truth, probabilities)
    values = probabilities.to_numpy()
    columns = pd.Index(probabilities.columns.astype(str))
    predicted = columns.to_numpy()[values.argmax(axis=1)]
    target = ontology_corrected(truth, predicted, hierarchy).truth
    position = columns.get_indexer(pd.Index(target))
    if (position < 0).any():
        raise ValueError(f"No column of probabilities for: {_listed(target[position < 0])}.")
    chosen = values[np.arange(len(target)), position]
    return float(-np.log(chosen.clip(min=np.finfo(values.dtype).eps)).mean(dtype=np.float64))


def hierarchical_scores(
    truth: Sequence[str], predicted: Sequence[str], hierarchy: LabelHierarchy
) -> pd.Series:
    """Compute precision, recall and F1 over all ancestors, so that near misses count in part.

    Each label is replaced by the set of its own term and all ancestors except the root, *cell*,
    which would be right for every cell. Precision is the share of the predicted terms that are
    true, recall the share of the true terms that are predicted, both summed over cells
    :cite:p:`Kosmopoulos15,Silla11`. A label without a term is a set of its own. Two labels
    with the same term count as the same.

    Parameters
    ----------
    truth, predicted, hierarchy
        As in :func:`ontology_corrected`.

    Returns
    -------
    ``precision``, ``recall`` and ``f1``, their harmonic mean; 0 where the denominator is 0.

    Raises
    ------
    ValueError
        As in :func:`ontology_corrected`.
    """
    true, guess = _pairs(truth, predicted, hierarchy)
    alone = np.diag(hierarchy.own < 0)
    sets = np.concatenate([hierarchy.members[1:], alone]).astype(np.int64)
    size, overlap = sets.sum(axis=0), sets.T @ sets
    shared = overlap[true, guess].sum()
    precision = _ratio(shared, size[guess].sum())
    recall = _ratio(shared, size[true].sum())
    f1 = _ratio(2 * precision * recall, precision + recall)
    return pd.Series({"precision": precision, "recall": recall, "f1": f1})


def _pairs(
    truth: Names, predicted: Names, hierarchy: LabelHierarchy
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the positions of the true and the predicted labels in the hierarchy."""
    truth, predicted = same_cells(truth, predicted)
    true, guess = np.asarray(truth, dtype=str), np.asarray(predicted, dtype=str)
    if true.shape != guess.shape:
        raise ValueError(f"There are {len(true):,} true labels but {len(guess):,} predicted ones.")
    index = pd.Index(hierarchy.labels)
    positions = index.get_indexer(pd.Index(true)), index.get_indexer(pd.Index(guess))
    unknown = np.concatenate([true[positions[0] < 0], guess[positions[1] < 0]])
    if len(unknown):
        raise ValueError(
            f"Not among the labels of the hierarchy: {_listed(unknown)}. Build it over the labels "
            "of both sides; labels without a Cell Ontology term may be in it."
        )
    return positions


def _listed(labels: NDArray[np.str_]) -> str:
    names = [repr(str(label)) for label in np.unique(labels)]
    more = len(names) - N_NAMES_SHOWN
    return ", ".join(names[:N_NAMES_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
