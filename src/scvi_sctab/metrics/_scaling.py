"""Make probabilities mean what they say, by scaling logits."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

ScalingMethod = Literal["temperature", "vector"]

_LOG_TEMPERATURE = (-3.0, 3.0)
_MAX_BIAS = 10.0
# Below it all logits are alike, and any temperature does.
_MIN_CURVATURE = 1e-6


class Scaling(NamedTuple):
    """Scaled logits are ``logits / temperature + bias``."""

    temperature: float
    bias: NDArray[np.float64]


def fit_scaling(
    logits: NDArray[np.floating],
    labels: ArrayLike,
    method: ScalingMethod = "temperature",
    ridge: float = 5.0,
    caution: float = 0.0,
) -> Scaling:
    r"""Fit a scaling of logits to held-out cells :cite:p:`Guo17`.

    Minimises the mean negative log-likelihood of the labels under
    :math:`\mathrm{softmax}(\ell / T + b)`.

    Parameters
    ----------
    logits
        Of cells that were not trained on, ``(n_cells, n_labels)``.
    labels
        Codes of their true labels, ``(n_cells,)``.
    method
        ``"temperature"`` fits :math:`T` only, which leaves the order of the labels as it is;
        ``"vector"`` a bias per label, too, which follows how frequent they are.
    ridge
        Weight of :math:`b^2`, in cells.
    caution
        By how many of its standard errors :math:`\log T` is raised: few cells prove little.

    Returns
    -------
    The temperature, and the bias ``(n_labels,)``.

    Raises
    ------
    ValueError
        If there is no cell, or there is no such method.

    Examples
    --------
    >>> logits = np.array([[4.0, 0.0]] * 4 + [[0.0, 4.0]] * 4)
    >>> scaling = fit_scaling(logits, [0, 0, 0, 1, 1, 1, 1, 0])  # right in 3 of 4
    >>> round(float(4 / scaling.temperature), 2)  # the log-odds of 3 to 1
    1.1
    """
    if method not in ("temperature", "vector"):
        raise ValueError(f"method={method!r} is neither 'temperature' nor 'vector'.")
    values, codes = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.intp)
    n_cells, n_labels = values.shape
    if n_cells == 0:
        raise ValueError("There is no cell to fit the calibration to.")
    rows, n_biases = np.arange(n_cells), n_labels if method == "vector" else 0

    def objective(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scale, bias = np.exp(-parameters[0]), parameters[1:]
        log_p = log_softmax(values * scale + (bias if n_biases else 0), axis=1)
        error = np.exp(log_p)
        error[rows, codes] -= 1
        loss = -log_p[rows, codes].mean() + ridge * (bias @ bias) / n_cells
        slope = -scale * (error * values).sum() / n_cells
        slopes = error.mean(axis=0)[:n_biases] + 2 * ridge * bias / n_cells
        return loss, np.concatenate([[slope], slopes])

    bounds = [_LOG_TEMPERATURE] + [(-_MAX_BIAS, _MAX_BIAS)] * n_biases
    best = minimize(
        objective, np.zeros(1 + n_biases), jac=True, bounds=bounds, method="L-BFGS-B"
    ).x
    bias = best[1:] if n_biases else np.zeros(n_labels)
    error = _standard_error(values * np.exp(-best[0]), bias, codes) if caution else 0.0
    log_temperature = np.clip(best[0] + caution * error, *_LOG_TEMPERATURE)
    return Scaling(float(np.exp(log_temperature)), bias)


def _standard_error(
    scaled: NDArray[np.float64], bias: NDArray[np.float64], codes: NDArray[np.intp]
) -> float:
    """Compute that of the logarithm of a temperature, by the sandwich estimator."""
    p = softmax(scaled + bias, axis=1)
    mean = (p * scaled).sum(axis=1)
    slopes = mean - scaled[np.arange(len(codes)), codes]
    curvature = (p * (scaled - mean[:, None]) ** 2).sum(axis=1).mean()
    return float(np.sqrt((slopes**2).mean() / len(codes)) / max(curvature, _MIN_CURVATURE))
