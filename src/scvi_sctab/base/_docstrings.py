"""Shared descriptions of parameters in docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_CELLS: Final = {
    "adata": (
        "Cells with raw counts, in memory or backed, with genes in any order; the cells that the "
        "model\n    was set up with if not given."
    ),
    "indices": "Positions of cells, or a mask over all cells; all if not given.",
    "batch_size": "Cells per minibatch; memory grows with it.",
    "layer": 'Layer with the counts; that of set-up if not given. ``"X"`` is ``adata.X``.',
    "min_gene_overlap": "Gene overlap below which the cells are refused; missing genes count as 0.",
}
# Lower case, since the errors under "Raises" have the same form.
_STUB: Final = re.compile(r"^([a-z]\w*(?:, [a-z]\w*)*)\n    As in :meth:`[^`]+`\.$", re.MULTILINE)


def document_cells(function: F) -> F:
    """Replace ``As in :meth:`predict`.`` by the descriptions of the parameters on cells.

    Parameters
    ----------
    function
        Verb with any of ``adata``, ``indices``, ``batch_size``, ``layer``, ``min_gene_overlap``.

    Raises
    ------
    KeyError
        If an entry of this form has another parameter.
    """
    if function.__doc__ is not None:  # None under `python -OO`
        function.__doc__ = _STUB.sub(_fill, inspect.cleandoc(function.__doc__))
    return function


def _fill(stub: re.Match[str]) -> str:
    names = stub[1].split(", ")
    if unknown := set(names) - _CELLS.keys():
        raise KeyError(f"No shared description of {sorted(unknown)}; describe them in an entry.")
    return "\n".join(f"{name}\n    {_CELLS[name]}" for name in names)
