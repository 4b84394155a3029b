"""Check of raw counts, and diagnosis of matrices that do not hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scvi_sctab._messages import list_names
from scvi_sctab.data._fractions import (
    NOISE,
    Appearance,
    are_nearly_whole,
    look_of_fractions,
)
from scvi_sctab.data._kernels import any_not_count
from scvi_sctab.sparse import over_parts

# Below this number of values a thread costs more than it saves.
_MIN_VALUES = 1 << 16


class NotCountsError(ValueError):
    """The matrix does not hold raw counts."""


def _are_counts(values: NDArray[Any]) -> bool:
    if np.issubdtype(values.dtype, np.unsignedinteger) or values.dtype == bool:
        return True
    if np.issubdtype(values.dtype, np.integer):
        return values.min(initial=0) >= 0
    if values.dtype not in (np.float32, np.float64):
        # Half precision, Python objects, foreign byte orders; false for NaN.
        return bool(((values >= 0) & (values < np.inf) & (values == np.floor(values))).all())
    return not any(over_parts(any_not_count, len(values), values, min_rows=_MIN_VALUES))


@dataclass(frozen=True)
class Cures:
    """Lines to type that turn a matrix into counts.

    Attributes
    ----------
    rounding
        Line that rounds its values.
    filling
        Line that sets missing values to 0.
    """

    rounding: str
    filling: str

    @classmethod
    def of(cls, matrix: Any, place: str, is_backed: bool = False) -> Cures:
        """Write the lines for this type of matrix.

        Parameters
        ----------
        matrix
            Dense, sparse or dask, in memory or on disk.
        place
            Expression for the matrix, e.g. ``adata.X``.
        is_backed
            Whether it belongs to a backed AnnData.
        """
        is_lazy = hasattr(matrix, "compute")
        read = "adata = adata.to_memory(); "
        is_sparse = hasattr(matrix, "format") or sparse.issparse(getattr(matrix, "_meta", None))
        rounded = f"{place}.rint()" if is_sparse and not is_lazy else f"{place}.round()"
        if matrix.dtype == object:
            rounded = f"{place}.astype(float).round()"
        filled = f"{place} = np.nan_to_num({place}.astype(float))"
        if is_sparse:
            filled = f"{place}.data[np.isnan({place}.data)] = 0"
        return cls(
            f"{read if is_backed else ''}{place} = {rounded}",
            f"import numpy as np; {read if is_backed or is_lazy else ''}{filled}",
        )


@dataclass(frozen=True)
class Diagnosis:
    """First value that is not a count, and the appearance of the matrix.

    Attributes
    ----------
    row, column, value
        The first such value and its place.
    look
        Appearance of the matrix.
    """

    row: int
    column: int
    value: np.number[Any]
    look: Appearance

    def describe(
        self,
        cell_names: Sequence[str],
        gene_names: Sequence[str],
        source: str,
        cures: Cures,
        hint: str = "",
    ) -> str:
        """Write the message to the user; the parameters are those of :func:`check_counts`."""
        other = f"Pass the raw counts instead: {hint or 'name their layer with `layer=`'}"
        cure = {
            "round": f"Round them: `{cures.rounding}`" + (f"; or {hint}" if hint else ""),
            "ask": f"If they are, round them: `{cures.rounding}`. If not: {other}",
            "fill": f"Set them to 0: `{cures.filling}`; or drop the cells",
            "replace": other,
        }[self.look.cure]
        return (
            f"`{source}` {self.look.text}, not raw counts: {_digits(self.value)} in cell "
            f"{str(cell_names[self.row])!r}, gene {str(gene_names[self.column])!r}. {cure}."
        )


def _digits(value: np.number[Any]) -> str:
    """Format a value with six digits, or as many as show that it is not whole."""
    short = f"{value:.6g}"
    seen = float(short)
    return short if not seen.is_integer() or seen == value else str(value)


def diagnose(block: NDArray[Any] | sparse.spmatrix | sparse.sparray) -> Diagnosis | None:
    """Diagnose a matrix that does not hold raw counts; return ``None`` if it does.

    Parameters
    ----------
    block
        ``(n_cells, n_genes)``, dense, CSR or CSC.
    """
    values = np.asarray(block.data if sparse.issparse(block) else block)
    if _are_counts(values.reshape(-1)):
        return None
    stored = sparse.csr_matrix(block)
    blamed, look = _look(stored)
    first = np.flatnonzero(blamed)[0]
    row = np.searchsorted(stored.indptr, first, side="right") - 1
    return Diagnosis(int(row), int(stored.indices[first]), stored.data[first], look)


def _look(stored: sparse.csr_matrix) -> tuple[NDArray[np.bool_], Appearance]:
    """Return the values that are not counts, and the appearance of the matrix."""
    values = stored.data
    if np.isnan(values).any():
        return np.isnan(values), Appearance("holds NaN (missing values)", "fill")
    if np.isinf(values).any():
        return np.isinf(values), Appearance("holds infinite values", "replace")
    if are_nearly_whole(values):
        text = f"holds counts with rounding noise (all within {NOISE} of a whole number)"
        return (values != np.rint(values)) | (values < 0), Appearance(text, "round")
    if (negative := values < -NOISE).any():
        return negative, Appearance("looks scaled or centred (it has negative values)", "replace")
    fractions = np.abs(values - np.rint(values)) > NOISE
    return fractions if fractions.any() else values > 0, look_of_fractions(stored)


def check_counts(
    block: NDArray[Any] | sparse.spmatrix | sparse.sparray,
    cell_names: Sequence[str],
    gene_names: Sequence[str],
    source: str = "X",
    hint: str = "",
) -> None:
    """Check that a matrix holds raw counts: whole numbers, at least 0, finite.

    Parameters
    ----------
    block
        ``(n_cells, n_genes)``, dense, CSR or CSC.
    cell_names, gene_names
        Names of its rows and columns, for the message.
    source
        Name of the matrix in the message, e.g. ``layers['counts']``.
    hint
        Place of the counts, for the message, if it is known.

    Raises
    ------
    NotCountsError
        If a value is not a count. The message has the first such value with its cell and gene,
        the appearance of the matrix, and the line to type.
    """
    if (found := diagnose(block)) is not None:
        cures = Cures.of(block, f"adata.{source}")
        raise NotCountsError(found.describe(cell_names, gene_names, source, cures, hint))


def empty_cells(block: sparse.csr_matrix) -> NDArray[np.intp]:
    """Find the rows without counts."""
    return np.flatnonzero(np.asarray(block.sum(axis=1)).ravel() == 0)


def describe_empty_cells(names: Sequence[str], n_cells: int) -> str:
    """Write the message on empty cells, with the line to type."""
    return (
        f"{len(names):,} of {n_cells:,} cells have no counts over the model's genes: "
        f"{list_names(names)}. Drop them: `scanpy.pp.filter_cells(adata, min_counts=1)`."
    )
