"""Make probabilities mean what they say, by scaling logits."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

ScalingMethod = Literal["temperature", "prior", "vector"]

_LOG_TEMPERATURE = (-3.0, 3.0)
# From labels that are as frequent as each other, as class weights have it, to those of the cells.
_SHARE = (0.0, 1.0)
_BIAS = (-10.0, 10.0)
# Below it all logits are alike, and any temperature does.
_MIN_CURVATURE = 1e-6
# How near others may come to the label of the largest logit, so that rounding makes no tie.
_GAP = 1e-3


class Scaling(NamedTuple):
    """Scaled logits are ``logits / temperature + bias``; labels that came later have no bias."""

    temperature: float
    bias: NDArray[np.float64]
    moves_labels: bool = False

    def probabilities(self, logits: NDArray[np.floating]) -> NDArray[np.float32]:
        """Turn logits into probabilities, ``(n_cells, n_labels)``.

        The label of the largest logit keeps the largest probability unless ``moves_labels``:
        others that the bias would raise above it come to stand beside it.
        """
        bias = np.zeros(logits.shape[1])
        bias[: len(self.bias)] = self.bias
        scores = logits / self.temperature + bias
        if not self.moves_labels and len(scores):
            first = logits.argmax(axis=1)[:, None]
            limit = np.take_along_axis(scores, first, axis=1)
            scores = np.minimum(scores, limit - _GAP)
            np.put_along_axis(scores, first, limit, axis=1)
        return softmax(scores, axis=1).astype(np.float32)


def fit_scaling(
    logits: NDArray[np.floating],
    labels: ArrayLike,
    method: ScalingMethod = "temperature",
    counts: ArrayLike | None = None,
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
        ``"temperature"`` fits :math:`T` only, :math:`b = 0`. ``"prior"`` fits the share
        :math:`\beta` in [0, 1] of :math:`b = \beta \log \pi`, too, where :math:`\pi` is how
        frequent labels are :cite:p:`Menon21`: class weights hide it from a network, though cells
        that may be of either of two labels are most often of the more frequent one. Both leave
        the most probable label as it is. ``"vector"`` fits a bias per label, and moves labels.
    counts
        Cells per label, ``(n_labels,)``, that tell ``"prior"`` how frequent they are; those of
        ``labels`` if not given.
    ridge
        Weight of :math:`\beta^2` or :math:`b^2`, in cells.
    caution
        By how many of its standard errors :math:`\log T` is raised: few cells prove little.

    Returns
    -------
    The temperature, the bias ``(n_labels,)``, and whether it moves labels.

    Raises
    ------
    ValueError
        If there is no cell, there is no such method, or ``counts`` are not one per label.

    Examples
    --------
    >>> logits = np.array([[4.0, 0.0]] * 4 + [[0.0, 4.0]] * 4)
    >>> scaling = fit_scaling(logits, [0, 0, 0, 1, 1, 1, 1, 0])  # right in 3 of 4
    >>> round(float(4 / scaling.temperature), 2)  # the log-odds of 3 to 1
    1.1
    """
    check_method(method)
    values, codes = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.intp)
    n_cells, n_labels = values.shape
    if n_cells == 0:
        raise ValueError("There is no cell to fit the calibration to.")
    basis, limits = _biases(method, codes, n_labels, counts)
    rows = np.arange(n_cells)

    def objective(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scaled, weights = values * np.exp(-parameters[0]), parameters[1:]
        log_p = log_softmax(scaled + weights @ basis, axis=1)
        error = np.exp(log_p)
        error[rows, codes] -= 1
        loss = -log_p[rows, codes].mean() + ridge * (weights @ weights) / n_cells
        slope = -(error * scaled).sum() / n_cells
        slopes = basis @ error.mean(axis=0) + 2 * ridge * weights / n_cells
        return loss, np.concatenate([[slope], slopes])

    start, bounds = np.zeros(1 + len(basis)), [_LOG_TEMPERATURE] + [limits] * len(basis)
    best = minimize(objective, start, jac=True, bounds=bounds, method="L-BFGS-B").x
    bias = best[1:] @ basis
    error = _standard_error(values * np.exp(-best[0]), bias, codes) if caution else 0.0
    log_temperature = np.clip(best[0] + caution * error, *_LOG_TEMPERATURE)
    return Scaling(float(np.exp(log_temperature)), bias, method == "vector")


def check_method(method: str) -> None:
    """Stop if there is no such way to scale.

    Raises
    ------
    ValueError
        If it is none of ``ScalingMethod``.
    """
    if method not in get_args(ScalingMethod):
        known = ", ".join(map(repr, get_args(ScalingMethod)))
        raise ValueError(f"{method=} is none of {known}.")


def _biases(
    method: ScalingMethod, codes: NDArray[np.intp], n_labels: int, counts: ArrayLike | None
) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Name the parts of the bias, ``(n_parts, n_labels)``, and the limits of their weights."""
    if method == "temperature":
        return np.zeros((0, n_labels)), _SHARE
    if method == "vector":
        return np.eye(n_labels), _BIAS
    found = np.bincount(codes, minlength=n_labels) if counts is None else np.asarray(counts)
    if found.shape != (n_labels,):
        raise ValueError(f"counts are {found.shape}, not one for each of the {n_labels} labels.")
    log_frequencies = np.log(found + 1.0)
    # Labels that come later have no bias, and are taken to be of middling frequency.
    return (log_frequencies - log_frequencies.mean())[None], _SHARE


def _standard_error(
    scaled: NDArray[np.float64], bias: NDArray[np.float64], codes: NDArray[np.intp]
) -> float:
    """Compute that of the logarithm of a temperature, by the sandwich estimator."""
    p = softmax(scaled + bias, axis=1)
    mean = (p * scaled).sum(axis=1)
    slopes = mean - scaled[np.arange(len(codes)), codes]
    curvature = (p * (scaled - mean[:, None]) ** 2).sum(axis=1).mean()
    return float(np.sqrt((slopes**2).mean() / len(codes)) / max(curvature, _MIN_CURVATURE))
