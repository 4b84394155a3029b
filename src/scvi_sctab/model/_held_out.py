"""Cells that a model was trained on, and those that its statements rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scvi_sctab.data import (
    CellIdentities,
    CellSelection,
    TrainingRecord,
    check_labels_unchanged,
    find_column,
    identify,
    name_values,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


class HeldOutMixin:
    """Held-out cells found again by name and counts, for one network or for several."""

    # Set by training: fingerprints, as plain arrays that are saved.
    training_record_: dict[str, Any] | None = None

    @property
    def training_record(self) -> TrainingRecord | None:
        """Fingerprints of cells that were trained on or held out; ``None`` if not known."""
        saved = self.training_record_
        return None if saved is None else TrainingRecord.from_dict(saved)

    def trained_on(self, adata: AnnData | None = None, layer: str | None = None) -> NDArray:
        """Mark the cells whose labels the model was trained on, by name and counts.

        Scores on such cells flatter, and nothing can be calibrated on them.

        Parameters
        ----------
        adata
            Cells in any order, with genes in any order; the model's own if not given.
        layer
            As in :meth:`predict`.

        Returns
        -------
        Mask ``(n_cells,)``. A cell with counts of 20 genes or more is also recognised under
        another name.

        Raises
        ------
        ValueError
            If the model does not know on which cells it was trained, because it was imported or
            saved by an early version; or as in :meth:`predict`.

        Examples
        --------
        >>> unseen = adata[~model.trained_on(adata)].copy()  # doctest: +SKIP
        """
        record = self.training_record
        if record is None:
            raise ValueError(
                "This model does not know which cells it was trained on: it was imported, or saved "
                "by an early version of this package."
            )
        return self._identify(self._select(adata, None, layer)).among(record.trained)

    def _identify(self, cells: CellSelection) -> CellIdentities:
        return identify(cells, self.gene_names)

    def _held_out_cells(self) -> CellSelection:
        """Find the cells of the model's AnnData that were held out; stop if there are none."""
        record = self.training_record
        has_positions = self.validation_indices is not None and len(self.validation_indices) > 0
        if record is None and has_positions:
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
        cells = self._find(record.held_out, self.validation_indices)
        if not len(cells):
            raise ValueError(
                f"None of the {len(record.held_out):,} cells that were held out in training is in "
                "this AnnData: names and counts differ. Say which cells, `indices=`, or give the "
                "cells that the model was made with."
            )
        return cells

    def _trained_cells(self) -> CellSelection:
        """Find the cells of the model's AnnData that were trained on."""
        return self._find(self.training_record.trained, self.train_indices)

    def _find(self, wanted: CellIdentities, positions: NDArray[np.intp] | None) -> CellSelection:
        """Find cells of the model's AnnData, where they were at first or elsewhere."""
        everyone = self._select(None)
        if positions is not None and len(positions) and max(positions) < len(everyone):
            as_before = everyone.take(np.sort(positions))
            if self._identify(as_before).among(wanted).all():
                return as_before
        return everyone.take(self._identify(everyone).among(wanted))

    def _find_indices(self) -> None:
        record = self.training_record
        if record is None:
            return
        parts = {"train": record.trained, "validation": record.held_out, "test": record.set_aside}
        for part, wanted in parts.items():
            name = f"{part}_indices_"
            before = getattr(self, name)
            if before is None:
                continue
            found = self._find(wanted, before).positions
            if not np.array_equal(found, np.sort(before)):
                setattr(self, name, found)

    def _n_trained_on(self, cells: CellSelection) -> int:
        record = self.training_record
        return 0 if record is None else int(self._identify(cells).among(record.trained).sum())

    def _refuse_trained(self, cells: CellSelection, verb: str, why: str) -> None:
        """Stop at cells that the model was trained on."""
        n_trained = self._n_trained_on(cells)
        if not n_trained:
            return
        own = f" For those held out in training: `model.{verb}()`." * self._has_held_out()
        raise ValueError(
            f"The model was trained on {n_trained:,} of these {len(cells):,} cells, {why}. Leave "
            f"them out: `model.{verb}(adata, indices=~model.trained_on(adata))`.{own}"
        )

    def _has_held_out(self) -> bool:
        record = self.training_record
        return record is not None and len(record.held_out) > 0

    def _true_labels(self, cells: CellSelection, labels_key: str | None) -> NDArray[Any]:
        """Labels of cells as strings; the unlabelled category where there is none."""
        setup = self.registry["setup_args"]
        if labels_key is None and cells.adata is self.adata:
            check_labels_unchanged(self.adata_manager)
        key = labels_key or setup["labels_key"]
        names = name_values(find_column(cells.adata.obs, key, "labels_key"))[cells.positions]
        return np.where(names.codes < 0, setup["unlabeled_category"], np.asarray(names, object))

    def _codes_of(self, cells: CellSelection, labels_key: str | None) -> NDArray[np.int64]:
        """Codes of labels; -1 where there is none that the model knows and can predict."""
        codes = pd.Index(self.labels).get_indexer(self._true_labels(cells, labels_key))
        # Whether a label that stands for others is right cannot be told.
        return np.where((codes >= 0) & self._open_labels[codes], codes, -1)
