"""Counts and genes of a file, as a model reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from anndata import AnnData

from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab._messages import list_names
from scvi_sctab.data._counts import diagnose
from scvi_sctab.data._genes import describe_mismatch, tell_of_panel
from scvi_sctab.data._reader import row_readable, take_rows
from scvi_sctab.data.files._gene_names import GenesFound, find_genes
from scvi_sctab.data.files._refusal import RefusedInputError
from scvi_sctab.data.files._stored import RAW, StoredCells, StoredMatrix

if TYPE_CHECKING:
    from scvi_sctab._types import Names

# Cells whose values are looked at to find counts; all are checked when they are read.
_N_CELLS_LOOKED_AT = 200
_USUAL = ("X", "counts", "raw_counts")  # places or layers


@dataclass(frozen=True)
class Query:
    """Cells of a file whose genes have a model's names.

    Attributes
    ----------
    cells
        AnnData with raw counts in ``X``, which are on disk where the format allows it.
    counts
        Where the counts were: ``"X"``, ``"layers['counts']"`` or ``"raw.X"``.
    genes
        Names of genes that were taken; ``None`` if they are those of the file.
    """

    cells: AnnData
    counts: str
    genes: GenesFound | None

    def to_memory(self) -> AnnData:
        """Read all counts, as training needs them."""
        counts = take_rows(self.cells.X, slice(None))
        return AnnData(counts, self.cells.obs.copy(), self.cells.var)

    def replace(self, cells: AnnData) -> Query:
        """Return what was found, with these cells."""
        return replace(self, cells=cells)

    def describe(self) -> str:
        """Describe what was found in a sentence or more."""
        text = f"{self.cells.n_obs:,} cells, counts in {self.counts}"
        return f"{text}; {self.genes.describe()}" if self.genes else f"{text}."


def find_query(
    stored: StoredCells,
    model_genes: Names | None = None,
    *,
    layer: str | None = None,
    own_layer: str | None = None,
    gene_column: str | None = None,
    gene_table: Sequence[Sequence[str]] = (),
    min_gene_overlap: float = MIN_GENE_OVERLAP,
) -> Query:
    """Find raw counts and names of genes.

    Parameters
    ----------
    stored
        Cells of an open file.
    model_genes
        The model's gene names; if not given, genes keep the names of the file.
    layer
        Matrix with raw counts: ``"X"``, a layer, ``"raw"``, or a place such as ``"raw.X"``, see
        :meth:`StoredCells.find_place`. If not given, the first one with counts of ``own_layer``,
        ``X``, layers and ``raw``.
    own_layer
        Layer that the model was set up with.
    gene_column
        Column of ``var`` with names of genes, or ``"var_names"``; if not given, the one with most
        of the model's genes.
    gene_table
        Further names of genes, see :func:`read_gene_table`.
    min_gene_overlap
        Share of the model's genes, 0 to 1, that the file must have.

    Raises
    ------
    RefusedInputError
        If cells share names, no matrix holds raw counts, there is no such
        layer or column, or too few genes are the model's.
    """
    _check_cells(stored)
    place, matrix = _find_counts(stored, layer, own_layer)
    names, found = matrix.var.index, None
    if model_genes is not None:
        found = find_genes(matrix.var, model_genes, gene_column, gene_table, str(stored.path))
        if found.overlap < min_gene_overlap:
            raise _refuse_overlap(stored, matrix, found, model_genes, min_gene_overlap)
        names = found.names
    elif gene_column is not None:
        names = find_genes(matrix.var, names, gene_column, (), str(stored.path)).names
    var = matrix.var.set_axis(names.astype(str), axis=0)
    cells = AnnData(matrix.values, stored.obs, var)
    return Query(cells, place, found)


def _check_cells(stored: StoredCells) -> None:
    names = stored.obs.index
    if not names.is_unique:
        raise RefusedInputError(
            f"{stored.path}: cells share names, so that their rows could not be told apart: "
            f"{list_names(names[names.duplicated()].unique())}.",
            "Make them unique: `adata.obs_names_make_unique()`.",
        )


def _order(stored: StoredCells, own_layer: str | None) -> Iterator[str]:
    places = stored.matrices
    first = [stored.find_place(name) for name in (own_layer, *_USUAL) if name is not None]
    others = [place for place in places if place != RAW]
    yield from dict.fromkeys(p for p in (*first, *others, *places) if p is not None)


def _find_counts(
    stored: StoredCells, layer: str | None, own_layer: str | None
) -> tuple[str, StoredMatrix]:
    chosen = None if layer is None else stored.find_place(layer)
    if layer is not None and chosen is None:
        names = list_names(stored.name_matrices())
        raise RefusedInputError(
            f"{stored.path} has no matrix {layer!r}.", f"Name one that it has: {names}."
        )
    seen = []
    for place in _order(stored, own_layer) if chosen is None else [chosen]:
        matrix = stored.matrices[place]
        values = row_readable(matrix.values, place)
        found = diagnose(take_rows(values, slice(0, min(_N_CELLS_LOOKED_AT, values.shape[0]))))
        if found is None:
            return place, StoredMatrix(values, matrix.var)
        seen.append(f"{place} {found.look.text}")
    if not seen:
        raise RefusedInputError(f"{stored.path} has no matrix.", "Write the counts to `X`.")
    raise RefusedInputError(
        f"{stored.path} has no raw counts: {'; '.join(seen)}.",
        "Write raw counts, as before normalisation, to `X` or to a layer.",
    )


def _refuse_overlap(
    stored: StoredCells,
    matrix: StoredMatrix,
    found: GenesFound,
    model_genes: Names,
    min_gene_overlap: float,
) -> RefusedInputError:
    cause = (
        f"{stored.path} has {found.n_found:,} of the model's {found.n_genes:,} genes "
        f"({found.overlap:.0%}), named in {found.source}; at least {min_gene_overlap:.0%} are needed."
    )
    looks = describe_mismatch(model_genes, matrix.var.index)
    return RefusedInputError(
        cause,
        f"{looks} Name the column with such names, or give a table of gene names."
        f"{tell_of_panel(found.n_found)}",
    )
