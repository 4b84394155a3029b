"""Match genes by name, in every call."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvi_sctab._constants import MIN_GENE_OVERLAP, MIN_GENES, WARN_GENE_OVERLAP
from scvi_sctab.data._csr import in_order, move_columns
from scvi_sctab.data._messages import list_names

if TYPE_CHECKING:
    from scipy import sparse

_VERSIONED_ENSEMBL = re.compile(r"^(ENS[A-Z]*\d{6,})\.\d+$")
_ENSEMBL = re.compile(r"^ENS[A-Z]*\d{6,}$")


class GeneMismatchError(ValueError):
    """The genes of the data do not fit."""


def strip_versions(names: Sequence[str]) -> pd.Index:
    """Drop the version of Ensembl ids (``ENSG00000187608.10``); leave other names alone.

    Parameters
    ----------
    names
        Gene names.

    Examples
    --------
    >>> list(strip_versions(["ENSG00000187608.10", "HLA-A", "RP11-34P13.7"]))
    ['ENSG00000187608', 'HLA-A', 'RP11-34P13.7']
    """
    stripped = [
        _VERSIONED_ENSEMBL.sub(r"\1", name) if "." in name else name for name in map(str, names)
    ]
    return pd.Index(stripped, dtype=object)


def check_genes(names: Sequence[str]) -> pd.Index:
    """Check the genes of a reference and return their names without versions.

    Parameters
    ----------
    names
        Gene names of the reference.

    Raises
    ------
    GeneMismatchError
        If a name stands twice, or there are fewer than ``MIN_GENES``.
    """
    index = strip_versions(names)
    _refuse_duplicates(index, "The reference")
    if len(index) < MIN_GENES:
        raise GeneMismatchError(
            f"The reference has {len(index)} genes, too few to tell cell types apart; "
            f"give at least {MIN_GENES}."
        )
    return index


def _refuse_duplicates(index: pd.Index, whose: str) -> None:
    duplicated = index[index.duplicated()].unique()
    if len(duplicated):
        raise GeneMismatchError(
            f"{whose} has {len(duplicated):,} gene names that stand more than once (Ensembl "
            f"versions ignored): {list_names(duplicated)}. Keep one column of each, e.g. "
            "`adata = adata[:, ~adata.var_names.duplicated()].copy()`, or name them by Ensembl id."
        )


@dataclass(frozen=True)
class GeneAlignment:
    """How the columns of a query map to a model's genes.

    Attributes
    ----------
    target
        For each column of the query its position among the model's genes, or -1.
    missing
        The model's genes that the query lacks; they are taken as 0.
    n_genes
        Number of the model's genes.
    """

    target: NDArray[np.int64]
    missing: pd.Index
    n_genes: int

    @property
    def is_identity(self) -> bool:
        """Whether the query has just the model's genes, in their order."""
        return len(self.target) == self.n_genes and bool(
            (self.target == np.arange(self.n_genes)).all()
        )

    def apply(self, block: sparse.csr_matrix) -> sparse.csr_matrix:
        """Reorder columns to the model's genes; missing ones are 0.

        Parameters
        ----------
        block
            ``(n_cells, n_query_genes)``; it is left as it is.

        Returns
        -------
        ``(n_cells, n_genes)`` with increasing columns in every row, whatever the order of the
        query; the block itself, if it is so already.
        """
        if self.is_identity:
            return in_order(block)
        return move_columns(block, self.target, self.n_genes)


def align_genes(
    model_genes: Sequence[str],
    query_var: pd.DataFrame,
    min_overlap: float = MIN_GENE_OVERLAP,
) -> GeneAlignment:
    """Match the genes of a query to those of a model by name, Ensembl versions ignored.

    Parameters
    ----------
    model_genes
        The model's gene names, as :func:`check_genes` returns them.
    query_var
        ``query.var``; its index is matched, its columns serve to suggest a better one.
    min_overlap
        Share of the model's genes below which the query is refused.

    Raises
    ------
    GeneMismatchError
        If a gene of the model stands more than once in the query, or fewer than
        ``min_overlap`` of the model's genes are there.

    Warns
    -----
    UserWarning
        If fewer than ``WARN_GENE_OVERLAP`` of the model's genes are there.
    """
    genes = pd.Index(model_genes, dtype=object)
    names = strip_versions(query_var.index)
    target = genes.get_indexer(names)
    _refuse_duplicates(names[target >= 0], "The query")
    missing = genes.difference(names, sort=False)
    overlap = 1 - len(missing) / len(genes)
    found = f"{len(genes) - len(missing):,} of the model's {len(genes):,} genes ({overlap:.0%})"
    if overlap < min_overlap:
        raise GeneMismatchError(
            f"The query has only {found}; at least {min_overlap:.0%} are needed."
            + _explain_mismatch(genes, names, query_var)
        )
    if overlap < WARN_GENE_OVERLAP:
        warnings.warn(
            f"The query has only {found}; the others count as 0, which makes predictions less "
            f"certain than they look. Missing: {list_names(missing)}.",
            UserWarning,
            stacklevel=2,
        )
    return GeneAlignment(target, missing, len(genes))


def _explain_mismatch(genes: pd.Index, names: pd.Index, query_var: pd.DataFrame) -> str:
    """Name the kind of names on both sides, and a column of ``query.var`` that would fit."""
    kinds = [
        "Ensembl ids" if sum(bool(_ENSEMBL.match(str(n))) for n in side) > len(side) / 2
        else "gene symbols"
        for side in (genes, names)
    ]  # fmt: skip
    text = ""
    if kinds[0] != kinds[1]:
        text = f" The model knows {kinds[0]}, the query's var_names are {kinds[1]}."
    for column in query_var.columns:
        matched = genes.isin(strip_versions(query_var[column].astype(str))).sum()
        if matched >= MIN_GENE_OVERLAP * len(genes):
            return (
                f"{text} `query.var[{column!r}]` holds {matched:,} of them: "
                f"`query.var_names = query.var[{column!r}]`."
            )
    return f"{text} The model's genes look like {list_names(genes)}; the query's like " + (
        f"{list_names(names)}."
    )
