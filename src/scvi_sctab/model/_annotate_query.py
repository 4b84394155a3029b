"""Annotation of a query with all that files of it need: columns, logits and test of shift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from scvi_sctab._constants import ERROR_RATE, FALSE_ALARM_RATE, MIN_GENE_OVERLAP, TERM_LEVEL
from scvi_sctab.annotation import annotate_cells, find_shift, unassign
from scvi_sctab.data import X_LAYER

if TYPE_CHECKING:
    from anndata import AnnData

    from scvi_sctab.annotation import Rates
    from scvi_sctab.data import CellSelection
    from scvi_sctab.model._annotator import CellAnnotator


@dataclass(frozen=True)
class AnnotatedQuery:
    """Annotation of a query.

    Attributes
    ----------
    columns
        Data frame of :meth:`scvi_sctab.SCTAB.annotate`.
    logits, probabilities
        ``(n_cells, n_labels)``; ``None`` unless asked for.
    shift
        Data frame of :meth:`scvi_sctab.SCTAB.get_shift`; ``None`` if the model is not calibrated.
    difference
        Statistics by which the cells differ from those that the model was calibrated on, so that
        rates may not hold; empty if they do not, or are too few to tell.
    """

    columns: pd.DataFrame
    logits: pd.DataFrame | None = None
    probabilities: pd.DataFrame | None = None
    shift: pd.DataFrame | None = None
    difference: str = ""


def annotate_query(
    model: CellAnnotator,
    cells: AnnData,
    *,
    error_rate: float = ERROR_RATE,
    false_alarm_rate: float = FALSE_ALARM_RATE,
    term_level: float = TERM_LEVEL,
    unassigned: str | None = None,
    min_gene_overlap: float = MIN_GENE_OVERLAP,
    batch_size: int | None = None,
    keep_probabilities: bool = False,
) -> AnnotatedQuery:
    """Annotate cells, and test for a shift, in one pass over their counts.

    Parameters
    ----------
    model
        A trained model.
    cells
        Raw counts in ``X``, in memory or on disk.
    error_rate, false_alarm_rate, term_level, unassigned, min_gene_overlap, batch_size
        As of :meth:`scvi_sctab.SCTAB.annotate`.
    keep_probabilities
        Whether to return logits and probabilities, too.

    Raises
    ------
    RuntimeError
        If the model is not trained.
    ValueError
        As :meth:`scvi_sctab.SCTAB.annotate`.
    """
    model._require_trained()
    rates = model._check_statements(error_rate, false_alarm_rate, term_level, unassigned)
    selection = model._select(cells, None, X_LAYER, min_gene_overlap)
    return annotate_selection(model, selection, rates, unassigned, batch_size, keep_probabilities)


def annotate_selection(
    model: CellAnnotator,
    selection: CellSelection,
    rates: Rates,
    unassigned: str | None = None,
    batch_size: int | None = None,
    keep_probabilities: bool = False,
) -> AnnotatedQuery:
    """Annotate selected cells, and test for a shift, in one pass over their counts.

    Parameters
    ----------
    model
        A trained model.
    selection
        The cells.
    rates
        Rates of the annotation.
    unassigned, batch_size, keep_probabilities
        As of :func:`annotate_query`.

    Raises
    ------
    ValueError
        If cells share names.
    """
    model._check_names(selection)
    state, parts = model._look_at(selection, batch_size)
    kept = list(parts) if keep_probabilities else None
    columns, statistics = annotate_cells(
        state, parts if kept is None else kept, selection.names, rates, model._is_adapted
    )
    shift, difference = None, ""
    if statistics is not None:
        calibration = model.annotation.calibrated()
        shift, difference = calibration.shift(statistics), find_shift(calibration, statistics)
    if unassigned is not None:
        columns = unassign(columns, unassigned)
    if kept is None:
        return AnnotatedQuery(columns, shift=shift, difference=difference)
    logits = state.join_logits(kept).logits
    logits, probabilities = (
        pd.DataFrame(values, columns.index, model.labels)
        for values in (logits, model.annotation.probabilities(logits))
    )
    return AnnotatedQuery(columns, logits, probabilities, shift, difference)
