"""Ridge regression on several views of few labelled cells, solved at once, with each cell left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scvi_sctab._config import FewLabelsConfig

# Eigenvalues below this share of the largest are those of rounding.
_RANK_TOLERANCE = 1e-10
# Variance of scores, which are between -1 and 1, of labels that are told apart without an error.
_MIN_SPREAD = 1e-4
# Mean squared norm of a cell in a view, below which all cells count as the same.
_MIN_UNIT = 1e-8
# Logit of a label without another cell.
_ABSENT = -10.0
# The sharpness of scores lies between these powers of e.
_SHARPNESS = (-7.0, 3.0)


@dataclass(frozen=True)
class RidgeFit:
    r"""Logits of cells as sums over the labelled cells.

    With :math:`k_v` the kernel of a view, :math:`f_v` its factor and :math:`A` the coefficients, the
    logits of a cell are :math:`\sum_{v,i} f_v\, k_v(x_i, x)\, A_i + b`.

    Parameters
    ----------
    coefficients
        ``(n_cells, n_labels)``.
    intercept
        ``(n_labels,)``.
    shares
        Share of each view in the mean squared norm of a cell, ``(n_views,)``; their sum is 1.
    factors
        Factor of the kernel of each view, ``(n_views,)``.
    penalty
        Weight of the squared norm that was chosen.
    left_out
        Logits of each cell by the fit to all others, ``(n_cells, n_labels)``.
    """

    coefficients: NDArray[np.float64]
    intercept: NDArray[np.float64]
    shares: NDArray[np.float64]
    factors: NDArray[np.float64]
    penalty: float
    left_out: NDArray[np.float64]


def fit_ridge(
    kernels: Sequence[NDArray[np.float64]],
    codes: NDArray[np.int64],
    class_weights: NDArray[np.floating],
    config: FewLabelsConfig,
    optional: Sequence[bool] | None = None,
) -> RidgeFit:
    r"""Regress labels on several views of cells, by the squared error of cells that are left out.

    Targets are 1 for the label of a cell and -1 for all others. Among the penalties and shares of
    views of ``config``, those are taken that predict best each cell without itself, which is exact:
    with :math:`H` the matrix that maps targets to fits, the residual of a cell by all others is its
    own divided by :math:`1 - H_{ii}`.

    Scores become logits in two readings with equal say: multiplied by a factor, and by a linear
    discriminant analysis of the scores of cells that were left out, which is the optimal scoring of
    :cite:t:`Hastie94`. A label between two others in a plane has the largest score nowhere, and is
    found by the second only. A last factor is that of maximum likelihood.

    Parameters
    ----------
    kernels
        Inner products of the labelled cells in each view, ``(n_cells, n_cells)``.
    codes
        Codes of their labels, ``(n_cells,)``.
    class_weights
        Weight of the cells of each label, ``(n_labels,)``; 0 for labels without cells.
    config
        Penalties and shares to choose from.
    optional
        Whether a view may go without a share, ``(n_views,)``; none may if not given.

    Notes
    -----
    Ridge regression on one-hot targets is as good here as a logistic regression, and everything
    that is chosen is chosen without fitting again. What is left out is exact for the views, penalty
    and shares that were chosen, which have seen all cells. A label without cells is never predicted.

    Examples
    --------
    >>> from scvi_sctab._config import FEW_LABELS
    >>> x = np.array([[0.0], [0.1], [1.0], [1.1]])
    >>> fit = fit_ridge([x @ x.T], np.array([0, 0, 1, 1]), np.ones(2), FEW_LABELS)
    >>> fit.left_out.argmax(axis=1)
    array([0, 0, 1, 1])
    """
    weights = class_weights[codes].astype(np.float64)
    weights /= weights.mean()
    targets = np.where(codes[:, None] == np.arange(len(class_weights)), 1.0, -1.0)
    units = [max(np.trace(kernel) / len(kernel), _MIN_UNIT) for kernel in kernels]
    best: tuple[float, Any, Any] | None = None
    for shares in _shares(len(kernels), config.ratios, optional):
        joined = sum(s / u * k for s, u, k in zip(shares, units, kernels, strict=True))
        solver = _Solver.of(np.asarray(joined), weights)
        for penalty in config.penalties:
            left_out = solver.left_out(targets, penalty)
            error = float((weights[:, None] * (targets - left_out) ** 2).mean())
            if best is None or error < best[0]:
                best = error, (shares, solver, penalty), left_out
    assert best is not None
    _, (shares, solver, penalty), scores = best
    map_, offset, left_out = _read_scores(scores, codes, weights, config.shrinkage)
    coefficients, intercept = solver.solve(targets, penalty)
    return RidgeFit(
        coefficients @ map_,
        intercept @ map_ + offset,
        shares,
        shares / np.array(units),
        penalty,
        left_out,
    )


@dataclass(frozen=True)
class _Solver:
    """Weighted kernel ridge regression with an intercept that is not penalised.

    Parameters
    ----------
    vectors, values
        Eigenvectors and eigenvalues of the centred and weighted kernel.
    root
        Square roots of the weights, ``(n_cells,)``.
    kernel_means
        Weighted mean of each column of the kernel, ``(n_cells,)``.
    """

    vectors: NDArray[np.float64]
    values: NDArray[np.float64]
    root: NDArray[np.float64]
    kernel_means: NDArray[np.float64]

    @classmethod
    def of(cls, kernel: NDArray[np.float64], weights: NDArray[np.float64]) -> _Solver:
        """Centre a kernel at the weighted mean of its cells, and decompose it."""
        share, root = weights / weights.sum(), np.sqrt(weights)
        means = share @ kernel
        centred = kernel - means - means[:, None] + share @ kernel @ share
        values, vectors = np.linalg.eigh(root[:, None] * centred * root)
        kept = values > _RANK_TOLERANCE * max(values[-1], 1e-300)
        return cls(vectors[:, kept], values[kept], root, means)

    def left_out(self, targets: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
        """Predict each cell by the fit to all others, ``(n_cells, n_targets)``."""
        shrunk = self.values / (self.values + penalty)
        constant = self.root / np.linalg.norm(self.root)
        scaled = self.root[:, None] * targets
        fitted = self.vectors @ (shrunk[:, None] * (self.vectors.T @ scaled))
        fitted += constant[:, None] * (constant @ scaled)
        leverage = (self.vectors**2) @ shrunk + constant**2
        residual = (scaled - fitted) / np.maximum(1.0 - leverage, 1e-12)[:, None]
        return targets - residual / self.root[:, None]

    def solve(
        self, targets: NDArray[np.float64], penalty: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return coefficients of the cells, which sum to 0, and the intercept."""
        share = self.root**2 / (self.root**2).sum()
        means = share @ targets
        scaled = self.root[:, None] * (targets - means)
        projected = (self.vectors.T @ scaled) / (self.values + penalty)[:, None]
        coefficients = self.root[:, None] * (self.vectors @ projected)
        return coefficients, means - self.kernel_means @ coefficients


def _shares(
    n_views: int, ratios: Sequence[float], optional: Sequence[bool] | None
) -> Iterator[NDArray[np.float64]]:
    """Yield every combination of shares that differ by the given ratios, once."""
    optional = optional or [False] * n_views
    choices = [(*ratios, 0.0) if may_go else tuple(ratios) for may_go in optional]
    for shares in product(*choices):
        # Multiples of another combination differ from it by nothing.
        if min(share for share in shares if share) == min(ratios):
            yield np.array(shares) / sum(shares)


def _read_scores(
    scores: NDArray[np.float64],
    codes: NDArray[np.int64],
    weights: NDArray[np.float64],
    shrinkage: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the linear map from scores to logits, its offset, and the logits of these cells.

    The logits of a cell go without its part in the mean of its label.
    """
    counts = np.bincount(codes, minlength=scores.shape[1])
    sums = np.zeros((len(counts), len(counts)))
    np.add.at(sums, codes, scores)
    means = sums / np.maximum(counts, 1)[:, None]
    residual = scores - means[codes]
    within = (residual * (weights / weights.sum())[:, None]).T @ residual
    spread = max(np.trace(within) / len(within), _MIN_SPREAD)
    within = (1 - shrinkage) * within + shrinkage * spread * np.eye(len(within))
    slopes = np.linalg.solve(within, means.T)
    offset = np.where(counts > 0, -0.5 * (means * slopes.T).sum(axis=1), _ABSENT)
    slopes[:, counts == 0] = 0

    discriminant = scores @ slopes + offset
    others = counts[codes] - 1
    without = (sums[codes] - scores) / np.maximum(others, 1)[:, None]
    slope = np.linalg.solve(within, without.T).T
    own = ((scores - without / 2) * slope).sum(axis=1)
    discriminant[np.arange(len(codes)), codes] = np.where(others > 0, own, _ABSENT)

    factor = _sharpness(scores, codes, weights)
    both = factor * scores + discriminant
    last = _sharpness(both, codes, weights)
    return last * (factor * np.eye(len(counts)) + slopes), last * offset, last * both


def _sharpness(
    scores: NDArray[np.float64], codes: NDArray[np.int64], weights: NDArray[np.float64]
) -> float:
    """Find the factor of scores of maximum likelihood, as if one more cell were wrong.

    Without that cell, labels that are told apart without an error would be stated as certain.
    """
    doubt, rows = 1 / (len(codes) + 2), np.arange(len(codes))
    others = scores.copy()
    others[rows, codes] = -np.inf
    second = others.argmax(axis=1)

    def loss(log_factor: float) -> float:
        stated = log_softmax(np.exp(log_factor) * scores, axis=1)
        return -float(weights @ ((1 - doubt) * stated[rows, codes] + doubt * stated[rows, second]))

    return float(np.exp(minimize_scalar(loss, bounds=_SHARPNESS, method="bounded").x))
