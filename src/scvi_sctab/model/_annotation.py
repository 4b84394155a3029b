"""What a classifier's evidence means for each cell: label, probability, sets, novelty."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab.data import list_near_names, reads_as_none
from scvi_sctab.metrics import CellEvidence, classification_report, normalized_entropy
from scvi_sctab.model._annotation_frame import (
    STATISTIC,
    name_sets,
    pop_statistics,
    unassign,
    write_columns,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from scvi_sctab.data import CellSelection

# Of fewer cells nobody can say where they come from.
_MIN_CELLS_TO_COMPARE = 100
_MIN_CELLS_TO_CALIBRATE = 50


class AnnotationMixin:
    """Annotations of cells from the evidence of one network or of several.

    Nothing is written into the AnnData.
    """

    def predict(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        soft: bool = False,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> NDArray[np.str_] | pd.DataFrame:
        """Predict cell types.

        Parameters
        ----------
        adata
            Raw counts, in memory or backed, in the layer that the model was set up with; genes in
            any order. The reference if not given. Where its batch column holds batches that the
            model does not know, or is missing, the encoder goes without.
        indices
            Cells, in this order; all if not given.
        soft
            Whether to return probabilities, calibrated on held-out cells if there were any.
        batch_size
            Cells at a time.
        layer
            Layer with raw counts, if not the one that the model was set up with; ``"X"`` is
            ``adata.X``.
        min_gene_overlap
            Share of the model's genes below which ``adata`` is refused; missing genes count as 0.

        Returns
        -------
        Labels ``(n_cells,)``; or, if ``soft``, a frame ``(n_cells, n_labels)`` of probabilities,
        rows named by cell and columns by label.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If ``adata`` does not hold raw counts, or too few of the model's genes.
        """
        self._require_trained()
        cells = self._select(adata, indices, layer, min_gene_overlap)
        if soft:
            probabilities = map(self._calibrated, self._evidence(cells, batch_size))
            return self._by_label(probabilities, cells)
        return self._predict(cells, batch_size)

    def _predict(self, cells: CellSelection, batch_size: int | None = None) -> NDArray[np.str_]:
        """Most probable label of each cell."""
        probabilities = map(self._calibrated, self._evidence(cells, batch_size))
        codes = [part.argmax(axis=1) for part in probabilities]
        return self.labels[np.concatenate([np.zeros(0, np.int64), *codes])]

    def annotate(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        error_rate: float = 0.1,
        false_alarm_rate: float = 0.05,
        term_level: float = 0.9,
        unassigned: str | None = None,
        key_added: str | None = None,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Annotate cells: label, probability, what else they may be, whether they are novel.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`predict`.
        error_rate
            Share of cells whose ``prediction_set`` may miss the true label.
        false_alarm_rate
            Share of cells of known labels that may be called ``novel``.
        term_level
            Probability that ``term`` has to reach.
        unassigned
            Label of cells that are ``novel`` or whose prediction set is empty, e.g.
            ``"unassigned"``; the most probable label is then in ``closest_label``. If not given,
            ``label`` is the most probable one in any case.
        key_added
            Prefix of the columns, e.g. ``"sctab"`` for ``sctab_label``. If given, they are also
            written into ``adata.obs``, over those of an earlier call.

        Returns
        -------
        A row per cell, to join to ``adata.obs`` (or see ``key_added``):

        - ``label``: the most probable cell type, categorical over all labels.
        - ``probability``: its probability.
        - ``uncertainty``: entropy of the probabilities over that of not knowing at all, in
          [0, 1].
        - ``runner_up``: the second most probable cell type.

        From a model that was calibrated, as training does if cells were held out:

        - ``prediction_set``: labels that cannot be ruled out, ``"B | NK"``, the most probable
          first; ``"no label"`` where none is probable enough. See :meth:`get_prediction_sets`.
        - ``novelty_p_value``: see :meth:`get_novelty`; ``novel``: whether it is at most
          ``false_alarm_rate``.

        From a model whose labels are placed in the Cell Ontology by :meth:`set_ontology`:

        - ``term``, ``term_id``: the most specific term that reaches ``term_level``: *T cell* where
          it is one of several kinds; ``term_probability``: its probability. A cell whose label was
          not placed has the term ``"not in the Cell Ontology: <label>"`` and, as all that is known
          of it, the id of *cell*, ``CL:0000000``, with the probability 1.
        - ``set_term``: the most specific term that covers the prediction set; of a single label
          that was not placed as for ``term``.

        A model of a query whose policy is ``"batch"`` adds what it would say without the query's
        own path, ``reference_label`` and ``reference_probability``. A cell of a type that the
        reference lacks shows in the latter: adaptation makes all cells surer.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If cells share names, a rate is not between 0 and 1, ``unassigned`` is a label of the
            model or the model is not calibrated, or as in :meth:`predict`.

        Warns
        -----
        UserWarning
            If the cells differ so much from those that the model was calibrated on that the rates
            may not hold.
        """
        self._require_trained()
        rates = {
            "error_rate": error_rate,
            "false_alarm_rate": false_alarm_rate,
            "term_level": term_level,
        }
        for name, rate in rates.items():
            if not 0 < rate < 1:
                raise ValueError(f"{name}={rate!r} is not between 0 and 1.")
        if unassigned is not None:
            self._require_calibration()
            if unassigned in self.labels:
                raise ValueError(f"{unassigned=} is a label of the model; choose another word.")
        cells = self._select(adata, indices, layer, min_gene_overlap)
        if not cells.adata.obs_names.is_unique:
            raise ValueError(
                "Cells share names, so that rows could not be told apart: "
                "`adata.obs_names_make_unique()`."
            )
        parts = [
            self._describe(evidence, error_rate, term_level)
            for evidence in self._evidence(cells, batch_size)
        ]
        parts = parts or [self._describe(self._no_evidence(), error_rate, term_level)]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if self.calibration is not None:
            self._warn_of_shift(pop_statistics(columns), cells)
            columns["prediction_set"] = name_sets(
                columns.pop("set"), columns["label"], self.labels
            )
            columns["novel"] = columns["novelty_p_value"] <= false_alarm_rate
        self._name_terms(columns)
        for name in {"label", "runner_up", "reference_label"} & columns.keys():
            columns[name] = pd.Categorical.from_codes(columns[name], categories=self.labels)
        frame = pd.DataFrame(columns, index=cells.names)
        if unassigned is not None:
            frame = unassign(frame, unassigned)
        if key_added is not None:
            frame = frame.add_prefix(f"{key_added}_")
            write_columns(frame, self.adata if adata is None else adata)
        return frame

    def evaluate(
        self,
        adata: AnnData | None = None,
        labels_key: str | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Compare predictions with labels.

        Parameters
        ----------
        adata
            Labelled cells that were not trained on; the reference if not given, and then the
            cells that were held out for validation unless ``indices`` says otherwise. Cells
            without a label are left out.
        labels_key
            Column with the truth; the one of :meth:`setup_anndata` if not given.
        indices, batch_size, layer, min_gene_overlap
            As in :meth:`predict`.

        Returns
        -------
        Precision, recall, F1 and number of cells: a row per label that occurs in the truth, then
        ``macro average``, ``weighted average`` and ``accuracy``. After :meth:`set_ontology` also
        ``macro average, ontology-corrected`` and ``accuracy, ontology-corrected``, which count a
        label that is finer than the truth as right, as scTab does, if the ontology holds all
        labels of the truth. For coarse labels one that they stand for is right in any case.

        Raises
        ------
        KeyError
            If there is no such column.
        ValueError
            If no cell has a label, cells of ``adata`` were trained on, labels have changed since
            they were set up, or as in :meth:`predict`.

        Warns
        -----
        UserWarning
            If the truth has labels that the model does not know, or cells of ``indices`` were
            trained on.
        """
        self._require_trained()
        if adata is None and indices is None:
            cells = self._held_out_cells()
        else:
            cells = self._select(adata, indices, layer, min_gene_overlap)
        truth = self._true_labels(cells, labels_key)
        labeled = self._has_label(truth)
        if not labeled.any():
            raise ValueError("There is no labelled cell to evaluate on.")
        cells, truth = cells.take(labeled), truth[labeled]
        if indices is None:
            self._refuse_trained(cells, "evaluate", "on which scores flatter")
        else:
            self._warn_of_trained(cells)
        self._warn_of_unknown_labels(truth)
        predicted = self._predict(cells, batch_size)
        finer = self._says_finer(truth, predicted)
        report = classification_report(truth, np.where(finer, truth, predicted))
        return pd.concat([report, self._corrected_scores(truth, predicted)])

    def _has_label(self, truth: NDArray[Any]) -> NDArray[np.bool_]:
        """Mark cells with a label; words for none count as none unless they were learnt."""
        none = {str(self.registry["setup_args"]["unlabeled_category"])}
        none |= {label for label in set(truth) - set(self.labels) if reads_as_none(label)}
        return ~np.isin(truth, list(none))

    def _warn_of_trained(self, cells: CellSelection) -> None:
        n_trained = self._n_trained_on(cells)
        if n_trained:
            warnings.warn(
                f"The model was trained on {n_trained:,} of these {len(cells):,} cells: the scores "
                "say how well it has learnt them, not how well it does on others.",
                UserWarning,
                stacklevel=3,
            )

    def _warn_of_unknown_labels(self, truth: NDArray[Any]) -> None:
        unknown = sorted(set(truth) - set(self.labels))
        if unknown:
            n_cells = int(np.isin(truth, unknown).sum())
            warnings.warn(
                f"The model does not know {len(unknown):,} labels of the truth: "
                f"{list_near_names(unknown, self.labels)}. Their {n_cells:,} cells of "
                f"{len(truth):,} count as wrong; where names alone differ, rename them.",
                UserWarning,
                stacklevel=3,
            )

    def _says_finer(self, truth: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.bool_]:
        """Where the truth is a coarse label that stands for the prediction."""
        right = np.zeros(len(truth), dtype=bool)
        for label, finer in self.coarse_labels.items():
            right |= (truth == label) & np.isin(predicted, finer)
        return right

    def _describe(
        self, evidence: CellEvidence, error_rate: float, term_level: float
    ) -> dict[str, NDArray[Any]]:
        """Columns of :meth:`annotate` for a batch of cells; labels as codes."""
        probabilities = self._calibrated(evidence)
        value, code = torch.from_numpy(probabilities).topk(2, dim=1)
        columns = {
            "label": code[:, 0].numpy(),
            "probability": value[:, 0].numpy(),
            "uncertainty": normalized_entropy(torch.from_numpy(probabilities)).numpy(),
            "runner_up": code[:, 1].numpy(),
        }
        sets = None
        if self.calibration is not None:
            sets = self._sets(probabilities, error_rate)
            columns["set"] = np.packbits(sets, axis=1)
            columns["novelty_p_value"] = self.calibration.novelty(evidence)
            described = self.calibration.describe(evidence)
            columns |= {STATISTIC + name: described[name].to_numpy() for name in described}
        self._add_terms(columns, probabilities, sets, term_level)
        if self._is_adapted:
            before = self._calibrated_reference(evidence)
            columns |= {
                "reference_label": before.argmax(axis=1),
                "reference_probability": before.max(axis=1),
            }
        return columns

    def _no_evidence(self) -> CellEvidence:
        none = np.zeros((0, len(self.labels)), np.float32)
        return CellEvidence(none, none, none)

    def _evidence(self, cells: CellSelection, batch_size: int | None) -> Iterator[CellEvidence]:
        raise NotImplementedError

    def _warn_of_shift(self, described: pd.DataFrame, cells: CellSelection) -> None:
        if len(described) < _MIN_CELLS_TO_COMPARE:
            return
        table = self.calibration.shift(described)
        shifted = table[table["shifted"]]
        if not len(shifted):
            return
        found = ", ".join(
            f"{name} {row.distance:.2f} (limit {row.limit:.2f})"
            for name, row in shifted.iterrows()
        )
        n_trained = self._n_trained_on(cells)
        if n_trained > len(cells) / 2:
            advice = (
                f"{n_trained:,} of the {len(cells):,} were trained on, and the model is surer of "
                "those. Ask about cells that it has not seen; `model.evaluate()` scores those held "
                "out in training."
            )
        else:
            advice = (
                f"To make them hold, calibrate on {_MIN_CELLS_TO_CALIBRATE} or more labelled cells "
                "of the same study, of all the types that it holds, with labels that you trust: "
                "`model.calibrate(labelled_cells)`."
            )
        warnings.warn(
            "These cells differ from those that the model was calibrated on, by the "
            f"Kolmogorov-Smirnov distance of {found}: probabilities, prediction sets and "
            f"novelty may be wrong more often than stated. {advice}",
            UserWarning,
            stacklevel=3,
        )
