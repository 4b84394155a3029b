"""Annotation of cells: label, probability, prediction set, novelty, term."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from scvi_sctab.annotation._frame import STATISTIC, name_sets, pop_statistics
from scvi_sctab.annotation._status import status_of
from scvi_sctab.annotation._terms import add_terms, name_terms
from scvi_sctab.metrics import CellLogits, normalized_entropy

# Columns that the status is made from.
SET_SIZE, N_MOLECULES = "set size", "number of molecules"

if TYPE_CHECKING:
    from scvi_sctab.annotation._state import AnnotationState


@dataclass(frozen=True)
class Rates:
    """Rates and level of an annotation, each in (0, 1).

    Parameters
    ----------
    error_rate
        Share of cells whose prediction set may miss the true label.
    false_alarm_rate
        Share of cells of known labels that may be called novel.
    term_level
        Smallest probability of a term.

    Raises
    ------
    ValueError
        If a value is not between 0 and 1.
    """

    error_rate: float
    false_alarm_rate: float
    term_level: float

    def __post_init__(self) -> None:
        for name, rate in vars(self).items():
            if not 0 < rate < 1:
                raise ValueError(f"{name}={rate!r} is not between 0 and 1.")


def annotate_cells(
    state: AnnotationState,
    batches: Iterable[CellLogits],
    names: pd.Index,
    rates: Rates,
    is_adapted: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Annotate cells from their logits.

    Parameters
    ----------
    state
        State of the model.
    batches
        Logits of minibatches of cells.
    names
        Names of the cells, ``(n_cells,)``.
    rates
        Rates of the annotation.
    is_adapted
        Whether the logits differ from the reference logits, see :func:`describe_cells`.

    Returns
    -------
    A row per cell, columns as of :meth:`scvi_sctab.SCTAB.annotate`; and the statistics for the
    test of shift, ``None`` without a calibration.
    """
    parts = [describe_cells(state, batch, rates, is_adapted) for batch in batches]
    parts = parts or [describe_cells(state, state.no_logits(), rates, is_adapted)]
    columns: dict[str, Any]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    statistics = None
    if state.calibration is not None:
        statistics = pop_statistics(columns)
        columns["prediction_set"] = name_sets(columns.pop("set"), columns["label"], state.labels)
        columns["novel"] = columns["novelty_p_value"] <= rates.false_alarm_rate
        set_size, n_molecules = columns.pop(SET_SIZE), columns.pop(N_MOLECULES)
        columns["status"] = status_of(columns["novel"], set_size, n_molecules)
    if state.hierarchy is not None:
        name_terms(columns, state.hierarchy)
    for name in ("label", "runner_up", "reference_label"):
        if name in columns:
            columns[name] = pd.Categorical.from_codes(columns[name], categories=state.labels)
    return pd.DataFrame(columns, index=names), statistics


def describe_cells(
    state: AnnotationState, logits: CellLogits, rates: Rates, is_adapted: bool = False
) -> dict[str, NDArray[Any]]:
    """Compute the columns of an annotation for a minibatch of cells, with codes of labels.

    Parameters
    ----------
    state
        State of the model.
    logits
        Logits of the cells.
    rates
        Rates of the annotation.
    is_adapted
        Whether to add label and probability by the reference logits.
    """
    probabilities = state.probabilities(logits.logits)
    shares = state.as_shares(probabilities)
    value, code = torch.from_numpy(probabilities).topk(2, dim=1)
    columns: dict[str, NDArray[Any]] = {
        "label": code[:, 0].numpy(),
        "probability": value[:, 0].numpy(),
        "uncertainty": normalized_entropy(torch.from_numpy(shares)).numpy(),
        "runner_up": code[:, 1].numpy(),
    }
    sets = None
    if state.calibration is not None:
        sets = state.prediction_sets(probabilities, rates.error_rate)
        columns["set"] = np.packbits(sets, axis=1)
        columns[SET_SIZE] = sets.sum(axis=1)
        columns[N_MOLECULES] = (
            np.full(len(logits), np.inf) if logits.n_molecules is None else logits.n_molecules
        )
        columns["novelty_p_value"] = state.calibration.novelty(logits)
        described = state.calibration.describe(logits)
        columns |= {STATISTIC + name: described[name].to_numpy() for name in described}
    if state.hierarchy is not None:
        add_terms(columns, state.hierarchy, shares, sets, rates.term_level)
    if is_adapted:
        before = state.probabilities(logits.reference_logits)
        columns |= {
            "reference_label": before.argmax(axis=1),
            "reference_probability": before.max(axis=1),
        }
    return columns


def join_probabilities(
    state: AnnotationState, parts: Iterable[NDArray[np.float32]], names: pd.Index
) -> pd.DataFrame:
    """Concatenate probabilities of minibatches, if any, to a data frame ``(n_cells, n_labels)``.

    Parameters
    ----------
    state
        State of the model.
    parts
        Probabilities of each minibatch, ``(n_cells_of_batch, n_labels)``.
    names
        Names of the cells.
    """
    values = np.concatenate([np.zeros((0, len(state.labels)), np.float32), *parts])
    return pd.DataFrame(values, index=names, columns=state.labels)


def predict_labels(state: AnnotationState, batches: Iterable[CellLogits]) -> NDArray[np.str_]:
    """Return the most probable label of each cell.

    Parameters
    ----------
    state
        State of the model.
    batches
        Logits of minibatches of cells.
    """
    codes = [state.probabilities(batch.logits).argmax(axis=1) for batch in batches]
    return state.labels[np.concatenate([np.zeros(0, np.int64), *codes])]
