"""Simulated perturbation screens with known targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from scvi_sctab.external.svae._design import PAPER_DESIGN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scvi_sctab.external.svae._design import PerturbationDesign

CONTROL = "control"
"""Name of the unperturbed cells of a simulated screen."""
_WIDTHS = (40, 40, 40)
_SLOPE = 0.2


def simulate_perturbations(design: PerturbationDesign = PAPER_DESIGN, *, seed: int = 0) -> AnnData:
    r"""Simulate a screen in which each perturbation shifts few latents :cite:p:`Lopez23`.

    With the targets :math:`\gamma_a` and the shift :math:`\mu_a` of a perturbation, the latents of
    its cells are :math:`z \sim N(\gamma_a \circ \mu_a, I)`. A network with random orthogonal weights
    turns them into logits of genes with variance 1, from which counts are drawn.

    Parameters
    ----------
    design
        Numbers of cells, genes and perturbations, shifts and noise. Change one of them by
        ``dataclasses.replace(REALISTIC_DESIGN, n_batches=3, batch_sd=0.3)``.
    seed
        Seed. Network and shifts do not depend on the number of cells or their noise.

    Returns
    -------
    Counts ``(n_cells, n_genes)``, with

    - ``obs``: ``perturbation`` and ``batch``,
    - ``obsm["latent"]``: true latents,
    - ``uns["effects"]``, ``uns["targets"]``: frames of perturbations (control and combinations
      among them) by latents, shifts and whether they are targets.

    Examples
    --------
    >>> from scvi_sctab.external.svae import PerturbationDesign
    >>> adata = simulate_perturbations(PerturbationDesign(n_perturbations=20, n_cells=50))
    >>> adata.shape, adata.uns["targets"].shape
    ((1000, 100), (20, 15))
    """
    of_truth, of_network, of_cells, of_counts = map(
        np.random.default_rng, np.random.SeedSequence(seed).spawn(4)
    )
    effects, targets = _draw_effects(design, of_truth)
    codes = np.repeat(np.arange(len(effects)), _count_cells(design, list(effects.index), of_cells))
    latents = effects.to_numpy()[codes] + _draw_residuals(design, len(codes), of_cells)
    batches = of_cells.integers(design.n_batches, size=len(codes))
    logits = _decode(latents, design.n_genes, of_network)
    logits += design.batch_sd * of_network.normal(size=(design.n_batches, design.n_genes))[batches]
    counts = _draw_counts(_mean_counts(logits, design, of_counts), design, of_counts)
    obs = {
        "perturbation": pd.Categorical.from_codes(codes, effects.index),
        "batch": pd.Categorical([f"batch_{i}" for i in batches]),
    }
    return AnnData(
        counts,
        obs=pd.DataFrame(obs, index=[f"cell_{i}" for i in range(len(codes))]),
        var=pd.DataFrame(index=[f"gene_{i}" for i in range(design.n_genes)]),
        obsm={"latent": latents},
        uns={"effects": effects, "targets": targets},
    )


def _draw_effects(
    design: PerturbationDesign, rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw shifts and targets of singles, and sum those of combinations."""
    n, n_latent = design.n_perturbations, design.n_latent
    targets = np.zeros((n, n_latent), dtype=bool)
    drawn = rng.integers(n_latent, size=(n, design.max_targets))
    kept = np.arange(design.max_targets) < rng.integers(1, design.max_targets + 1, size=(n, 1))
    rows = np.nonzero(kept)[0]
    targets[rows, drawn[kept]] = True
    partner = np.minimum(np.arange(n_latent) ^ 1, n_latent - 1)
    targets |= targets[:, partner] & (rng.random((n, n_latent)) < design.partner_rate)
    tail, shape = design.shift_tail, (n, n_latent)
    noise = rng.normal(size=shape) if tail is None else rng.standard_t(tail, size=shape)
    sizes = np.abs(design.shift + design.shift_sd * noise) * rng.choice([-1.0, 1.0], size=shape)
    background = design.background_sd * rng.normal(size=shape)
    names = [f"P{i:03d}" for i in range(n)]
    columns = [f"latent_{j}" for j in range(n_latent)]
    effects = pd.DataFrame(np.where(targets, sizes, background), names, columns)
    masks = pd.DataFrame(targets, names, columns)
    left, right = _draw_pairs(n, design.n_combinations, rng)
    pairs = [f"{names[i]}+{names[j]}" for i, j in zip(left, right, strict=True)]
    summed = pd.DataFrame(effects.to_numpy()[left] + effects.to_numpy()[right], pairs, columns)
    joined = pd.DataFrame(targets[left] | targets[right], pairs, columns)
    control = [CONTROL] if design.n_control_cells else []
    none = pd.DataFrame(np.zeros((len(control), n_latent)), control, columns)
    return (
        pd.concat([effects, summed, none]).rename_axis("perturbation"),
        pd.concat([masks, joined, none.astype(bool)]).rename_axis("perturbation"),
    )


def _draw_pairs(
    n: int, n_pairs: int, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Draw different pairs of ``n`` perturbations."""
    left, right = np.triu_indices(n, k=1)
    chosen = np.sort(rng.choice(len(left), size=n_pairs, replace=False))
    return left[chosen], right[chosen]


def _count_cells(
    design: PerturbationDesign, names: list[str], rng: np.random.Generator
) -> NDArray[np.intp]:
    """Draw the number of cells of each perturbation, at least two."""
    spread = np.exp(design.n_cells_spread * rng.normal(size=len(names)))
    counts = np.maximum(2, np.rint(design.n_cells * spread)).astype(np.intp)
    return np.where(np.array(names) == CONTROL, design.n_control_cells, counts)


def _draw_residuals(
    design: PerturbationDesign, n_cells: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw differences of cells from the mean of their perturbation."""
    axes = np.linalg.qr(rng.normal(size=(design.n_latent, design.n_latent)))[0]
    scales = np.exp(design.anisotropy * rng.normal(size=design.n_latent))
    # Symmetric, so that equal scales leave the axes of the latents alone.
    mixing = axes * scales @ axes.T
    residuals: NDArray[np.float64] = rng.normal(size=(n_cells, design.n_latent)) @ mixing
    return residuals


def _decode(
    latents: NDArray[np.float64], n_genes: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Compute logits of variance 1 by a network with orthogonal weights."""
    hidden = latents
    widths = (latents.shape[1], *_WIDTHS, n_genes)
    for layer, (n_in, n_out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        if layer:
            hidden = np.where(hidden > 0, hidden, _SLOPE * hidden)
        basis = np.linalg.qr(rng.normal(size=(max(n_in, n_out), min(n_in, n_out))))[0]
        hidden = hidden @ (basis if n_in > n_out else basis.T)
    logits: NDArray[np.float64] = hidden / hidden.std()
    return logits


def _mean_counts(
    logits: NDArray[np.float64], design: PerturbationDesign, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Compute mean counts, ``(n_cells, n_genes)``."""
    rates = np.exp(logits - logits.max())
    if design.normalization == "gene":
        means = rates / rates.mean(axis=0) * (design.depth / design.n_genes)
    else:
        means = rates / rates.sum(axis=1, keepdims=True) * design.depth
    spread = design.library_spread
    # Minus half of the variance, so that the mean library size is the depth.
    sizes = np.exp(spread * rng.normal(size=len(means)) - spread**2 / 2)
    scaled: NDArray[np.float64] = means * sizes[:, None]
    return scaled


def _draw_counts(
    means: NDArray[np.float64], design: PerturbationDesign, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draw negative binomial counts, and lose some of them."""
    if design.overdispersion > 0:
        shape = 1 / design.overdispersion
        means = means * rng.gamma(shape, design.overdispersion, size=means.shape)
    counts = rng.poisson(means).astype(np.float32)
    if design.dropout > 0:
        counts[rng.random(counts.shape) < design.dropout] = 0
    return counts
