"""Mahalanobis distance of cells to the known labels, as a score of novelty."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist
from sklearn.covariance import ledoit_wolf


class LabelCenters(NamedTuple):
    """Centers of labels in whitened coordinates, in which the covariance is the identity."""

    whitening: NDArray[np.float64]  # (n_features, n_features)
    centers: NDArray[np.float64]  # (n_present_labels, n_features)

    def divided_by(self, factor: float) -> LabelCenters:
        """Return centers from which all distances are smaller by a factor."""
        return LabelCenters(self.whitening / factor, self.centers / factor)


def fit_centers(features: NDArray[np.floating], labels: ArrayLike) -> LabelCenters:
    """Fit a Gaussian per label with one covariance for all :cite:p:`Lee18`.

    Parameters
    ----------
    features
        Features of labelled cells, ``(n_cells, n_features)``, such as logits.
    labels
        Codes of their labels, ``(n_cells,)``.

    Raises
    ------
    ValueError
        If there is no cell.
    """
    values, codes = np.asarray(features, dtype=np.float64), np.asarray(labels)
    if not len(values):
        raise ValueError("There is no cell to fit the centers of labels to.")
    present, codes = np.unique(codes, return_inverse=True)
    centers = np.stack([values[codes == code].mean(axis=0) for code in range(len(present))])
    covariance, _ = ledoit_wolf(values - centers[codes], assume_centered=True)
    variance, axes = np.linalg.eigh(covariance)
    floor = max(variance.max(), 1.0) * 1e-12
    whitening = axes / np.sqrt(np.maximum(variance, floor))
    return LabelCenters(whitening, centers @ whitening)


def distance_to_centers(
    features: NDArray[np.floating], centers: LabelCenters
) -> NDArray[np.float64]:
    """Compute the Mahalanobis distance to the nearest label.

    Parameters
    ----------
    features
        Features of cells, ``(n_cells, n_features)``.
    centers
        Result of :func:`fit_centers`.

    Returns
    -------
    ``(n_cells,)``.

    Examples
    --------
    >>> known = np.array([[0.0, 1.0], [0.0, -1.0], [1.0, 0.0], [-1.0, 0.0]])
    >>> centers = fit_centers(known, [0, 0, 0, 0])
    >>> distance_to_centers(np.array([[0.0, 0.0], [3.0, 0.0]]), centers).round(1).tolist()
    [0.0, 4.2]
    """
    white = np.asarray(features, dtype=np.float64) @ centers.whitening
    return cdist(white, centers.centers).min(axis=1)
