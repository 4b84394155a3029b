"""Protein tasks: cells with RNA and proteins, and cells whose proteins are to be predicted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from anndata import AnnData, read_h5ad

PROTEINS = "protein_expression"
TEN_K, FIVE_K = "cite_pbmc_10k_protein_v3_200.h5ad", "cite_pbmc_5k_protein_v3_200.h5ad"
MALT, ECCITE = "cite_malt_1000.h5ad", "cite_eccite_pbmc_500.h5ad"
N_FOLDS = 5


@dataclass(frozen=True)
class ProteinSplit:
    """Raw counts over the same genes, and the proteins that both sides measure.

    Parameters
    ----------
    reference
        Cells with proteins in ``obsm``, a data frame of counts.
    query
        Cells without.
    truth
        ``log1p`` of the query's protein counts, ``(n_query, n_proteins)``.
    """

    reference: AnnData
    query: AnnData
    truth: np.ndarray


@dataclass(frozen=True)
class ProteinTask:
    """One question; `split` makes its two sides. With `folds` the seed is the held-out fold."""

    name: str
    split: Callable[[int], ProteinSplit]
    folds: bool


def _sides(reference: AnnData, query: AnnData) -> ProteinSplit:
    """Genes and proteins that both sides have; genes without a count in the reference go."""
    genes = reference.var_names[reference.var_names.isin(query.var_names)]
    genes = genes[np.asarray(reference[:, genes].X.sum(axis=0)).ravel() > 0]
    proteins = [p for p in reference.obsm[PROTEINS] if p in query.obsm[PROTEINS]]
    sides = []
    for side in (reference, query):
        cells = AnnData(side[:, genes].X.copy(), obs=side.obs[[]], var=side[:, genes].var[[]])
        cells.obsm[PROTEINS] = side.obsm[PROTEINS][proteins].astype(np.float32)
        sides.append(cells)
    measured = sides[1].obsm.pop(PROTEINS).to_numpy()
    return ProteinSplit(*sides, np.log1p(measured))


def _fold(adata: AnnData, seed: int) -> ProteinSplit:
    """Fold `seed` of one random partition into `N_FOLDS`."""
    fold = np.random.default_rng(0).permutation(adata.n_obs) % N_FOLDS
    held_out = fold == seed % N_FOLDS
    return _sides(adata[~held_out], adata[held_out])


def build_protein_tasks(folder: Path, names: list[str] | None = None) -> Iterator[ProteinTask]:
    """Tasks in a fixed order, one in memory at a time.

    Parameters
    ----------
    folder
        Folder with the ``.h5ad`` files.
    names
        Names of tasks; all of them where `None`.
    """
    pairs = {"PBMC 10k -> 5k": (TEN_K, FIVE_K), "PBMC 5k -> 10k": (FIVE_K, TEN_K)}
    for name, files in pairs.items():
        if names is None or name in names:
            split = _sides(*(_read(folder / file) for file in files))
            yield ProteinTask(name, lambda seed, split=split: split, folds=False)
    for name, file in {"MALT, folds": MALT, "ECCITE PBMC, folds": ECCITE}.items():
        if names is None or name in names:
            adata = _read(folder / file)
            yield ProteinTask(name, lambda seed, adata=adata: _fold(adata, seed), folds=True)


def _read(path: Path) -> AnnData:
    """Read one file; gene names are made unique."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; pass the folder of the data with --data.")
    adata = read_h5ad(path)
    adata.var_names_make_unique()
    return adata
