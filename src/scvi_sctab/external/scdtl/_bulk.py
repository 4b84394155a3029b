"""Bulk RNA-seq: checks, log profiles, and contrasts of genes between samples."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from scvi_sctab._constants import MIN_GENES
from scvi_sctab.data import get_matrix, list_names, read_counts, strip_versions

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]

# Added to counts per million before the logarithm.
_OFFSET = 0.5
# Logarithms of expression are below this, and their largest is not far from their mean.
_MAX_LOG, _MAX_LOG_RATIO = 30.0, 20.0
# Samples with fewer whole counts, most of them zero, look like single cells.
_MIN_BULK_TOTAL, _MAX_ZEROS = 50_000, 0.7
# Cells with more counts look like bulk samples.
_MAX_CELL_TOTAL = 2e6
_ENSEMBL = re.compile(r"^ENS[A-Z]*\d{6,}$")


@dataclass(frozen=True)
class BulkProfiles:
    """Log expression of genes in bulk, as a mean and contrasts between samples.

    Attributes
    ----------
    genes
        Names of genes, without Ensembl versions.
    samples
        Names of samples.
    mean
        Mean over samples of the log of counts per million, ``(n_genes,)``.
    contrasts
        Principal components of the centred logs, in natural scale, ``(n_genes, n_contrasts)``.
    rotation
        Weights of samples in each component, ``(n_samples, n_contrasts)``, orthonormal.
    """

    genes: list[str]
    samples: list[str]
    mean: Floats
    contrasts: Floats
    rotation: Floats

    def at(self, genes: Sequence[str] | NDArray[np.str_]) -> tuple[Floats, Floats]:
        """Look up mean and contrasts by gene; the mean is NaN and contrasts are 0 if unknown."""
        position = pd.Index(self.genes).get_indexer(pd.Index(genes))
        known = position >= 0
        mean = np.where(known, self.mean[position], np.nan)
        return mean, np.where(known[:, None], self.contrasts[position], 0)


def names_of_genes(genes: str | Iterable[object]) -> list[str]:
    """Return names of genes as models hold them, without Ensembl versions.

    Parameters
    ----------
    genes
        Names, or a single one.
    """
    return [*strip_versions([genes] if isinstance(genes, str) else [*map(str, genes)])]


def read_bulk(bulk: AnnData, layer: str | None) -> Floats:
    """Read and check the expression of bulk samples.

    Parameters
    ----------
    bulk
        Samples in rows, genes in columns; in memory or backed, dense or sparse.
    layer
        Layer with counts, CPM or TPM; ``None`` is ``X``.

    Returns
    -------
    ``(n_samples, n_genes)``.

    Raises
    ------
    KeyError
        If there is no such layer.
    ValueError
        If there are no samples, values are missing, infinite, negative, logarithms or all equal,
        a sample is empty, genes are duplicated, or the samples look like single cells.
    """
    place = f"bulk.{'X' if layer is None else f'layers[{layer!r}]'}"
    matrix = get_matrix(bulk, layer)
    block = matrix[:]
    values = np.asarray(block.toarray() if sparse.issparse(block) else block, dtype=np.float64)
    if not values.size:
        raise ValueError(
            f"`{place}` has the shape {values.shape}: there is no bulk to learn from."
        )
    names = strip_versions(bulk.var_names)
    duplicated = names[names.duplicated()].unique()
    if len(duplicated):
        raise ValueError(
            f"`bulk` has {len(duplicated):,} gene names that are duplicated (Ensembl versions "
            f"ignored): {list_names(duplicated)}. Keep one column of each: "
            "`bulk = bulk[:, ~bulk.var_names.duplicated()].copy()`."
        )
    _check_values(values, bulk, place)
    return values


def _check_values(values: Floats, bulk: AnnData, place: str) -> None:
    for wrong, text, cure in (
        (np.isnan(values), "NaN", f"fill it, `{place} = numpy.nan_to_num({place})`, or drop it"),
        (np.isinf(values), "an infinite value", "give counts, CPM or TPM"),
        (values < 0, "a negative value", "give counts, CPM or TPM, not centred or log values"),
    ):
        if wrong.any():
            sample, gene = np.argwhere(wrong)[0]
            raise ValueError(
                f"`{place}` has {text} in sample {str(bulk.obs_names[sample])!r}, gene "
                f"{str(bulk.var_names[gene])!r}: {cure}."
            )
    empty = values.sum(axis=1) == 0
    if empty.any():
        raise ValueError(
            f"Bulk samples without expression: {list_names(bulk.obs_names[empty])}. Drop them: "
            f"`bulk = bulk[{place}.sum(axis=1) > 0].copy()`."
        )
    if (values == values.flat[0]).all():
        raise ValueError(
            f"`{place}` is constant, {values.flat[0]:g} everywhere: it tells nothing."
        )
    is_whole = bool((values == np.rint(values)).all())
    highest, mean = values.max(), values[values > 0].mean()
    if not is_whole and 1 < highest <= _MAX_LOG and highest < _MAX_LOG_RATIO * mean:
        raise ValueError(
            f"`{place}` looks like logarithms (fractions up to {highest:.3g}). Give counts, CPM or "
            f"TPM; of log1p values these are `{place} = numpy.expm1({place})`, of log2(x + 1) "
            f"values `2 ** {place} - 1`. If they are not logarithms, multiply them by 1e6: the "
            "scale has no effect."
        )
    total = float(np.median(values.sum(axis=1)))
    if is_whole and total < _MIN_BULK_TOTAL and (values == 0).mean() > _MAX_ZEROS:
        raise ValueError(
            f"`bulk` looks like single cells: {len(values):,} rows of {total:,.0f} counts in the "
            "median, most of them 0. Were bulk and cells swapped? Expression summed over *other* "
            "cells of a type is bulk: sum the rows of each type first. Sums of the cells to impute "
            "hold the molecules that are held out."
        )


def check_not_bulk(adata: AnnData, layer: str | None, model: str) -> None:
    """Refuse bulk samples in place of cells.

    Parameters
    ----------
    adata, layer
        Cells, and the layer with their counts.
    model
        Name of the class, for messages.

    Raises
    ------
    ValueError
        If cells have millions of counts.
    """
    parts = [np.asarray(block.sum(axis=1)).ravel() for block in read_counts(adata, layer)]
    total = float(np.median(np.concatenate(parts)))
    if total > _MAX_CELL_TOTAL:
        raise ValueError(
            f"The cells have {total:,.0f} counts in the median. These look like bulk samples: were "
            f"cells and bulk swapped? `{model}(adata, bulk)`. If they are reads of cells, "
            "counts of molecules (UMI) are needed."
        )


def bulk_profiles(
    values: Floats,
    genes: pd.Index,
    samples: pd.Index,
    among: Sequence[str] | NDArray[np.str_],
    max_contrasts: int,
) -> BulkProfiles:
    """Compute log profiles of bulk and their principal components.

    Parameters
    ----------
    values
        Counts, CPM or TPM, ``(n_samples, n_genes)``; the scale of a sample has no effect.
    genes, samples
        Names of columns and rows.
    among
        Genes of the cells; the components are those of the genes in common.
    max_contrasts
        Largest number of components; there are fewer than different samples.
    """
    names = strip_versions(genes)
    log = np.log(1e6 * values / values.sum(axis=1, keepdims=True) + _OFFSET)
    mean = log.mean(axis=0)
    centred = log - mean
    common = centred[:, names.isin(pd.Index(among))]
    # The Gram matrix is small, and does not depend on the order of genes but for rounding.
    variance, vectors = np.linalg.eigh(common @ common.T)
    n_real = int((variance > 1e-9 * max(variance[-1], 1e-300)).sum()) if variance[-1] > 1e-6 else 0
    n_contrasts = min(n_real, len(values) - 1, max_contrasts)
    rotation = vectors[:, ::-1][:, :n_contrasts]
    # Eigenvectors have no sign of their own.
    if n_contrasts:
        largest = np.abs(rotation).argmax(axis=0)
        rotation = rotation * np.sign(rotation[largest, np.arange(n_contrasts)])
    return BulkProfiles(
        [*names.astype(str)],
        [*samples.astype(str)],
        mean,
        centred.T @ rotation,
        rotation,
    )


def check_common_genes(genes: NDArray[np.str_], adata: AnnData | None, bulk: AnnData) -> None:
    """Check that cells and bulk have genes in common.

    Parameters
    ----------
    genes
        Genes of the cells, without Ensembl versions.
    adata, bulk
        The cells, if there are any, and the bulk.

    Raises
    ------
    ValueError
        If fewer than ``MIN_GENES`` names are in common; the message says where others are.
    """
    names = strip_versions(bulk.var_names)
    n_common = int(names.isin(genes).sum())
    if n_common >= MIN_GENES:
        return
    kinds = [
        "Ensembl ids" if np.mean([bool(_ENSEMBL.match(str(n))) for n in side]) > 0.5 else "symbols"
        for side in (genes, names)
    ]
    text = f"Cells and bulk have {n_common} genes in common, at least {MIN_GENES} are needed: "
    text += (
        f"the cells' are {kinds[0]}, e.g. {list_names(genes[:3])}; the bulk's {kinds[1]}, e.g. "
        f"{list_names(names[:3])}."
    )
    for place, frame, known in (
        ("bulk", bulk.var, pd.Index(genes)),
        ("adata", pd.DataFrame() if adata is None else adata.var, names),
    ):
        for column in frame.columns:
            if known.isin(strip_versions(frame[column].astype(str))).sum() >= MIN_GENES:
                raise ValueError(
                    f"{text} `{place}.var[{column!r}]` matches: "
                    f"`{place}.var_names = {place}.var[{column!r}].astype(str)`, then set it up again."
                )
    raise ValueError(f"{text} Name both in the same way.")
