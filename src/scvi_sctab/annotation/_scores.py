"""Scores of predicted labels against labels of an annotator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scvi_sctab.metrics import classification_report, ontology_corrected

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scvi_sctab.annotation._state import AnnotationState

_CORRECTED = ", ontology-corrected"


def score_labels(
    state: AnnotationState, truth: NDArray[Any], predicted: NDArray[Any]
) -> pd.DataFrame:
    """Compare predicted labels with the truth; coarse labels accept the labels they stand for.

    Parameters
    ----------
    state
        State of the model.
    truth, predicted
        Labels, ``(n_cells,)``.

    Returns
    -------
    A data frame as of :meth:`scvi_sctab.SCTAB.evaluate`.
    """
    finer = np.zeros(len(truth), dtype=bool)
    for label, accepted in state.coarse_labels.items():
        finer |= (truth == label) & np.isin(predicted, accepted)
    report = classification_report(truth, np.where(finer, truth, predicted))
    return pd.concat([report, _corrected_scores(state, truth, predicted)])


def _corrected_scores(
    state: AnnotationState, truth: NDArray[Any], predicted: NDArray[Any]
) -> pd.DataFrame:
    """Compute the ontology-corrected rows; none unless the ontology has the true labels."""
    if state.hierarchy is None or not np.isin(truth, state.hierarchy.labels).all():
        return pd.DataFrame()
    corrected = ontology_corrected(truth, predicted, state.hierarchy)
    report = classification_report(truth, corrected.predicted)
    return report.loc[["macro average", "accuracy"]].rename(lambda name: name + _CORRECTED)
