"""Tasks and methods of a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Split:
    """Cells of a task of annotation.

    Parameters
    ----------
    reference
        Raw counts in ``X``, with labels; may be a view.
    query
        Raw counts in ``X``, genes in any order; may be a view.
    truth
        Labels of the query, ``(n_query,)``; ``""`` for cells that have none.
    """

    reference: AnnData
    query: AnnData
    truth: np.ndarray


@dataclass(frozen=True)
class Task:
    """One question that every method is asked.

    Parameters
    ----------
    name
        Name in tables.
    load
        Function of a seed that returns what the task is about: a :class:`Split` for
        :func:`classify`, anything else for a measure of your own. It is called when a run needs it.
    family
        Tasks of one family are folds of the same question; the name if not given.
    labels_key, donor_key, batch_key
        Columns of ``obs`` of the reference, the latter two also of the query. Methods see no others.
    labels
        Labels that are scored, even if the reference lacks them; those of the reference if not
        given.
    keeps_unlabelled
        Whether methods see the cells of the reference that have no label, as ``"unknown"``.
    is_seeded
        Whether the cells depend on the seed; then methods that need no seed run for each, too.
    columns
        Further columns of the rows of this task, such as the size of a panel. Tasks may share a
        name if they differ in these.
    """

    name: str
    load: Callable[[int], Any]
    family: str = ""
    labels_key: str = "cell_type"
    donor_key: str | None = None
    batch_key: str | None = None
    labels: frozenset[str] | None = None
    keeps_unlabelled: bool = False
    is_seeded: bool = False
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def keys(self) -> dict[str, Any]:
        """Columns that identify the task in a table."""
        return {"task": self.name, **self.columns}


@dataclass(frozen=True)
class Method:
    """One method.

    Parameters
    ----------
    name
        Name in tables.
    make
        Function of a seed that returns an object which the measure can use: a
        :class:`~scvi_sctab._types.CellTypePredictor` for :func:`classify`, such as the classes of
        :mod:`scvi_sctab.baselines`.
    is_seeded
        Whether the result depends on the seed; otherwise it runs for the first seed only.
    """

    name: str
    make: Callable[[int], Any]
    is_seeded: bool = True
