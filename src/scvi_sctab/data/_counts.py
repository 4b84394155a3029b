"""Raw counts or not: say which value, where, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scvi_sctab.data._kernels import any_not_count
from scvi_sctab.data._messages import list_names
from scvi_sctab.nn._parallel import over_parts

# log1p of 10,000, the most that a cell normalised to 10,000 can show after the logarithm.
_LARGEST_LOG_NORMALIZED = np.log1p(1e4)
# Fewer values are not worth a thread.
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


def _diagnose(values: NDArray[Any]) -> tuple[NDArray[np.bool_], str, str]:
    """Which values to blame, what the matrix looks like, and what to do."""
    pass_counts = "Pass the raw counts instead"
    if np.isnan(values).any():
        return np.isnan(values), "holds NaN (missing values)", "Set them to 0 or drop the cells"
    if np.isinf(values).any():
        return np.isinf(values), "holds infinite values", pass_counts
    if (values < 0).any():
        return values < 0, "looks scaled or centred (it has negative values)", pass_counts
    fraction = values != np.floor(values)
    if values.max() <= _LARGEST_LOG_NORMALIZED:
        return fraction, "looks log-normalised (fractions, none above log1p(10,000))", pass_counts
    return fraction, "looks normalised (it has fractions)", pass_counts


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
        What the matrix is called in the message, e.g. ``layers['counts']``.
    hint
        Where counts are instead, for the message.

    Raises
    ------
    NotCountsError
        If a value is not a count. The message names the first such value with its cell and gene,
        what the matrix looks like, and the cure.
    """
    values = np.asarray(block.data if sparse.issparse(block) else block)
    if _are_counts(values.reshape(-1)):
        return
    stored = sparse.csr_matrix(block).tocoo()
    blamed, appearance, cure = _diagnose(stored.data)
    first = np.flatnonzero(blamed)[0]
    row, column, value = stored.row[first], stored.col[first], stored.data[first]
    raise NotCountsError(
        f"`{source}` {appearance}, not raw counts: {value:.6g} in cell {str(cell_names[row])!r}, "
        f"gene {str(gene_names[column])!r}. {cure}: {hint or 'name their layer with `layer=`'}."
    )


def empty_cells(block: sparse.csr_matrix) -> NDArray[np.intp]:
    """Rows without a single count."""
    return np.flatnonzero(np.asarray(block.sum(axis=1)).ravel() == 0)


def describe_empty_cells(names: Sequence[str], n_cells: int) -> str:
    """Say which cells are empty, and the cure."""
    return (
        f"{len(names):,} of {n_cells:,} cells have no counts over the model's genes: "
        f"{list_names(names)}. Drop them: `scanpy.pp.filter_cells(adata, min_counts=1)`."
    )
