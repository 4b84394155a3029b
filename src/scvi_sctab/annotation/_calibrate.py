"""Calibration of a model on held-out cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scvi_sctab._logging import logger
from scvi_sctab._messages import warn
from scvi_sctab.metrics import Calibration, CellLogits, LabelCenters, fit_centers

if TYPE_CHECKING:
    from scvi_sctab.annotation._state import AnnotationState
    from scvi_sctab.metrics import LeftOut, ScalingMethod

MIN_CELLS_TO_CALIBRATE = 50
"""Smallest number of held-out cells for a calibration."""


def fit_calibration(
    state: AnnotationState,
    held_out: CellLogits,
    codes: NDArray[np.int64],
    trained: tuple[CellLogits, NDArray[np.int64], NDArray[np.int64]] | None = None,
    method: ScalingMethod | None = None,
    left_out: LeftOut | None = None,
) -> Calibration:
    """Fit scaling, prediction sets, novelty and shift to held-out cells.

    Parameters
    ----------
    state
        State of the model.
    held_out, codes
        Logits of held-out cells, and codes of their labels.
    trained
        Logits of training cells, codes of their labels, and number of cells per label among all
        training cells, if the held-out cells are of the same study.
    method
        As in :func:`~scvi_sctab.metrics.fit_scaling`; chosen by the labels if not given.
    left_out
        Of held-out cells that are of studies left out in turn.

    Raises
    ------
    ValueError
        If there are fewer than 50 cells.

    Warns
    -----
    UserWarning
        If there are no cells of some labels, and no earlier calibration with their label centres.
    """
    if len(codes) < MIN_CELLS_TO_CALIBRATE:
        raise ValueError(
            f"{len(codes)} cells with labels that the model knows are too few to calibrate on; "
            f"it takes {MIN_CELLS_TO_CALIBRATE}."
        )
    counts = count_labels(codes, len(state.labels))
    if trained is not None:
        logits, codes_trained, counts = trained
        centers = fit_centers(logits.features, codes_trained)
    elif (known := _known_centers(state, counts)) is not None:
        # Centres of an earlier calibration, since these cells may lack labels.
        centers = known
    else:
        # Distances of the cells that centres are fitted to are too small: one half for each.
        half = np.random.default_rng(0).permutation(len(codes)) % 2 == 0
        centers = fit_centers(held_out.features[half], codes[half])
        held_out, codes = held_out.take(~half), codes[~half]
        _warn_about_labels_without_center(state, counts)
    method = method or scaling_method(state, counts)
    calibration = Calibration.fit(centers, held_out, codes, method, counts, left_out)
    logger.info(
        f"Calibrated on {len(codes):,} held-out cells by {method!r}: temperature "
        f"{calibration.scaling.temperature:.2f}."
    )
    return calibration


def count_labels(codes: NDArray[np.int64], n_labels: int) -> NDArray[np.int64]:
    """Count cells per label; a code of -1 does not count.

    Parameters
    ----------
    codes
        ``(n_cells,)``.
    n_labels
        Number of labels.
    """
    return np.bincount(codes[codes >= 0], minlength=n_labels)


def scaling_method(state: AnnotationState, counts: NDArray[np.int64]) -> ScalingMethod:
    """Choose ``"prior"`` if cells of all labels are counted, else ``"temperature"``.

    Parameters
    ----------
    state
        State of the model.
    counts
        Cells per label, ``(n_labels,)``.
    """
    all_there = counts[state.predictable].all() and not state.coarse_labels
    return "prior" if all_there else "temperature"


def _known_centers(state: AnnotationState, counts: NDArray[np.int64]) -> LabelCenters | None:
    """Return the label centres of the last calibration, if it has those of all counted labels."""
    if state.calibration is None:
        return None
    whitening, centers = state.calibration.centers
    known = len(whitening) == len(state.labels) and len(centers) >= np.count_nonzero(counts)
    return state.calibration.centers if known else None


def _warn_about_labels_without_center(state: AnnotationState, counts: NDArray[np.int64]) -> None:
    missing = state.labels[(counts == 0) & state.predictable]
    if len(missing):
        warn(
            f"These cells hold no {', '.join(map(repr, missing.tolist()))}, and the model has "
            "no other calibration with their label centres: they will look novel. "
            "Calibrate on cells of all labels."
        )
