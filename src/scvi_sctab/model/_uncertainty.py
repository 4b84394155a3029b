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

from scvi_sctab.data import find_column, name_values
from scvi_sctab.metrics import Calibration, CellEvidence, check_method, fit_centers
from scvi_sctab.mixins import draw_cells

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

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
            those of the reference that were held out.
        method
            ``"prior"``, as above, with the frequencies of the cells trained on, or of those given;
            ``"temperature"``, that alone; ``"vector"`` fits a bias per label, which moves labels
            to those that are frequent among these cells. If not given, ``"prior"`` where
            frequencies are known: where the cells hold every label, and none is coarse.
        batch_size
            As in :meth:`predict`.

        Raises
        ------
        KeyError
            If there is no such column.
        RuntimeError
            If the model is not trained.
        ValueError
            If fewer than 50 cells have a label that the model knows, none was held out and none is
            given, or there is no such method.

        Warns
        -----
        UserWarning
            If it is not known where some labels lie, so that their cells will look novel.
        """
        self._require_trained()
        if method is not None:
            check_method(method)
        own = adata is None and indices is None
        if own and not self._has_held_out():
            raise ValueError("No cells were held out: give labelled cells, `adata=`.")
        cells = self.validation_indices if own else indices
        held_out, labels = self._labeled_evidence(adata, labels_key, cells, batch_size)
        if len(labels) < _MIN_CELLS:
            raise ValueError(
                f"{len(labels)} cells with labels that the model knows are too few to calibrate on; "
                f"it takes {_MIN_CELLS}."
            )
        counts = self._count(labels)
        if own:
            known = self._labeled_evidence(None, labels_key, self.train_indices, batch_size)
            centers = fit_centers(known[0].features, known[1])
            counts = self._count(self._codes_of(self.adata, labels_key)[self.train_indices])
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
    ) -> pd.DataFrame:
        """List the labels that cannot be ruled out, by split conformal prediction.

        Sets miss the true label in ``error_rate`` of cells that are exchangeable with the held-out
        ones :cite:p:`Angelopoulos23`; those of another study are not, see :meth:`get_shift`, nor
        those of a sample with other label frequencies, whose rates within labels hold. They are
        the smallest such sets on average :cite:p:`Sadinle19`; a set is empty if no label is
        probable enough.

        Parameters
        ----------
        adata, indices, batch_size
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
        adata, cells = self._query(adata, indices)
        sets, described = [np.zeros((0, len(self.labels)), bool)], []
        for evidence in self._evidence(adata, cells, batch_size):
            probabilities = calibration.probabilities(evidence)
            sets.append(self._sets(probabilities, error_rate, by_label))
            described.append(calibration.describe(evidence))
        if described:
            self._warn_of_shift(pd.concat(described))
        values = np.concatenate(sets)
        return pd.DataFrame(values, index=adata.obs_names[cells], columns=self.labels)

    def get_novelty(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> NDArray[np.float64]:
        """Test whether cells are of a label that the model does not know.

        The score is the Mahalanobis distance of a cell's logits to those of the nearest label
        :cite:p:`Lee18`, compared with cells that were held out :cite:p:`Bates23`. To call cells
        with ``p <= 0.05`` novel is wrong for one in twenty of those that are exchangeable with the
        held-out ones; for more, where cells are of another study.

        Parameters
        ----------
        adata, indices, batch_size
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
        adata, cells = self._query(adata, indices)
        parts, described = [np.zeros(0)], []
        for evidence in self._evidence(adata, cells, batch_size):
            parts.append(calibration.novelty(evidence))
            described.append(calibration.describe(evidence))
        if described:
            self._warn_of_shift(pd.concat(described))
        return np.concatenate(parts)

    def get_shift(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Compare cells with those that the model was calibrated on.

        Stated error rates hold for cells like them. How frequent labels are is not compared:
        where it differs, rates within labels hold.

        Parameters
        ----------
        adata, indices, batch_size
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
        adata, cells = self._query(adata, indices)
        parts = [calibration.describe(e) for e in self._evidence(adata, cells, batch_size)]
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

    def _has_held_out(self) -> bool:
        return self.validation_indices is not None and len(self.validation_indices) > 0

    def _calibrate_after_training(self) -> None:
        """Calibrate if enough cells were held out whose label can be told right from wrong."""
        self.calibration_ = None
        if not self._has_held_out():
            return
        n_cells = int((self._codes_of(self.adata, None)[self.validation_indices] >= 0).sum())
        if n_cells < _MIN_CELLS:
            logger.info(f"{n_cells} held-out cells are too few to calibrate on.")
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

    def _weighed_alike(self, adata: AnnData | None, indices: Sequence[int] | None) -> pd.DataFrame:
        """Probabilities of all cells that do not know how frequent labels are."""
        adata, cells = self._query(adata, indices)
        parts = (self._tempered(e.logits) for e in self._evidence(adata, cells, None))
        return self._by_label(parts, adata, cells)

    def _by_label(
        self, parts: Iterable[NDArray[np.float32]], adata: AnnData, cells: NDArray[np.intp]
    ) -> pd.DataFrame:
        """Join batches of probabilities; there may be none."""
        values = np.concatenate([np.zeros((0, len(self.labels)), np.float32), *parts])
        return pd.DataFrame(values, index=adata.obs_names[cells], columns=self.labels)

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
        adata: AnnData | None,
        labels_key: str | None,
        indices: Sequence[int] | None,
        batch_size: int | None,
    ) -> tuple[CellEvidence, NDArray[np.int64]]:
        """Evidence and codes of cells with a label that the model knows."""
        adata, cells = self._query(adata, indices)
        codes = self._codes_of(adata, labels_key)[cells]
        chosen = draw_cells(np.flatnonzero(codes >= 0), _MAX_CELLS)
        parts = list(self._evidence(adata, cells[chosen], batch_size))
        evidence = CellEvidence.concatenate(parts) if parts else self._no_evidence()
        return evidence, codes[chosen]

    def _codes_of(self, adata: AnnData, labels_key: str | None) -> NDArray[np.int64]:
        """Codes of labels; -1 where there is none that the model knows and can predict."""
        key = labels_key or self.registry["setup_args"]["labels_key"]
        names = name_values(find_column(adata.obs, key, "labels_key"))
        codes = pd.Index(self.labels).get_indexer(names)
        # Whether a label that stands for others is right cannot be told.
        return np.where((codes >= 0) & self._open_labels[codes], codes, -1)
