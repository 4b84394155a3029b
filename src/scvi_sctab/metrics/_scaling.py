"""Temperature scaling of logits, with the label prior or a bias per label."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

ScalingMethod = Literal["temperature", "prior", "vector"]

_LOG_TEMPERATURE = (-3.0, 3.0)
# Share of the label prior: 0 is class-balanced, 1 the full prior.
_SHARE = (0.0, 1.0)
_BIAS = (-10.0, 10.0)
# Below it all logits are nearly equal, and the likelihood does not depend on the temperature.
_MIN_CURVATURE = 1e-6
# Smallest gap below the score of the predicted label, so that rounding makes no tie.
_GAP = 1e-3


class Scaling(NamedTuple):
    """Scaling ``logits / temperature + bias``; labels added after calibration have no bias."""

    temperature: float
    bias: NDArray[np.float64]
    moves_labels: bool = False

    def probabilities(self, logits: NDArray[np.floating]) -> NDArray[np.float32]:
        """Turn logits into probabilities, ``(n_cells, n_labels)``.

        Unless ``moves_labels``, the label of the largest logit keeps the largest probability: the
        scores of labels that the bias would raise above it are set just below its score.
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
    n_doubtful: float = 0.0,
) -> Scaling:
    r"""Fit a scaling of logits to held-out cells :cite:p:`Guo17`.

    Minimises the mean negative log-likelihood of the labels under
    :math:`\mathrm{softmax}(\ell / T + b)`.

    Parameters
    ----------
    logits
        Logits of held-out cells, ``(n_cells, n_labels)``.
    labels
        Codes of their true labels, ``(n_cells,)``.
    method
        ``"temperature"`` fits :math:`T` only, :math:`b = 0`. ``"prior"`` also fits the share
        :math:`\beta` in [0, 1] of :math:`b = \beta \log \pi`, where :math:`\pi` is the label prior
        :cite:p:`Menon21`: training with class weights removes it, but a cell whose expression
        fits two labels is most often of the more frequent one. Neither changes the most
        probable label. ``"vector"`` fits a bias per label, and changes labels.
    counts
        Cells per label, ``(n_labels,)``, from which ``"prior"`` computes the label prior; those of
        ``labels`` if not given.
    ridge
        Weight of the penalty :math:`\beta^2` or :math:`b^2`, in cells.
    caution
        Number of its standard errors by which :math:`\log T` is raised, to allow for few cells.
    n_doubtful
        Number of cells that count as if their runner-up were right, out of two more than there are.
        Without any, cells that are all right make every probability 1.

    Returns
    -------
    The temperature, the bias ``(n_labels,)``, and whether it changes labels.

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
    doubt = n_doubtful / (n_cells + 2) if n_labels > 1 else 0.0
    others = values.copy()
    others[rows, codes] = -np.inf
    runner_up = others.argmax(axis=1)

    def objective(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scaled, weights = values * np.exp(-parameters[0]), parameters[1:]
        log_p = log_softmax(scaled + weights @ basis, axis=1)
        error = np.exp(log_p)
        error[rows, codes] -= 1 - doubt
        error[rows, runner_up] -= doubt
        likelihood = (1 - doubt) * log_p[rows, codes] + doubt * log_p[rows, runner_up]
        loss = -likelihood.mean() + ridge * (weights @ weights) / n_cells
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
    """Raise an error if there is no such method of scaling.

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
    """Return the parts of the bias, ``(n_parts, n_labels)``, and the limits of their weights."""
    if method == "temperature":
        return np.zeros((0, n_labels)), _SHARE
    if method == "vector":
        return np.eye(n_labels), _BIAS
    found = np.bincount(codes, minlength=n_labels) if counts is None else np.asarray(counts)
    if found.shape != (n_labels,):
        raise ValueError(f"counts are {found.shape}, not one for each of the {n_labels} labels.")
    log_frequencies = np.log(found + 1.0)
    # Centred, so that labels added later, which have no bias, count as of mean log-frequency.
    return (log_frequencies - log_frequencies.mean())[None], _SHARE


def _standard_error(
    scaled: NDArray[np.float64], bias: NDArray[np.float64], codes: NDArray[np.intp]
) -> float:
    """Compute the standard error of the log-temperature, by the sandwich estimator."""
    p = softmax(scaled + bias, axis=1)
    mean = (p * scaled).sum(axis=1)
    slopes = mean - scaled[np.arange(len(codes)), codes]
    curvature = (p * (scaled - mean[:, None]) ** 2).sum(axis=1).mean()
    return float(np.sqrt((slopes**2).mean() / len(codes)) / max(curvature, _MIN_CURVATURE))
