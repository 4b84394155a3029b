"""Matching of genes by name."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvi_sctab._constants import MIN_GENE_OVERLAP, MIN_GENES, WARN_GENE_OVERLAP
from scvi_sctab._messages import list_names, warn
from scvi_sctab.data._species import origin_of, well_known_first
from scvi_sctab.data._spelling import describe_spellings, find_spellings, strip_versions
from scvi_sctab.sparse import in_order, move_columns

if TYPE_CHECKING:
    from scipy import sparse

    from scvi_sctab._types import Names

_RESTRICT = (
    " If it is a targeted panel, make a model of its genes: `model.restrict(query.var_names)`."
)
_ENSEMBL = re.compile(r"^ENS[A-Z]*\d{6,}$")


class GeneMismatchError(ValueError):
    """The genes of the data do not match those of the model."""


def check_genes(names: Sequence[str]) -> pd.Index:
    """Check the genes of a reference and return their names without versions.

    Parameters
    ----------
    names
        Gene names of the reference.

    Raises
    ------
    GeneMismatchError
        If a name is duplicated, or there are fewer than ``MIN_GENES``.
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
            f"{whose} has {len(duplicated):,} gene names that are duplicated (Ensembl "
            f"versions ignored): {list_names(duplicated)}. Keep one column of each, e.g. "
            "`adata = adata[:, ~adata.var_names.duplicated()].copy()`, or name them by Ensembl id."
        )


@dataclass(frozen=True)
class GeneAlignment:
    """Alignment of the columns of a query with the genes of a model.

    Attributes
    ----------
    target
        Position of each column of the query among the model's genes, or -1.
    missing
        Genes of the model that the query lacks; they count as 0.
    n_genes
        Number of the model's genes.
    """

    target: NDArray[np.int64]
    missing: pd.Index
    n_genes: int

    @property
    def is_identity(self) -> bool:
        """True if the query has exactly the model's genes, in their order."""
        return len(self.target) == self.n_genes and bool(
            (self.target == np.arange(self.n_genes)).all()
        )

    @property
    def is_measured(self) -> NDArray[np.bool_]:
        """``(n_genes,)``: True for the model's genes that the query has."""
        flags = np.zeros(self.n_genes, dtype=bool)
        flags[self.target[self.target >= 0]] = True
        return flags

    def apply(self, block: sparse.csr_matrix) -> sparse.csr_matrix:
        """Reorder columns to the model's genes; missing ones are 0.

        Parameters
        ----------
        block
            ``(n_cells, n_query_genes)``; it is not changed.

        Returns
        -------
        ``(n_cells, n_genes)`` with increasing columns in every row; the block itself, if nothing
        has to be reordered.
        """
        if self.is_identity:
            return in_order(block)
        return move_columns(block, self.target, self.n_genes)


def align_genes(
    model_genes: Names, query_var: pd.DataFrame, min_overlap: float = MIN_GENE_OVERLAP
) -> GeneAlignment:
    """Match the genes of a query to those of a model by name, Ensembl versions ignored.

    Parameters
    ----------
    model_genes
        The model's gene names, as :func:`check_genes` returns them.
    query_var
        ``query.var``. Its index is matched; if it does not match, its columns are searched for
        names that do.
    min_overlap
        Share of the model's genes, 0 to 1, that the query must have.

    Raises
    ------
    GeneMismatchError
        If a gene of the model is duplicated in the query, or the query has less than
        ``min_overlap`` of the model's genes.
    ValueError
        If ``min_overlap`` is not in [0, 1].

    Warns
    -----
    UserWarning
        If the query has less than ``WARN_GENE_OVERLAP`` of the model's genes, or some of the
        missing ones with another spelling.
    """
    if not 0 <= min_overlap <= 1:
        raise ValueError(
            f"min_gene_overlap={min_overlap}: give a share of the model's genes from 0 to 1, "
            f"e.g. {MIN_GENE_OVERLAP}."
        )
    genes = pd.Index(model_genes, dtype=object)
    names = strip_versions(query_var.index)
    target = genes.get_indexer(names)
    _refuse_duplicates(names[target >= 0], "The query")
    absent = np.ones(len(genes), dtype=bool)
    absent[target[target >= 0]] = False
    missing = genes[absent]
    if len(missing):
        _judge_missing(genes, names, target, missing, query_var, min_overlap)
    return GeneAlignment(target, missing, len(genes))


def _judge_missing(
    genes: pd.Index,
    names: pd.Index,
    target: NDArray[np.int64],
    missing: pd.Index,
    query_var: pd.DataFrame,
    min_overlap: float,
) -> None:
    """Raise an error if too many genes are missing; warn about those that could be matched."""
    n_found = len(genes) - len(missing)
    overlap = n_found / len(genes)
    found = f"The query has only {n_found:,} of the model's {len(genes):,} genes ({overlap:.0%})"
    spelled = find_spellings(genes, names, target)
    spelling = describe_spellings(genes, query_var.index, spelled) if spelled else ""
    if overlap < min_overlap:
        is_cure = n_found + len(spelled) >= min_overlap * len(genes)
        raise GeneMismatchError(
            f"{found}; at least {min_overlap:.0%} are needed (`min_gene_overlap`).{spelling}"
            + ("" if is_cure else _explain_mismatch(genes, names, query_var, min_overlap, overlap))
        )
    if overlap < WARN_GENE_OVERLAP:
        spelling = (
            (
                f"{found}; the others are not measured, which makes predictions less certain than "
                f"they look. Missing: {list_names(well_known_first(missing))}."
            )
            + (
                _tell_species(genes, names) or tell_of_panel(n_found)
                if overlap < MIN_GENE_OVERLAP
                else ""
            )
            + spelling
        )
    if spelling:
        warn(spelling.strip())


def _explain_mismatch(
    genes: pd.Index, names: pd.Index, query_var: pd.DataFrame, min_overlap: float, overlap: float
) -> str:
    """Name the kind of names on both sides, and a column of ``query.var`` that would match."""
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
        if matched and matched >= min_overlap * len(genes):
            return (
                f"{text} `query.var[{column!r}]` holds {matched:,} of them: "
                f"`query.var_names = query.var[{column!r}].tolist()`."
            )
    species = _tell_species(genes, names)
    text += species or _tell_names(genes, names)
    if overlap and not species:
        text += tell_of_panel(round(overlap * len(genes)))
        share = math.floor(100 * overlap) / 100
        text += f" Or lower the limit: `min_gene_overlap={share:g}`; the others then count as 0."
    return text


def tell_of_panel(n_found: int) -> str:
    """Return the cure for a query that has few genes because it is a panel; empty for too few.

    Parameters
    ----------
    n_found
        Number of the model's genes that the query has.
    """
    return _RESTRICT if n_found >= MIN_GENES else ""


def describe_mismatch(genes: Names, names: Names) -> str:
    """Describe how the genes of a query differ from those of a model.

    Parameters
    ----------
    genes, names
        Names of the model's genes and of the query's.
    """
    model, query = (strip_versions(pd.Index(side, dtype=object)) for side in (genes, names))
    return (_tell_species(model, query) or _tell_names(model, query)).strip()


def _tell_names(genes: pd.Index, names: pd.Index) -> str:
    return (
        f" The model's genes look like {list_names(well_known_first(genes))}; the query's like "
        f"{list_names(well_known_first(names))}."
    )


def _tell_species(genes: pd.Index, names: pd.Index) -> str:
    """Name the species of the genes of both sides, if they differ."""
    model, query = origin_of(genes), origin_of(names)
    if model is None or query is None or not model.differs(query):
        return ""
    return (
        f" The query's genes look like {query.names}, e.g. {list_names(well_known_first(names)[:3])}, "
        f"the model's like {model.names}, e.g. {list_names(well_known_first(genes)[:3])}: map them "
        f"to {model.species} orthologs first. Changing upper and lower case is not enough."
    )
