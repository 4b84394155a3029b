"""Mean latents of perturbations, in units of the standard deviation within perturbations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from scvi_sctab._messages import list_names, list_near_names

RELATIVE_TOLERANCE = 1e-10
"""Share of the largest eigenvalue below which latents are linearly dependent."""


@dataclass(frozen=True)
class LabelledLatents:
    """Latents of cells with their perturbations.

    Attributes
    ----------
    values
        ``(n_cells, n_latent)``.
    variances
        ``(n_latent,)``: mean variance of the posterior of a cell.
    names
        Perturbations, the control among them.
    codes
        ``(n_cells,)``: positions in ``names``.
    counts
        ``(n_perturbations,)``: numbers of cells.
    control
        Position of the control in ``names``, or None.
    """

    values: NDArray[np.float64]
    variances: NDArray[np.float64]
    names: pd.Index
    codes: NDArray[np.intp]
    counts: NDArray[np.intp]
    control: int | None

    @property
    def perturbed(self) -> NDArray[np.bool_]:
        """``(n_perturbations,)``: True but for the control."""
        return np.arange(len(self.names)) != (-1 if self.control is None else self.control)

    def means(self) -> NDArray[np.float64]:
        """Average the latents of each perturbation.

        Returns
        -------
        ``(n_perturbations, n_latent)``.
        """
        entries = (np.ones(len(self.codes)), (self.codes, np.arange(len(self.codes))))
        members = sparse.csr_matrix(entries, shape=(len(self.names), len(self.codes)))
        sums: NDArray[np.float64] = members @ self.values
        return sums / self.counts[:, None]

    def whitening(self, means: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute the inverse square root of the covariance within perturbations.

        Parameters
        ----------
        means
            Those of the perturbations.

        Returns
        -------
        ``(n_latent, n_latent)``, symmetric.

        Raises
        ------
        ValueError
            If a latent is constant, or a linear combination of the others.
        """
        residuals = self.values - means[self.codes]
        n_free = len(residuals) - len(means)
        covariance = residuals.T @ residuals / n_free + np.diag(self.variances)
        eigenvalues, vectors = np.linalg.eigh(covariance)
        rank = int((eigenvalues > eigenvalues[-1] * RELATIVE_TOLERANCE).sum())
        if rank < len(eigenvalues):
            raise ValueError(
                f"The {len(eigenvalues)} latents vary in {rank} directions only within "
                "perturbations: one is constant, or a sum of others. Pass the posterior variances "
                "as `variances=`, or fewer latents (principal components, say)."
            )
        root: NDArray[np.float64] = vectors / np.sqrt(eigenvalues) @ vectors.T
        return root


def label_latents(
    latents: ArrayLike,
    labels: ArrayLike,
    control: str | None,
    variances: ArrayLike | None,
) -> LabelledLatents:
    """Check latents and labels of cells.

    Parameters
    ----------
    latents, labels, control, variances
        As in :func:`~scvi_sctab.external.svae.sparse_rotation`.

    Raises
    ------
    ValueError
        If shapes differ, values are missing, the control is unknown, there are fewer than two
        perturbations besides it, or one of them has a single cell.
    """
    values = np.asarray(latents, dtype=np.float64)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(
            f"`latents` has the shape {values.shape}; pass a table with a row per cell and a "
            "column per latent."
        )
    # Through a list, since numpy cuts strings and reads None as a word.
    series = pd.Series(list(np.asarray(labels, dtype=object).ravel()), dtype=object)
    if len(series) != len(values):
        raise ValueError(
            f"`labels` has {len(series):,} entries and `latents` {len(values):,} rows; pass the "
            "perturbation of each row."
        )
    _refuse_missing(values, "latents")
    if series.isna().any():
        raise ValueError(
            f"`labels` is missing for {int(series.isna().sum()):,} cells, the first at position "
            f"{int(series.isna().argmax()):,}. Leave these cells out: "
            "`latents[labels.notna()], labels[labels.notna()]`."
        )
    codes, names = pd.factorize(series.astype(str), sort=True)
    names = pd.Index(names, dtype=object, name="perturbation")
    counts = np.bincount(codes, minlength=len(names))
    position = _find_control(names, control)
    _check_counts(names, counts, position)
    return LabelledLatents(
        values, _mean_variances(variances, values.shape), names, codes, counts, position
    )


def _refuse_missing(values: NDArray[np.float64], argument: str) -> None:
    wrong = ~np.isfinite(values)
    if wrong.any():
        first = ", ".join(map(str, np.argwhere(wrong)[0]))
        raise ValueError(
            f"`{argument}` has {int(wrong.sum()):,} missing or infinite values, the first at "
            f"[{first}]. Leave these cells out, or train again with a smaller learning rate if a "
            "model returned them."
        )


def _mean_variances(variances: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Average posterior variances over cells; zeros if there are none."""
    if variances is None:
        return np.zeros(shape[1])
    values = np.asarray(variances, dtype=np.float64)
    if values.shape not in (shape, shape[1:]):
        raise ValueError(
            f"`variances` has the shape {values.shape}; pass {shape}, as that of `latents`, or "
            f"{shape[1:]}, one variance per latent."
        )
    _refuse_missing(values, "variances")
    if (values < 0).any():
        raise ValueError("`variances` has negative values; pass variances, not their logarithms.")
    return values.mean(axis=0) if values.ndim == 2 else values


def _find_control(names: pd.Index, control: str | None) -> int | None:
    if control is None:
        return None
    if str(control) not in names:
        raise ValueError(
            f"No cell has the control {list_near_names([control], names)}. `labels` has "
            f"{list_names(names)}: pass one of them as `control=`, or `control=None` if there are "
            "no control cells."
        )
    return int(names.get_loc(str(control)))


def _check_counts(names: pd.Index, counts: NDArray[np.intp], control: int | None) -> None:
    n_perturbed = len(names) - (control is not None)
    if n_perturbed < 2:
        found = list_names(name for i, name in enumerate(names) if i != control) or "none"
        besides = "" if control is None else f" besides the control {str(names[control])!r}"
        raise ValueError(
            f"A sparse rotation takes at least two perturbations{besides}; `labels` has {found}."
        )
    single = names[counts == 1]
    if len(single):
        raise ValueError(
            f"{len(single)} perturbations have a single cell: {list_names(single)}. Their shift "
            "cannot be told from noise; leave them out: `keep = labels.map(labels.value_counts()) "
            "> 1`, then `latents[keep], labels[keep]`."
        )
