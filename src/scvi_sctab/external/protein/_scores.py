"""Scores of predicted numbers against incomplete measurements."""

from __future__ import annotations

import numpy as np
import pandas as pd


def score_columns(predicted: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Compare each column of two data frames.

    Parameters
    ----------
    predicted
        ``(n_rows, n_columns)``.
    measured
        The same rows and columns, NaN where missing.

    Returns
    -------
    A row per column: ``pearson``, NaN if one of the two is constant, ``mse``, and ``n``, the
    number of measured entries.

    Examples
    --------
    >>> predicted = pd.DataFrame({"CD3": [1.0, 2.0, 9.0]})
    >>> score_columns(predicted, pd.DataFrame({"CD3": [2.0, 3.0, np.nan]})).loc["CD3"].tolist()
    [1.0, 1.0, 2.0]
    """
    known = measured.notna().to_numpy()
    n = known.sum(axis=0)
    x = predicted.to_numpy(dtype=float).copy()
    y = measured.to_numpy(dtype=float)
    x[~known] = np.nan

    def mean(values: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.nansum(values, axis=0) / n

    def centred(values: np.ndarray) -> np.ndarray:
        deviation = values - mean(values)
        # Deviations of a constant are rounding noise.
        return np.where(np.abs(deviation) < 1e-6, 0, deviation)

    dx, dy = centred(x), centred(y)
    with np.errstate(invalid="ignore", divide="ignore"):
        pearson = mean(dx * dy) / np.sqrt(mean(dx**2) * mean(dy**2))
    columns = {"pearson": pearson, "mse": mean((x - y) ** 2), "n": n}
    return pd.DataFrame(columns, index=measured.columns)
