"""How far a cell is from every label that is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist
from sklearn.covariance import ledoit_wolf
from sklearn.decomposition import PCA

if TYPE_CHECKING:
    from scipy import sparse

# Of those tried, 10 to 50, the number does not matter much.
_N_AXES = 30


class LabelCenters(NamedTuple):
    """Where labels lie, in coordinates in which each spreads by one in every direction."""

    whitening: NDArray[np.float64]  # (n_features, n_features)
    centers: NDArray[np.float64]  # (n_present_labels, n_features)


def fit_centers(features: NDArray[np.floating], labels: ArrayLike) -> LabelCenters:
    """Fit a Gaussian per label with one covariance for all :cite:p:`Lee18`.

    Parameters
    ----------
    features
        Of cells with known labels, ``(n_cells, n_features)``; logits do well.
    labels
        Codes, ``(n_cells,)``.

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
    """Mahalanobis distance to the nearest label.

    Parameters
    ----------
    features
        ``(n_cells, n_features)``.
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


def principal_axes(expression: sparse.csr_matrix, n_axes: int = _N_AXES) -> NDArray[np.float32]:
    """Directions in which cells differ most; nothing is made dense.

    Parameters
    ----------
    expression
        Log-normalised expression, ``(n_cells, n_genes)``.
    n_axes
        How many; fewer where there are not that many cells or genes.

    Returns
    -------
    ``(n_genes, n_axes)``, orthogonal and of length 1; zeros where all cells are alike.

    Raises
    ------
    ValueError
        If there are not two cells and two genes.

    Examples
    --------
    >>> from scipy import sparse
    >>> cells = sparse.csr_matrix([[3.0, 1.0], [1.0, 1.0], [2.0, 1.1]])
    >>> np.abs(principal_axes(cells)).round(1).tolist()
    [[1.0], [0.0]]
    """
    n_cells, n_genes = expression.shape
    n_axes = min(n_axes, min(n_cells, n_genes) - 1)
    if n_axes < 1:
        raise ValueError(f"{n_cells} cells of {n_genes} genes have no axes.")
    if (expression != expression[np.zeros(n_cells, int)]).nnz == 0:
        return np.zeros((n_genes, n_axes), np.float32)
    fitted = PCA(n_axes, svd_solver="arpack", random_state=0).fit(expression)
    return np.ascontiguousarray(fitted.components_.T, dtype=np.float32)


@dataclass(frozen=True)
class KnownLabels:
    """Where the known labels lie, as the classifier sees cells and as their expression does.

    A classifier attends to what tells its labels apart. What sets a new one apart may be
    something else.

    Parameters
    ----------
    axes
        Of expression, ``(n_genes, n_axes)``.
    logits, expression
        Centers of the labels in the logits, and in expression along the axes.
    """

    axes: NDArray[np.float32]
    logits: LabelCenters
    expression: LabelCenters

    def distance(
        self, logits: NDArray[np.floating], expression: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Distance to the nearest label: the geometric mean of those in both.

        Parameters
        ----------
        logits
            ``(n_cells, n_labels)``; those of labels that came later are left aside.
        expression
            Along the axes, ``(n_cells, n_axes)``.

        Returns
        -------
        ``(n_cells,)``, in standard deviations within a label.
        """
        known = logits[:, : len(self.logits.whitening)]
        seen = distance_to_centers(known, self.logits)
        return np.sqrt(seen * distance_to_centers(expression, self.expression))

    def to_dict(self) -> dict[str, Any]:
        """Plain arrays, to save."""
        return {
            "axes": self.axes,
            "logits": self.logits._asdict(),
            "expression": self.expression._asdict(),
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> KnownLabels:
        """Undo :meth:`to_dict`."""
        return cls(
            saved["axes"], LabelCenters(**saved["logits"]), LabelCenters(**saved["expression"])
        )
