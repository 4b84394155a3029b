"""Rotation of latents in which the shifts of perturbations are sparse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from scvi_sctab._config import ROTATION
from scvi_sctab._logging import logger
from scvi_sctab._messages import warn
from scvi_sctab.external.svae._shifts import LabelledLatents, label_latents

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class SparseRotation:
    """Linear change of coordinates in which the shifts of perturbations are sparse.

    Attributes
    ----------
    matrix
        ``(n_latent, n_latent)``, invertible: whitening within perturbations, then a rotation. A
        module is a column; they are in the order of decreasing effects.
    offset
        ``(n_latent,)``, such that the control, or the common baseline of the perturbations, is 0.
    effects
        Shifts, in standard deviations within perturbations: a row per perturbation, the control
        among them, and a column per module.
    threshold
        ``(n_perturbations,)``: absolute effect above which a module is a target.
    targets
        Boolean, as ``effects``; the control has none.
    criterion
        Geman-McClure criterion at the optimum; the smaller, the sparser.
    share_of_starts
        Share of the starts that found the optimum.
    n_active
        Number of modules that are a target of a perturbation.
    """

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]
    effects: pd.DataFrame
    threshold: NDArray[np.float64]
    targets: pd.DataFrame
    criterion: float
    share_of_starts: float
    n_active: int

    def transform(self, latents: ArrayLike) -> NDArray[np.float64]:
        """Compute the modules of cells.

        Parameters
        ----------
        latents
            ``(n_cells, n_latent)``, of the space in which the rotation was found.

        Raises
        ------
        ValueError
            If the number of latents is another.
        """
        values = np.asarray(latents, dtype=np.float64)
        if values.shape[-1] != len(self.matrix):
            raise ValueError(
                f"`latents` has {values.shape[-1]} columns; the rotation is of {len(self.matrix)} "
                "latents. Pass latents of the same model."
            )
        modules: NDArray[np.float64] = values @ self.matrix + self.offset
        return modules

    def transform_variances(self, variances: ArrayLike) -> NDArray[np.float64]:
        """Compute the variances of modules from those of independent latents.

        Parameters
        ----------
        variances
            ``(..., n_latent)``.
        """
        of_modules: NDArray[np.float64] = np.asarray(variances, np.float64) @ self.matrix**2
        return of_modules


def sparse_rotation(
    latents: ArrayLike,
    labels: ArrayLike,
    control: str | None = None,
    *,
    variances: ArrayLike | None = None,
    n_starts: int = ROTATION.n_starts,
    seed: int = 0,
) -> SparseRotation:
    r"""Find the rotation of latents in which the shifts of perturbations are sparse.

    The likelihood of a variational autoencoder does not change if its latents are rotated. Where
    each perturbation shifts few causal modules :cite:p:`Lopez23`, these are the axes in which the
    matrix of shifts is sparse. With the mean latents :math:`m_a` of the perturbations, whitened by
    the covariance within perturbations, this minimises the criterion of :cite:t:`Geman87`

    .. math::
        \sum_{a,j} \frac{u_{aj}^2}{u_{aj}^2 + s^2}, \quad u_a = (m_a - c) R

    over rotations :math:`R` and the offset :math:`c`, by gradient descent from several random
    starts, while the sharpness :math:`s` falls to one. A module is a target if the absolute effect
    is above the threshold of :cite:t:`Otsu79` between small and large effects, and above
    4.5 standard errors.

    Parameters
    ----------
    latents
        ``(n_cells, n_latent)``: posterior means of a model, or principal components.
    labels
        ``(n_cells,)``: perturbation of each cell. Leave cells with several perturbations out.
    control
        Unperturbed cells among ``labels``, whose mean is the offset. Without, the offset is the
        point around which most perturbations lie in most modules.
    variances
        Posterior variances of cells, of the shape of ``latents``, or their mean per latent. They
        are added to the covariance within perturbations.
    n_starts
        Number of random starts.
    seed
        Seed of the starts.

    Returns
    -------
    Matrix and offset, effects and targets of perturbations. Modules are in the order of decreasing
    effects, and the largest effect on each is positive; their order and signs have no meaning.

    Raises
    ------
    ValueError
        If shapes differ, values are missing, the control is unknown, there are fewer than two
        perturbations besides it, one of them has a single cell, or latents are linearly dependent.

    Warns
    -----
    UserWarning
        If there are fewer than two perturbations per latent, if less than half of the starts found
        the optimum, or if less than half of the modules are a target.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat(["control", "KO1", "KO2", "KO3", "KO4"], 100)
    >>> shifts = np.array([[0, 0], [5, 0], [0, 5], [-5, 0], [5, 5]])
    >>> modules = np.repeat(shifts, 100, axis=0) + rng.normal(size=(500, 2))
    >>> latents = modules @ [[0.6, 0.8], [-0.8, 0.6]]
    >>> rotation = sparse_rotation(latents, labels, "control", n_starts=4)
    >>> rotation.targets.sum(axis=1).to_dict()
    {'KO1': 1, 'KO2': 1, 'KO3': 1, 'KO4': 2, 'control': 0}
    """
    cells = label_latents(latents, labels, control, variances)
    _warn_of_few_perturbations(cells)
    means = cells.means()
    whitening = cells.whitening(means)
    whitened = means @ whitening
    fixed = None if cells.control is None else whitened[cells.control]
    rotations, offsets, criteria = _search(whitened[cells.perturbed], fixed, n_starts, seed)
    best = int(criteria.argmin())
    share = float((criteria <= criteria[best] * (1 + ROTATION.tolerance)).mean())
    rotation = _in_order(rotations[best], whitened[cells.perturbed] - offsets[best])
    effects = (whitened - offsets[best]) @ rotation
    threshold = _thresholds(effects, cells)
    targets = (np.abs(effects) > threshold[:, None]) & cells.perturbed[:, None]
    columns = pd.RangeIndex(effects.shape[1], name="module")
    found = SparseRotation(
        matrix=whitening @ rotation,
        offset=-offsets[best] @ rotation,
        effects=pd.DataFrame(effects, index=cells.names, columns=columns),
        threshold=threshold,
        targets=pd.DataFrame(targets, index=cells.names, columns=columns),
        criterion=float(criteria[best]),
        share_of_starts=share,
        n_active=int(targets.any(axis=0).sum()),
    )
    _report(found)
    return found


def _search(
    means: NDArray[np.float64], fixed: NDArray[np.float64] | None, n_starts: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Minimise the criterion from all starts at once.

    Parameters
    ----------
    means
        ``(n_perturbations, n_latent)``, whitened.
    fixed
        ``(n_latent,)``: offset, None to optimise it.
    n_starts, seed
        As in :func:`sparse_rotation`.

    Returns
    -------
    Rotations ``(n_starts, n_latent, n_latent)``, offsets ``(n_starts, n_latent)`` and criteria
    ``(n_starts,)``.
    """
    if n_starts < 1:
        raise ValueError(f"`n_starts` is {n_starts}; at least one start is needed.")
    n_latent = means.shape[1]
    points = torch.from_numpy(np.ascontiguousarray(means))
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n_starts, n_latent, n_latent, generator=generator, dtype=torch.float64)
    starts = torch.linalg.qr(noise).Q
    weights = torch.zeros_like(starts, requires_grad=True)
    centre = torch.from_numpy(np.median(means, axis=0) if fixed is None else fixed)
    offsets = centre.repeat(n_starts, 1).requires_grad_(fixed is None)
    free = [weights, offsets] if fixed is None else [weights]
    optimizer = torch.optim.Adam(free, lr=ROTATION.lr)
    sharpness = np.geomspace(ROTATION.first_sharpness, ROTATION.sharpness, ROTATION.n_steps)
    with torch.enable_grad():
        for step, s in enumerate(sharpness):
            # Without decay, starts stop around the optimum, further from it than the tolerance.
            optimizer.param_groups[0]["lr"] = ROTATION.lr * (1 - step / ROTATION.n_steps)
            optimizer.zero_grad()
            _criteria(points, starts @ _cayley(weights), offsets, s).sum().backward()
            optimizer.step()
    with torch.no_grad():
        rotations = starts @ _cayley(weights)
        criteria = _criteria(points, rotations, offsets, ROTATION.sharpness)
    return rotations.numpy(), offsets.detach().numpy(), criteria.numpy()


def _cayley(weights: torch.Tensor) -> torch.Tensor:
    """Compute rotations from any square matrices, by the Cayley transform of their skew part."""
    skew = weights - weights.mT
    eye = torch.eye(weights.shape[-1], dtype=weights.dtype)
    return torch.linalg.solve(eye + skew, eye - skew)


def _criteria(
    points: torch.Tensor, rotations: torch.Tensor, offsets: torch.Tensor, sharpness: float
) -> torch.Tensor:
    """Compute the Geman-McClure criterion of each start, ``(n_starts,)``."""
    squares = ((points - offsets[:, None]) @ rotations).square()
    return (squares / (squares + sharpness**2)).sum(dim=(1, 2))


def _in_order(rotation: NDArray[np.float64], centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sort the axes by the sum of absolute effects, and turn the largest effect positive."""
    effects = centred @ rotation
    order = np.argsort(-np.abs(effects).sum(axis=0), kind="stable")
    largest = np.abs(effects).argmax(axis=0)
    signs = np.where(effects[largest, np.arange(effects.shape[1])] < 0, -1.0, 1.0)
    ordered: NDArray[np.float64] = (rotation * signs)[:, order]
    return ordered


def _thresholds(effects: NDArray[np.float64], cells: LabelledLatents) -> NDArray[np.float64]:
    """Compute the absolute effect above which a module is a target, per perturbation."""
    split = otsu_threshold(np.abs(effects[cells.perturbed]).ravel())
    # The mean of the controls has an error as well; that of the common baseline is negligible.
    n_control = np.inf if cells.control is None else cells.counts[cells.control]
    floor = ROTATION.noise_floor * np.sqrt(1 / cells.counts + 1 / n_control)
    return np.maximum(split, floor)


def otsu_threshold(values: NDArray[np.float64]) -> float:
    """Split values into two groups with the largest variance between them :cite:p:`Otsu79`.

    Parameters
    ----------
    values
        ``(n,)``.

    Returns
    -------
    The middle between the largest value of the lower group and the smallest of the upper one; the
    value itself if all are equal.

    Examples
    --------
    >>> float(otsu_threshold(np.array([0.0, 0.2, 5.0, 0.1, 4.0])))
    2.1
    """
    ordered = np.sort(values)
    sums = np.cumsum(ordered)
    n_low = np.arange(1, len(ordered))
    n_high = len(ordered) - n_low
    distance = sums[:-1] / n_low - (sums[-1] - sums[:-1]) / n_high
    variance = n_low * n_high * distance**2
    # A split between equal values would put equal effects on both sides.
    variance[ordered[1:] == ordered[:-1]] = -1
    if len(variance) == 0 or variance.max() < 0:
        return float(ordered[-1])
    split = int(variance.argmax())
    return float((ordered[split] + ordered[split + 1]) / 2)


def _warn_of_few_perturbations(cells: LabelledLatents) -> None:
    n_perturbed, n_latent = int(cells.perturbed.sum()), cells.values.shape[1]
    if n_perturbed < ROTATION.perturbations_per_latent * n_latent:
        warn(
            f"{n_perturbed} perturbations for {n_latent} latents: a sparse rotation is reliable "
            f"with at least {ROTATION.perturbations_per_latent:.0f} perturbations per latent. "
            "Compare the targets of several seeds of the model."
        )


def _report(rotation: SparseRotation) -> None:
    """Log the result, and warn if the optimum is uncertain or latents are dead."""
    n_latent = len(rotation.offset)
    logger.info(
        f"Sparse rotation: {rotation.share_of_starts:.0%} of starts at the optimum, "
        f"{rotation.n_active} of {n_latent} latents are targets, effects above "
        f"{rotation.threshold.min():.2f} standard deviations are targets."
    )
    if rotation.share_of_starts < ROTATION.min_share_of_starts:
        warn(
            f"Only {rotation.share_of_starts:.0%} of the starts found the best rotation, so that "
            "another may be as sparse. Pass a larger `n_starts`, and compare the targets of "
            "several seeds of the model."
        )
    if rotation.n_active < n_latent / 2:
        warn(
            f"Only {rotation.n_active} of {n_latent} latents are a target of a perturbation; the "
            "others vary within perturbations, or are unused. If you expect more targets, take more "
            "cells per perturbation, or compare several models. Of SCVI, train with a KL warm-up "
            "over all epochs: `plan_kwargs={'n_epochs_kl_warmup': max_epochs}`."
        )
