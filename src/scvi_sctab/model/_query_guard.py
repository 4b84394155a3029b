"""Guard of the query adapter: cells that may teach it, and queries that are not adapted."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import logsumexp

from scvi_sctab._config import GUARD
from scvi_sctab.train import diversity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scvi_sctab.model._records import ReferenceStatistics
    from scvi_sctab.model._sctab import SCTAB
    from scvi_sctab.train import QueryCells


class Refusal(NamedTuple):
    """Decision not to adapt to a query.

    Attributes
    ----------
    reason
        Reason and cure.
    is_narrow
        Whether this is a low-diversity query.
    """

    reason: str = ""
    is_narrow: bool = False


TOO_FEW = Refusal(
    "the model is sure of too few of its cells, or of one label only. Map it together with other "
    "samples of its study"
)


def resembling_cells(
    model: SCTAB, positions: NDArray[np.intp], cells: QueryCells, *, is_calibrated: bool
) -> NDArray[np.bool_]:
    """Mark cells that resemble a label of the reference, ``(n_cells,)``.

    Their novelty p-value exceeds the limit, after the query's distances were divided by what all
    of its cells share. Without a calibration, their energy is above that of 1 % of the
    reference's cells.

    Parameters
    ----------
    model
        Query model whose adapter is zero.
    positions
        Positions of the cells in the model's AnnData, ``(n_cells,)``.
    cells
        The same cells.
    is_calibrated
        Whether there is a calibration that holds: not if parameters of the reference were trained.
    """
    state, batches = model._look_at(model._select(None, positions))
    if is_calibrated:
        calibration = state.calibrated()
        p_values = [calibration.novelty(batch) for batch in batches]
        return np.concatenate(p_values) > GUARD.novelty
    statistics = model.reference_statistics
    floor = -np.inf if statistics is None else statistics.energy_floor
    return np.asarray(logsumexp(cells.linear, axis=1) >= floor)


def has_low_diversity(cells: QueryCells, statistics: ReferenceStatistics | None) -> bool:
    """Return whether predicted labels are much less diverse than those of the reference.

    Self-training would move labels towards types that such a query, e.g. a sorted sample, lacks.

    Parameters
    ----------
    cells
        Cells of the query.
    statistics
        Statistics of the reference, if they are known.
    """
    if statistics is None:
        return False
    predicted = diversity(cells.logits.argmax(axis=1), cells.logits.shape[1])
    return predicted < GUARD.min_diversity * statistics.diversity


def refuse_query(
    cells: QueryCells,
    resembling: NDArray[np.bool_],
    probabilities: NDArray[np.floating] | None,
    statistics: ReferenceStatistics | None,
) -> Refusal | None:
    """Return the reason why a query must not be adapted to, if there is one.

    Parameters
    ----------
    cells
        Cells of the query.
    resembling
        Cells that resemble a label of the reference, ``(n_cells,)``.
    probabilities
        Calibrated probabilities by the reference logits, ``(n_cells, n_labels)``; ``None`` without a
        calibration, as others are no estimate of the accuracy.
    statistics
        Statistics of the reference, if they are known.
    """
    if has_low_diversity(cells, statistics):
        return Refusal(
            "it holds few of the reference's types, as a sorted sample does. Map it together with "
            "other samples of its study",
            is_narrow=True,
        )
    share = float(resembling.mean())
    if share < GUARD.min_share:
        return Refusal(
            f"it is too unlike the reference, whose types only {share:.0%} of its cells resemble "
            f"(limit {GUARD.min_share:.0%}). Check that tissue, species and counts are those of "
            "the reference"
        )
    probability = 1.0 if probabilities is None else float(probabilities.max(axis=1).mean())
    if probability < GUARD.min_probability:
        return Refusal(
            f"the labels that it would be adapted by have a mean probability of {probability:.0%} "
            f"(limit {GUARD.min_probability:.0%}). A reference with more genes or cells helps"
        )
    return None
