"""Cells, bulk and held-out molecules of the imputation benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData, read_h5ad

from scvi_sctab.metrics import (
    HeldOutScores,
    expression_tertiles,
    molecular_split,
    score_held_out,
    thin_counts,
)

BULK_FILES = {
    "holik": "bulk_holik17_5celllines_10.h5ad",
    "hoek": "bulk_hoek15_sorted_immune_14.h5ad",
    "gtex": "bulk_gtex_54tissue_means.h5ad",
}
# Bulk of the same types, and bulk of other ones, by cells.
MATCHED = {"lines": "holik", "pbmc3k": "hoek", "kang": "hoek"}
OTHER = {"lines": "hoek", "pbmc3k": "holik", "kang": "holik"}
MIN_MOLECULES = 5
N_STRATA = 20


@dataclass(frozen=True)
class Setting:
    """A number of cells, and their depth."""

    data: str
    n_cells: int
    depth: float = 1.0

    def __str__(self) -> str:
        return f"{self.data} {self.n_cells}" + ("" if self.depth == 1 else f", {self.depth:g}")


SETTINGS = (
    Setting("lines", 30, 0.05),
    Setting("lines", 30, 0.25),
    Setting("lines", 30),
    Setting("lines", 100, 0.25),
    Setting("lines", 300, 0.25),
    Setting("lines", 811, 0.25),
    Setting("pbmc3k", 30, 0.25),
    Setting("pbmc3k", 30),
    Setting("pbmc3k", 100),
    Setting("pbmc3k", 300),
    Setting("pbmc3k", 1000),
    Setting("kang", 100),
)


@dataclass(frozen=True)
class Fold:
    """Cells of which one half of the molecules is held out.

    Attributes
    ----------
    setting, seed
        The seed draws cells, their molecules and the split.
    train
        First half of the molecules.
    test
        Second half, CSR.
    others
        Cells that were not drawn, with all their molecules.
    strata
        Tertile of each gene by its molecules in all cells of the data.
    """

    setting: Setting
    seed: int
    train: AnnData
    test: sp.csr_matrix
    others: AnnData
    strata: np.ndarray

    @property
    def library(self) -> np.ndarray:
        """Molecules of each cell in the training half, the size factors of the test half."""
        return np.asarray(self.train.X.sum(axis=1)).ravel()

    def score(self, shares: np.ndarray) -> HeldOutScores:
        """Score shares of genes in the molecules of cells, ``(n_cells, n_genes)``."""
        return score_held_out(self.test, shares, size_factors=self.library, strata=self.strata)


class Data:
    """Data sets of a folder, read once."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.cells = cache(self._cells)
        self.bulk_file = cache(self._bulk_file)

    def _bulk_file(self, name: str) -> AnnData:
        """Read bulk as counts per million."""
        bulk = read_h5ad(self.folder / BULK_FILES[name])
        counts = bulk.X.toarray() if sp.issparse(bulk.X) else np.asarray(bulk.X)
        per_million = counts * (1e6 / counts.sum(axis=1, keepdims=True))
        return AnnData(per_million.astype(np.float32), bulk.obs, bulk.var[[]])

    def _cells(self, name: str, *, shared: bool = True) -> AnnData:
        """Read cells; ``shared`` keeps the genes of all three bulks with enough molecules."""
        if name == "lines":
            cells = read_h5ad(self.folder / "cell_lines_mixology_celseq2_dropseq.h5ad")
            cells = cells[
                (cells.obs["assay"] == "CEL-seq2") & (cells.obs["demuxlet_cls"] == "SNG")
            ]
            labels = cells.obs["cell_line_demuxlet"]
        elif name == "lines-10x":
            cells = read_h5ad(self.folder / "cell_lines_mixology_10x_5cl_2000genes.h5ad")
            cells = cells[cells.obs["demuxlet_cls"] == "SNG"]
            labels = cells.obs["cell_type"]
        elif name == "pbmc3k":
            cells = read_h5ad(self.folder / "pbmc3k_labelled.h5ad")
            labels = cells.obs["cell_type"]
        else:
            cells = read_h5ad(self.folder / "kang18_ifnb_2800.h5ad")
            cells = cells[cells.obs["condition"] == "ctrl"]
            labels = cells.obs["cell_type"]
        if shared:
            keep = np.asarray(cells.X.sum(axis=0)).ravel() >= MIN_MOLECULES
            for bulk in BULK_FILES:
                keep &= cells.var_names.isin(self.bulk_file(bulk).var_names)
            cells = cells[:, keep]
        obs = pd.DataFrame({"label": labels.astype(str).to_numpy()}, cells.obs_names)
        return AnnData(sp.csr_matrix(cells.X, dtype=np.float32), obs, cells.var[[]])

    def fold(self, setting: Setting, seed: int) -> Fold:
        """Draw cells, thin and split their molecules."""
        whole = self.cells(setting.data)
        order = np.random.default_rng(seed).permutation(whole.n_obs)
        drawn, rest = np.sort(order[: setting.n_cells]), np.sort(order[setting.n_cells :])
        counts = whole.X[drawn]
        if setting.depth < 1:
            counts = thin_counts(counts, setting.depth, seed=seed + 1000)
        train, test = molecular_split(counts, seed=seed + 2000)
        strata = expression_tertiles(np.asarray(whole.X.sum(axis=0)).ravel())
        cells = AnnData(train, whole.obs.iloc[drawn].copy(), whole.var.copy())
        return Fold(setting, seed, cells, test, whole[rest].copy(), strata)

    def bulk(self, kind: str, fold: Fold, genes: pd.Index | None = None) -> AnnData:
        """Return bulk on the genes of a fold, in counts per million.

        Parameters
        ----------
        kind
            ``"matched"``, ``"other"``, ``"gtex"``, ``"shuffled"`` (matched, with contrasts of other
            genes) or ``"cells"`` (pseudobulk by label of cells that were not drawn).
        fold
            Cells; the seed of the shuffle is that of the fold.
        genes
            Genes to keep; those of the fold if not given.
        """
        genes = fold.train.var_names if genes is None else genes
        if kind == "cells":
            return pseudobulk(fold.others)[:, genes].copy()
        files = {"matched": MATCHED, "shuffled": MATCHED, "other": OTHER}
        name = "gtex" if kind == "gtex" else files[kind][fold.setting.data]
        bulk = self.bulk_file(name)[:, genes].copy()
        return shuffle_contrasts(bulk, fold.seed) if kind == "shuffled" else bulk


def pseudobulk(cells: AnnData) -> AnnData:
    """Sum the molecules of cells by label, in counts per million."""
    labels = pd.Categorical(cells.obs["label"])
    member = sp.csr_matrix((np.ones(len(labels)), (labels.codes, np.arange(len(labels)))))
    sums = (member @ cells.X).toarray()
    per_million = sums * (1e6 / sums.sum(axis=1, keepdims=True))
    obs = pd.DataFrame(index=pd.Index(labels.categories, dtype=str))
    return AnnData(per_million.astype(np.float32), obs, cells.var[[]])


def shuffle_contrasts(bulk: AnnData, seed: int) -> AnnData:
    """Give each gene the contrasts of another one, and leave its mean log level as it is.

    The other gene has a similar level, since large negative contrasts of a gene with a low level
    would be cut off at 0, which changes the level.
    """
    logs = np.log(np.asarray(bulk.X, dtype=np.float64) + 0.5)
    level = logs.mean(axis=0)
    generator = np.random.default_rng(seed)
    rank = np.argsort(np.argsort(level, kind="stable"), kind="stable")
    source = np.arange(bulk.n_vars)
    for stratum in range(N_STRATA):
        genes = np.flatnonzero(rank * N_STRATA // bulk.n_vars == stratum)
        source[genes] = generator.permutation(genes)
    shuffled = np.exp(level + (logs - level)[:, source]) - 0.5
    return AnnData(np.maximum(shuffled, 0).astype(np.float32), bulk.obs, bulk.var)
