"""Measure of annotation: fit to the reference, predict the query, score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, roc_auc_score

from scvi_sctab._constants import UNLABELED_CATEGORY
from scvi_sctab.benchmark._splits import column, labels_of, learnable
from scvi_sctab.metrics import expected_calibration_error, f1_macro

if TYPE_CHECKING:
    from scvi_sctab._types import CellTypePredictor
    from scvi_sctab.benchmark._tasks import Split, Task

Labels = NDArray[np.str_]
Scores = Callable[[Labels, Labels, NDArray[np.floating] | None], Mapping[str, float]]


def classification_scores(
    truth: Labels, predicted: Labels, probability: NDArray[np.floating] | None = None
) -> dict[str, float]:
    """Score labels and the probabilities that were stated for them.

    Parameters
    ----------
    truth, predicted
        Labels, ``(n_cells,)``.
    probability
        Stated probability of the predicted label, ``(n_cells,)``, if the method has probabilities.

    Returns
    -------
    ``macro_f1`` over the labels of the truth and ``accuracy``; with probabilities also ``ece``, see
    :func:`~scvi_sctab.metrics.expected_calibration_error`, and ``auroc_of_errors``, how well they
    separate right from wrong labels, missing if all are right or all wrong.

    Examples
    --------
    >>> truth, predicted = np.array(["B", "B", "NK"]), np.array(["B", "NK", "NK"])
    >>> scores = classification_scores(truth, predicted, np.array([0.9, 0.5, 0.8]))
    >>> round(scores["macro_f1"], 3), scores["auroc_of_errors"]
    (0.667, 1.0)
    """
    row = {
        "macro_f1": f1_macro(truth.tolist(), predicted.tolist()),
        "accuracy": float(accuracy_score(truth, predicted)),
    }
    if probability is None:
        return row
    correct, stated = predicted == truth, np.clip(probability, 0, 1)
    row["ece"] = expected_calibration_error(stated.tolist(), correct.tolist())
    both = correct.any() and not correct.all()
    row["auroc_of_errors"] = float(roc_auc_score(correct, stated)) if both else np.nan
    return row


def classify(
    task: Task,
    split: Split,
    predictor: CellTypePredictor,
    *,
    scores: Scores = classification_scores,
) -> dict[str, float]:
    """Fit a method to the reference of a task, and score its labels of the query.

    The method gets copies, which hold no label of the query.

    Parameters
    ----------
    task
        The task.
    split
        Its cells.
    predictor
        The method.
    scores
        Function of true labels, predicted labels and their probabilities (or ``None``) that returns
        the numbers of the row.

    Returns
    -------
    The scores, ``seconds`` with their parts ``fit_seconds`` and ``predict_seconds``,
    ``n_reference`` (labelled cells), ``n_scored``, ``n_classes``, and ``n_left_out``: cells of
    labels that are not scored, as the reference lacks them or has them in one cell only.

    Raises
    ------
    KeyError
        If a column does not exist.
    ValueError
        If there is no cell to score, or the rows that the method returns are not the cells of the
        query.
    """
    labels = labels_of(split.reference, task.labels_key)
    learnt = learnable(labels)
    scored = scored_cells(task, split)
    reference = _visible_reference(task, split.reference, np.isin(labels, sorted(learnt)))
    query = copy_cells(split.query, _known(split.query, task))
    start = perf_counter()
    predictor.fit(reference, task.labels_key, task.donor_key)
    fitted = perf_counter()
    table = predictor.predict_proba(query)
    end = perf_counter()
    if not table.index.equals(split.query.obs_names):
        raise ValueError("The rows of what it returned are not the cells of the query.")
    values, truth = table.to_numpy()[scored], split.truth[scored]
    predicted = table.columns.to_numpy(dtype=str)[values.argmax(axis=1)]
    has_probabilities = getattr(predictor, "has_probabilities", True)
    row = dict(scores(truth, predicted, values.max(axis=1) if has_probabilities else None))
    row |= {"seconds": end - start, "fit_seconds": fitted - start, "predict_seconds": end - fitted}
    return row | {
        "n_reference": int(np.isin(labels, sorted(learnt)).sum()),
        "n_scored": len(truth),
        "n_left_out": int(((split.truth != "") & ~scored).sum()),
        "n_classes": len(set(truth)),
    }


def scored_cells(task: Task, split: Split) -> NDArray[np.bool_]:
    """Mark the cells of the query that are scored, ``(n_query,)``.

    Raises
    ------
    ValueError
        If there is none.
    """
    labels = task.labels or learnable(labels_of(split.reference, task.labels_key))
    scored = np.isin(split.truth, sorted(labels))
    if not scored.any():
        raise ValueError(
            f"Task {task.name!r} has no cell to score: none of {sorted(labels)}, which can be "
            "learnt, is a label of the query."
        )
    return scored


def copy_cells(adata: AnnData, keys: list[str]) -> AnnData:
    """Copy counts and some columns of ``obs``, so that no method can change the next one's input."""
    return AnnData(adata.X.copy(), obs=adata.obs[keys].copy(), var=adata.var.iloc[:, :0].copy())


def _visible_reference(task: Task, reference: AnnData, learnt: NDArray[np.bool_]) -> AnnData:
    for argument in ("donor_key", "batch_key"):
        if (key := getattr(task, argument)) is not None:
            column(reference, key, argument)
    keys = list(dict.fromkeys([task.labels_key, *_known(reference, task)]))
    cells = copy_cells(reference, keys)
    labels = cells.obs[task.labels_key].astype(str).where(learnt, UNLABELED_CATEGORY)
    cells.obs[task.labels_key] = labels.astype("category")
    return cells if task.keeps_unlabelled else cells[learnt].copy()


def _known(adata: AnnData, task: Task) -> list[str]:
    """Return columns that methods may see in the query."""
    keys = dict.fromkeys([task.donor_key, task.batch_key])
    return [key for key in keys if key is not None and key in adata.obs]
