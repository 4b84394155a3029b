"""Simulated laboratories: real cells, measured again with other chemistry, depth and purity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.random import Generator
from scipy import sparse

from scvi_sctab.data import find_column, read_counts

_SHARES = ("ambient", "doublet_rate", "lost_genes")


@dataclass(frozen=True)
class Laboratory:
    """What a laboratory does to the counts of cells.

    Parameters
    ----------
    capture_sd
        Standard deviation of the logarithm of each gene's capture, relative to the laboratory that
        measured the cells.
    depth
        Mean number of molecules per cell, relative to that of the cells.
    ambient
        Share of the molecules of each cell that come from other cells, in [0, 1).
    doublet_rate
        Share of cells that hold the molecules of another cell, too, in [0, 1).
    lost_genes
        Share of genes that are not measured, in [0, 1).
    types
        Labels of a sorted sample; other cells are left out. All if not given.

    Raises
    ------
    ValueError
        If a share is not in [0, 1), ``capture_sd`` is negative or ``depth`` not positive.

    Examples
    --------
    >>> Laboratory.draw(seed=0).ambient < 0.2
    True
    """

    capture_sd: float = 0.6
    depth: float = 1.0
    ambient: float = 0.05
    doublet_rate: float = 0.05
    lost_genes: float = 0.0
    types: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in _SHARES:
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} is not a share in [0, 1).")
        if self.capture_sd < 0 or self.depth <= 0:
            raise ValueError(
                f"capture_sd={self.capture_sd!r} must be 0 or more, depth={self.depth!r} above 0."
            )

    @classmethod
    def draw(cls, seed: int, types: Sequence[str] = ()) -> Laboratory:
        """Draw a laboratory, from much like the one of the cells to very unlike it.

        Capture differs by a standard deviation of .3, .6 or 1, depth by a factor of 1/4 to 4,
        up to 20 % of the molecules are ambient, up to 15 % of the cells doublets, and up to 30 % of
        the genes lost. One in three laboratories sorts one to three of the types.

        Parameters
        ----------
        seed
            Seed of the draw.
        types
            Labels that a sorted sample is drawn from; without them no sample is sorted.
        """
        rng = np.random.default_rng(seed)
        drawn = cls(
            capture_sd=float(rng.choice([0.3, 0.6, 1.0])),
            depth=float(4 ** rng.uniform(-1, 1)),
            ambient=float(rng.uniform(0, 0.2)),
            doublet_rate=float(rng.uniform(0, 0.15)),
            lost_genes=float(rng.uniform(0, 0.3)),
        )
        is_sorted, n_types = rng.random() < 1 / 3, int(rng.integers(1, 4))
        known = sorted(types)
        if not (is_sorted and known):
            return drawn
        kept = rng.choice(known, min(n_types, len(known)), replace=False)
        return replace(drawn, types=tuple(str(label) for label in sorted(kept)))


def simulate_laboratory(
    adata: AnnData,
    laboratory: Laboratory | None = None,
    *,
    labels_key: str | None = None,
    layer: str | None = None,
    seed: int = 0,
) -> AnnData:
    """Measure cells again, in another laboratory.

    The truth about the cells stays known, so that one can ask how far annotations would hold, and
    whether one would notice: annotate the result, and compare with its labels.

    Parameters
    ----------
    adata
        Cells with raw counts, in memory or backed.
    laboratory
        What it does; its defaults if not given.
    labels_key
        Column of ``adata.obs`` with the labels that a sorted sample is taken by.
    layer
        Layer with raw counts; ``X`` if not given.
    seed
        Seed of all draws.

    Returns
    -------
    ``(n_kept_cells, n_kept_genes)`` raw counts in ``X``, CSR, float32, with the columns of
    ``adata.obs`` and ``is_doublet``; ``var["capture"]`` holds the capture of each gene.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If the laboratory sorts types that are not there, or the counts are not raw.
    """
    laboratory = laboratory or Laboratory()
    rng = np.random.default_rng(seed)
    kept = _sorted_cells(adata, laboratory.types, labels_key)
    counts = sparse.vstack([*read_counts(adata, layer, kept)], format="csr").astype(np.int64)
    is_doublet = rng.random(len(kept)) < laboratory.doublet_rate
    counts = _add_second_cells(counts, is_doublet, rng)
    capture = np.exp(
        rng.normal(-(laboratory.capture_sd**2) / 2, laboratory.capture_sd, adata.n_vars)
    )
    # The profile keeps its sum: capture changes proportions, and `depth` alone the total.
    profile = np.asarray(counts.sum(axis=0)).ravel().astype(float)
    capture *= profile.sum() / max((profile * capture).sum(), 1.0)
    counts = _scale(counts, capture * laboratory.depth, rng)
    counts = _mix_in_ambient(counts, laboratory.ambient, rng)
    genes = np.flatnonzero(rng.random(adata.n_vars) >= laboratory.lost_genes)
    obs = adata.obs.iloc[kept].assign(is_doublet=is_doublet)
    var = pd.DataFrame({"capture": capture[genes]}, index=adata.var_names[genes])
    return AnnData(counts[:, genes].astype(np.float32), obs=obs, var=var)


def _sorted_cells(
    adata: AnnData, types: tuple[str, ...] | None, labels_key: str | None
) -> np.ndarray:
    """Return positions of the cells of the types."""
    if types is None:
        return np.arange(adata.n_obs)
    if labels_key is None:
        raise ValueError(f"To sort {', '.join(types)}, say where labels are: `labels_key=`.")
    labels = find_column(adata.obs, labels_key, "labels_key").astype(str)
    unknown = [label for label in types if not (labels == label).any()]
    if unknown:
        raise ValueError(f"No cell has the label {', '.join(map(repr, unknown))} to sort.")
    return np.flatnonzero(labels.isin(types))


def _add_second_cells(counts: Any, is_doublet: np.ndarray, rng: Generator) -> Any:
    """Add the molecules of another cell, drawn at random, to those of each doublet."""
    second = rng.integers(counts.shape[0], size=int(is_doublet.sum()))
    place = sparse.csr_matrix(
        (np.ones(len(second), np.int64), (np.flatnonzero(is_doublet), second)),
        shape=(counts.shape[0],) * 2,
    )
    return (counts + place @ counts).tocsr()


def _scale(counts: Any, factor: np.ndarray, rng: Generator) -> Any:
    """Thin or multiply the molecules of each gene, so that their mean is ``factor`` times theirs."""
    scaled = counts.copy()
    per_entry = factor[counts.indices]
    fewer = rng.binomial(counts.data, np.minimum(per_entry, 1))
    scaled.data = fewer + rng.poisson(counts.data * np.maximum(per_entry - 1, 0))
    scaled.eliminate_zeros()
    return scaled


def _mix_in_ambient(counts: Any, share: float, rng: Generator) -> Any:
    """Replace a share of each cell's molecules by draws from the mean profile of all cells."""
    if share == 0 or counts.sum() == 0:
        return counts
    profile = np.asarray(counts.sum(axis=0)).ravel() / counts.sum()
    own = _scale(counts, np.full(counts.shape[1], 1 - share), rng)
    n_replaced = np.asarray((counts - own).sum(axis=1)).ravel()
    cells = np.repeat(np.arange(counts.shape[0]), n_replaced)
    genes = rng.choice(counts.shape[1], size=len(cells), p=profile)
    ambient = sparse.csr_matrix(
        (np.ones(len(cells), np.int64), (cells, genes)), shape=counts.shape
    )
    return (own + ambient).tocsr()
