"""Calibration, prediction sets, novelty: what held-out cells allow to state."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab.base import draw_cells
from scvi_sctab.metrics import Calibration, CellEvidence, check_method, fit_centers

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from scvi_sctab.data import CellSelection
    from scvi_sctab.metrics import ScalingMethod

logger = logging.getLogger("scvi.sctab")

# Fewer held-out cells say too little.
_MIN_CELLS = 50
_MAX_CELLS = 20_000
# Far below any probability that matters, far above where logarithms end.
_MIN_PROBABILITY = 1e-30


class UncertaintyMixin:
    """Statements about error rates, for one network or for several."""

    calibration_: dict[str, Any] | None = None

    @property
    def calibration(self) -> Calibration | None:
        """What held-out cells say about the model; ``None`` if none were held out."""
        return None if self.calibration_ is None else Calibration.from_dict(self.calibration_)

    def calibrate(
        self,
        adata: AnnData | None = None,
        labels_key: str | None = None,
        indices: Sequence[int] | None = None,
        method: ScalingMethod | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> None:
        """Calibrate on labelled cells that were not trained on; training does it by itself.

        Fits a temperature :cite:p:`Guo17`, takes one that is a standard error higher, since few
        cells prove little, and fits how far probabilities follow how frequent labels are, which
        class weights hide :cite:p:`Menon21`. Predicted labels stay what they are. Keeps what
        prediction sets, novelty and the test for shift need.

        Parameters
        ----------
        adata
            Labelled cells that the model was not trained on, drawn as those come that it will be
            asked about; the reference if not given.
        labels_key
            Column with their labels; the one of :meth:`setup_anndata` if not given. Labels that
            the model does not know are left aside.
        indices
            Cells, which must not be among those trained on. If not given, all of ``adata``, or
            those of the reference that were held out, found again by name and counts.
        method
            ``"prior"``, as above, with the frequencies of the cells trained on, or of those given;
            ``"temperature"``, that alone; ``"vector"`` fits a bias per label, which moves labels
            to those that are frequent among these cells. If not given, ``"prior"`` where
            frequencies are known: where the cells hold every label, and none is coarse.
        batch_size, layer, min_gene_overlap
            As in :meth:`predict`.

        Raises
        ------
        KeyError
            If there is no such column.
        RuntimeError
            If the model is not trained.
        ValueError
            If cells were trained on, fewer than 50 have a label that the model knows, none was
            held out and none is given, or there is no such method.

        Warns
        -----
        UserWarning
            If it is not known where some labels lie, so that their cells will look novel.
        """
        self._require_trained()
        if method is not None:
            check_method(method)
        own = adata is None and indices is None
        if own:
            cells = self._held_out_cells()
        else:
            cells = self._select(adata, indices, layer, min_gene_overlap)
            self._refuse_trained(cells, "calibrate", "of which it is surer than of new ones")
        held_out, labels = self._labeled_evidence(cells, labels_key, batch_size)
        if len(labels) < _MIN_CELLS:
            raise ValueError(
                f"{len(labels)} cells with labels that the model knows are too few to calibrate on; "
                f"it takes {_MIN_CELLS}."
            )
        counts = self._count(labels)
        if own:
            trained = self._trained_cells()
            known = self._labeled_evidence(trained, labels_key, batch_size)
            centers = fit_centers(known[0].features, known[1])
            counts = self._count(self._codes_of(trained, labels_key))
        elif self._knows_centers(counts):
            # These cells need not hold all labels.
            centers = self.calibration.centers
        else:
            # Where labels lie must not be learnt from the cells that are to be compared with it.
            half = np.random.default_rng(0).permutation(len(labels)) % 2 == 0
            centers = fit_centers(held_out.features[half], labels[half])
            held_out, labels = held_out.take(~half), labels[~half]
            self._warn_of_labels_without_center(counts)
        method = method or self._scaling_method(counts)
        calibration = Calibration.fit(centers, held_out, labels, method, counts)
        self.calibration_ = calibration.to_dict()
        logger.info(
            f"Calibrated on {len(labels):,} held-out cells by {method!r}: temperature "
            f"{calibration.scaling.temperature:.2f}."
        )

    def get_prediction_sets(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        error_rate: float = 0.1,
        by_label: bool = False,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """List the labels that cannot be ruled out, by split conformal prediction.

        Sets miss the true label in ``error_rate`` of cells that are exchangeable with the held-out
        ones :cite:p:`Angelopoulos23`; those of another study are not, see :meth:`get_shift`, nor
        those of a sample with other label frequencies, whose rates within labels hold. They are
        the smallest such sets on average :cite:p:`Sadinle19`; a set is empty if no label is
        probable enough.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`predict`.
        error_rate
            In (0, 1).
        by_label
            Whether to keep the rate within each label, at the price of larger sets; labels with
            too few held-out cells are in every set.

        Returns
        -------
        Frame ``(n_cells, n_labels)`` of booleans, rows named by cell and columns by label.

        Raises
        ------
        RuntimeError
            If the model is not trained, or not calibrated.
        ValueError
            If the rate is not in (0, 1), or as in :meth:`predict`.

        Warns
        -----
        UserWarning
            If the cells differ from the held-out ones.
        """
        calibration = self._require_calibration()
        cells = self._select(adata, indices, layer, min_gene_overlap)
        sets, described = [np.zeros((0, len(self.labels)), bool)], []
        for evidence in self._evidence(cells, batch_size):
            probabilities = calibration.probabilities(evidence)
            sets.append(self._sets(probabilities, error_rate, by_label))
            described.append(calibration.describe(evidence))
        if described:
            self._warn_of_shift(pd.concat(described), cells)
        values = np.concatenate(sets)
        return pd.DataFrame(values, index=cells.names, columns=self.labels)

    def get_novelty(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> NDArray[np.float64]:
        """Test whether cells are of a label that the model does not know.

        The score is the Mahalanobis distance of a cell's logits to those of the nearest label
        :cite:p:`Lee18`, compared with cells that were held out :cite:p:`Bates23`. To call cells
        with ``p <= 0.05`` novel is wrong for one in twenty of those that are exchangeable with the
        held-out ones; for more, where cells are of another study.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`predict`.

        Returns
        -------
        p-values ``(n_cells,)``; small is novel. NaN where the predicted label came with a query,
        after calibration.

        Raises
        ------
        RuntimeError
            If the model is not trained, or not calibrated.
        ValueError
            As in :meth:`predict`.

        Warns
        -----
        UserWarning
            If the cells differ from the held-out ones.
        """
        calibration = self._require_calibration()
        cells = self._select(adata, indices, layer, min_gene_overlap)
        parts, described = [np.zeros(0)], []
        for evidence in self._evidence(cells, batch_size):
            parts.append(calibration.novelty(evidence))
            described.append(calibration.describe(evidence))
        if described:
            self._warn_of_shift(pd.concat(described), cells)
        return np.concatenate(parts)

    def get_shift(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Compare cells with those that the model was calibrated on.

        Stated error rates hold for cells like them. How frequent labels are is not compared:
        where it differs, rates within labels hold.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`predict`.

        Returns
        -------
        A row per statistic: ``distance`` (of Kolmogorov and Smirnov), ``limit`` and ``shifted``.

        Raises
        ------
        RuntimeError
            If the model is not trained, or not calibrated.
        ValueError
            If there is no cell, or as in :meth:`predict`.
        """
        calibration = self._require_calibration()
        cells = self._select(adata, indices, layer, min_gene_overlap)
        parts = [calibration.describe(e) for e in self._evidence(cells, batch_size)]
        parts = parts or [calibration.describe(self._no_evidence())]
        return calibration.shift(pd.concat(parts))

    def _count(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Cells per label."""
        return np.bincount(codes[codes >= 0], minlength=len(self.labels))

    def _scaling_method(self, counts: NDArray[np.int64]) -> ScalingMethod:
        """Choose by whether it is known how frequent labels are."""
        all_there = counts[self._open_labels].all() and not self.coarse_labels
        return "prior" if all_there else "temperature"

    def _knows_centers(self, counts: NDArray[np.int64]) -> bool:
        """Whether it is known where labels lie, those that came with a query among them."""
        if self.calibration is None:
            return False
        whitening, centers = self.calibration.centers
        return len(whitening) == len(self.labels) and len(centers) >= np.count_nonzero(counts)

    def _warn_of_labels_without_center(self, counts: NDArray[np.int64]) -> None:
        missing = self.labels[(counts == 0) & self._open_labels]
        if len(missing):
            warnings.warn(
                f"These cells hold no {', '.join(map(repr, missing.tolist()))}, and the model has "
                "no other calibration that tells where such cells lie: they will look novel. "
                "Calibrate on cells of all labels.",
                UserWarning,
                stacklevel=3,
            )

    def _calibrate_after_training(self) -> None:
        """Calibrate if enough cells were held out whose label can be told right from wrong."""
        self.calibration_ = None
        if not self._has_held_out():
            return
        n_cells = int((self._codes_of(self._held_out_cells(), None) >= 0).sum())
        if n_cells < _MIN_CELLS:
            logger.warning(
                f"{n_cells} held-out cells are too few to calibrate on; it takes {_MIN_CELLS}. "
                "`annotate()` goes without `prediction_set`, `novelty_p_value` and `novel`, and its "
                "probabilities are not calibrated. Train on more labelled cells, hold out more, "
                "`train(train_size=0.7)`, or calibrate on other labelled cells, "
                "`model.calibrate(adata)`."
            )
        else:
            self.calibrate()

    def _sets(
        self, probabilities: NDArray[np.float32], error_rate: float, by_label: bool = False
    ) -> NDArray[np.bool_]:
        """List labels per cell, among those that can be predicted at all."""
        return self.calibration.sets(probabilities, error_rate, by_label) & self._open_labels

    def _require_calibration(self) -> Calibration:
        self._require_trained()
        if self.calibration is None:
            raise RuntimeError(
                "This model is not calibrated: too few cells were held out in training, it was "
                "joined from models or imported, or a query has changed the reference's parameters "
                "since. `model.calibrate(adata)` with labelled cells that it was not trained on."
            )
        return self.calibration

    def _calibrated(self, evidence: CellEvidence) -> NDArray[np.float32]:
        """Probabilities, calibrated if possible."""
        if self.calibration is None:
            return softmax(evidence.logits, axis=1)
        return self.calibration.probabilities(evidence)

    def _tempered(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities that weigh labels alike, as logits do, at the calibrated temperature."""
        temperature = 1.0 if self.calibration is None else self.calibration.scaling.temperature
        return softmax(logits / temperature, axis=1)

    def _weighed_alike(self, cells: CellSelection) -> pd.DataFrame:
        """Class-balanced probabilities of cells, without the label prior."""
        parts = (self._tempered(e.logits) for e in self._evidence(cells, None))
        return self._by_label(parts, cells)

    def _by_label(
        self, parts: Iterable[NDArray[np.float32]], cells: CellSelection
    ) -> pd.DataFrame:
        """Join batches of probabilities; there may be none."""
        values = np.concatenate([np.zeros((0, len(self.labels)), np.float32), *parts])
        return pd.DataFrame(values, index=cells.names, columns=self.labels)

    def _with_frequencies(self, probabilities: NDArray[np.floating]) -> NDArray[np.floating]:
        """Probabilities that know how frequent labels are, from those that do not."""
        if self.calibration is None:
            return probabilities
        logits = np.log(np.maximum(probabilities, _MIN_PROBABILITY))
        return self.calibration.scaling._replace(temperature=1.0).probabilities(logits)

    def _calibrated_reference(self, evidence: CellEvidence) -> NDArray[np.float32]:
        """Probabilities without what was adapted to a query."""
        return self._calibrated(replace(evidence, logits=evidence.reference_logits))

    def _labeled_evidence(
        self,
        cells: CellSelection,
        labels_key: str | None,
        batch_size: int | None,
    ) -> tuple[CellEvidence, NDArray[np.int64]]:
        """Logits and codes of cells with a label that the model knows."""
        codes = self._codes_of(cells, labels_key)
        chosen = draw_cells(np.flatnonzero(codes >= 0), _MAX_CELLS)
        parts = list(self._evidence(cells.take(chosen), batch_size))
        evidence = CellEvidence.concatenate(parts) if parts else self._no_evidence()
        return evidence, codes[chosen]
