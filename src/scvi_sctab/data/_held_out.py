"""Labels of cells, and cells found again by name and counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scvi_sctab.data._identity import CellIdentities, TrainingRecord, identify
from scvi_sctab.data._names import name_values
from scvi_sctab.data._obs import find_column
from scvi_sctab.data._registration import check_labels_unchanged

if TYPE_CHECKING:
    from scvi.data import AnnDataManager

    from scvi_sctab._types import Names
    from scvi_sctab.data._selection import CellSelection


def find_cells(
    cells: CellSelection,
    wanted: CellIdentities,
    positions: NDArray[np.intp] | None,
    gene_names: Names,
) -> CellSelection:
    """Find cells where they were at first, or elsewhere.

    Parameters
    ----------
    cells
        Cells to search in.
    wanted
        Identities of the cells to find.
    positions
        Where they were, if that is known.
    gene_names
        Genes by whose counts they are identified.
    """
    if positions is not None and len(positions) and max(positions) < len(cells):
        as_before = cells.take(np.sort(positions))
        if identify(as_before, gene_names).among(wanted).all():
            return as_before
    return cells.take(identify(cells, gene_names).among(wanted))


def find_held_out(
    cells: CellSelection,
    record: TrainingRecord | None,
    positions: NDArray[np.intp] | None,
    gene_names: Names,
) -> CellSelection:
    """Find the cells that were held out in training.

    Parameters
    ----------
    cells
        Cells to search in.
    record
        Of the training.
    positions
        Where held-out cells were.
    gene_names
        Genes by whose counts they are identified.

    Raises
    ------
    ValueError
        If none were held out, it is not known which, or none of them is there.
    """
    if record is None and positions is not None and len(positions):
        raise ValueError(
            "This model was saved by an early version of this package, which kept held-out "
            "cells by position. If its cells have not moved since, say so: "
            "`indices=model.validation_indices`."
        )
    if record is None or not len(record.held_out):
        raise ValueError(
            "No cells were held out: give labelled cells that the model was not trained on, "
            "`adata=`, or say which with `indices=`."
        )
    found = find_cells(cells, record.held_out, positions, gene_names)
    if not len(found):
        raise ValueError(
            f"None of the {len(record.held_out):,} cells that were held out in training is in "
            "this AnnData: names and counts differ. Say which cells, `indices=`, or give the "
            "cells that the model was made with."
        )
    return found


def true_labels(
    cells: CellSelection,
    setup: Mapping[str, Any],
    labels_key: str | None = None,
    manager: AnnDataManager | None = None,
) -> NDArray[np.object_]:
    """Labels of cells as strings, ``(n_cells,)``; the unlabelled category where there is none.

    Parameters
    ----------
    cells
        The cells.
    setup
        Arguments that the model was set up with.
    labels_key
        Column with labels; that of the model if not given.
    manager
        Manager of the cells, if they are the model's own: their labels must not have changed.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If the model's labels have changed since they were set up.
    """
    if labels_key is None and manager is not None:
        check_labels_unchanged(manager)
    key = labels_key or setup["labels_key"]
    names = name_values(find_column(cells.adata.obs, key, "labels_key"))[cells.positions]
    return np.where(names.codes < 0, setup["unlabeled_category"], np.asarray(names, object))
