"""What a classifier's evidence means for each cell: label, probability, sets, novelty."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from scvi_sctab.data import get_column
from scvi_sctab.metrics import CellEvidence, classification_report, normalized_entropy

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

_SEPARATOR = " | "
_STATISTIC = "statistic: "
# Of fewer cells nobody can say where they come from.
_MIN_CELLS_TO_COMPARE = 100


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
        adata, cells = self._query(adata, indices)
        probabilities = map(self._calibrated, self._evidence(adata, cells, batch_size))
        if soft:
            return self._by_label(probabilities, adata, cells)
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
    ) -> pd.DataFrame:
        """Annotate cells: label, probability, what else they may be, whether they are novel.

        Parameters
        ----------
        adata, indices, batch_size
            As in :meth:`predict`.
        error_rate
            Share of cells whose ``prediction_set`` may miss the true label.
        false_alarm_rate
            Share of cells of known labels that may be called ``novel``.
        term_level
            Probability that ``term`` has to reach.

        Returns
        -------
        A row per cell, to join to ``adata.obs``:

        - ``label``: the most probable cell type, categorical over all labels.
        - ``probability``: its probability.
        - ``uncertainty``: entropy of the probabilities over that of not knowing at all, in
          [0, 1].
        - ``runner_up``: the second most probable cell type.

        From a model that was calibrated, as training does if cells were held out:

        - ``prediction_set``: labels that cannot be ruled out, ``"B | NK"``, the most probable
          first; empty where no label is probable enough. See :meth:`get_prediction_sets`.
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
            If cells share names, a rate is not between 0 and 1, or as in :meth:`predict`.

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
        adata, cells = self._query(adata, indices)
        if not adata.obs_names.is_unique:
            raise ValueError(
                "Cells share names, so that rows could not be told apart: "
                "`adata.obs_names_make_unique()`."
            )
        parts = [
            self._describe(evidence, error_rate, term_level)
            for evidence in self._evidence(adata, cells, batch_size)
        ]
        parts = parts or [self._describe(self._no_evidence(), error_rate, term_level)]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if self.calibration is not None:
            self._warn_of_shift(_pop_statistics(columns))
            columns["prediction_set"] = _name_sets(
                columns.pop("set"), columns["label"], self.labels
            )
            columns["novel"] = columns["novelty_p_value"] <= false_alarm_rate
        self._name_terms(columns)
        for name in {"label", "runner_up", "reference_label"} & columns.keys():
            columns[name] = pd.Categorical.from_codes(columns[name], categories=self.labels)
        return pd.DataFrame(columns, index=adata.obs_names[cells])

    def evaluate(
        self,
        adata: AnnData | None = None,
        labels_key: str | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Compare predictions with labels.

        Parameters
        ----------
        adata
            Labelled cells; the reference if not given, and then the cells that were held out for
            validation unless ``indices`` says otherwise.
        labels_key
            Column with the truth; the one of :meth:`setup_anndata` if not given.
        indices, batch_size
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
            If no cell has a label, or as in :meth:`predict`.
        """
        self._require_trained()
        setup = self.registry["setup_args"]
        if adata is None and indices is None:
            indices = self.validation_indices
            if indices is None or not len(indices):
                raise ValueError("No cells were held out; say which cells with `indices=`.")
        query, cells = self._query(adata, indices)
        truth = get_column(query.obs, labels_key or setup["labels_key"], "labels_key").to_numpy()
        labeled = cells[truth[cells] != str(setup["unlabeled_category"])]
        if not len(labeled):
            raise ValueError("There is no labelled cell to evaluate on.")
        predicted = self.predict(query, labeled, batch_size=batch_size)
        finer = self._says_finer(truth[labeled], predicted)
        report = classification_report(truth[labeled], np.where(finer, truth[labeled], predicted))
        return pd.concat([report, self._corrected_scores(truth[labeled], predicted)])

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
            columns |= {_STATISTIC + name: described[name].to_numpy() for name in described}
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

    def _evidence(
        self, adata: AnnData, cells: NDArray[np.intp], batch_size: int | None
    ) -> Iterator[CellEvidence]:
        raise NotImplementedError

    def _warn_of_shift(self, described: pd.DataFrame) -> None:
        if len(described) < _MIN_CELLS_TO_COMPARE:
            return
        table = self.calibration.shift(described)
        shifted = table[table["shifted"]]
        if len(shifted):
            found = ", ".join(
                f"{name} {row.distance:.2f} (limit {row.limit:.2f})"
                for name, row in shifted.iterrows()
            )
            warnings.warn(
                "These cells differ from those that the model was calibrated on, by the "
                f"Kolmogorov-Smirnov distance of {found}: probabilities, prediction sets and "
                "novelty may be wrong more often than stated. With some labelled cells of this "
                "kind, `model.calibrate(adata)` makes them hold again.",
                UserWarning,
                stacklevel=3,
            )


def _pop_statistics(columns: dict[str, NDArray[Any]]) -> pd.DataFrame:
    """Take out of the columns what shift is tested by."""
    names = [name for name in columns if name.startswith(_STATISTIC)]
    return pd.DataFrame({name.removeprefix(_STATISTIC): columns.pop(name) for name in names})


def _name_sets(
    packed: NDArray[np.uint8], first: NDArray[np.int64], labels: NDArray[np.str_]
) -> pd.Categorical:
    """Name sets of labels, the most probable one first, each distinct set once."""
    keys = np.column_stack([first, packed])
    distinct, codes = np.unique(keys, axis=0, return_inverse=True)
    names = []
    for top, *bits in distinct:
        members = np.unpackbits(np.array(bits, np.uint8), count=len(labels)).astype(bool)
        others = [labels[i] for i in np.flatnonzero(members) if i != top]
        names.append(_SEPARATOR.join([labels[top]] * bool(members[top]) + others))
    # Empty sets have one name, whatever label comes first.
    named = pd.Categorical(np.array(names, dtype=object))
    return pd.Categorical.from_codes(named.codes[codes.ravel()], dtype=named.dtype)
