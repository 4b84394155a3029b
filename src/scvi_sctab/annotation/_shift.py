"""Shift between cells and the held-out cells of a calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scvi_sctab.annotation._calibrate import MIN_CELLS_TO_CALIBRATE

if TYPE_CHECKING:
    import pandas as pd

    from scvi_sctab.metrics import Calibration

MIN_CELLS_TO_COMPARE = 100
"""Number of cells below which the test of shift has too little power."""


def find_shift(calibration: Calibration, described: pd.DataFrame) -> str:
    """Name the statistics by which cells differ from the held-out ones.

    Parameters
    ----------
    calibration
        Calibration of the model.
    described
        Statistics of the cells, see :meth:`~scvi_sctab.metrics.Calibration.describe`.

    Returns
    -------
    Statistics with distance and limit; empty if there is no shift, or if cells are too few.
    """
    if len(described) < MIN_CELLS_TO_COMPARE:
        return ""
    table = calibration.shift(described)
    return ", ".join(
        f"{name} {row.distance:.2f} (limit {row.limit:.2f})"
        for name, row in table[table["shifted"]].iterrows()
    )


def shift_message(found: str, n_cells: int, n_trained: int) -> str:
    """Write the warning about a shift, with the line to type.

    Parameters
    ----------
    found
        Statistics of :func:`find_shift`.
    n_cells, n_trained
        Number of cells, and number of training cells among them.
    """
    if n_trained > n_cells / 2:
        advice = (
            f"{n_trained:,} of the {n_cells:,} were trained on, and their probabilities are too "
            "high. Annotate cells that were not trained on; `model.evaluate()` scores those held "
            "out in training."
        )
    else:
        advice = (
            f"To make them hold, calibrate on {MIN_CELLS_TO_CALIBRATE} or more labelled cells "
            "of the same study, of all the types that it holds, with labels that you trust: "
            "`model.calibrate(labelled_cells)`."
        )
    return (
        "These cells differ from those that the model was calibrated on, by the "
        f"Kolmogorov-Smirnov distance of {found}: probabilities, prediction sets and "
        f"novelty may be wrong more often than stated. {advice}"
    )
