"""Verbs that annotate cells, for one network or for several."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab._logging import logger
from scvi_sctab._messages import list_near_names
from scvi_sctab.annotation import (
    MIN_CELLS_TO_CALIBRATE,
    VOTE_WEIGHT,
    Rates,
    annotate_cells,
    count_labels,
    find_shift,
    fit_calibration,
    join_probabilities,
    nearest_neighbors,
    neighborhoods_of_groups,
    neighborhoods_of_neighbors,
    place_labels,
    predict_labels,
    refine_labels,
    score_labels,
    shift_message,
    unassign,
)
from scvi_sctab.base import draw_cells
from scvi_sctab.data import (
    CellIdentities,
    find_cells,
    find_held_out,
    identify,
    reads_as_none,
    true_labels,
)
from scvi_sctab.metrics import CellEvidence, check_method
from scvi_sctab.model._classifier import CellClassifier
from scvi_sctab.model._groups import batch_codes, cluster_codes, write_columns
from scvi_sctab.model._records import saved_annotation
from scvi_sctab.ontology import CellOntology, LabelHierarchy

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from scvi_sctab.data import CellSelection
    from scvi_sctab.metrics import Calibration, ScalingMethod

# Cells whose logits are kept for a calibration.
_MAX_CELLS = 20_000


class CellAnnotator(CellClassifier):
    """Labels, probabilities and statements about cells.

    Nothing is written into the AnnData but by ``annotate(key_added=...)``.
    """

    # Names under which files hold parts of the state.
    calibration_ = saved_annotation("calibration")
    hierarchy_ = saved_annotation("hierarchy")

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
        if not soft:
            return self._predict(cells, batch_size)
        state = self.annotation
        parts = (state.probabilities(part.logits) for part in self._logits_of(cells, batch_size))
        return join_probabilities(state, parts, cells.names)

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
        rates = Rates(error_rate, false_alarm_rate, term_level)
        state = self.annotation
        if unassigned is not None:
            state.calibrated()
            if unassigned in self.labels:
                raise ValueError(f"{unassigned=} is a label of the model; choose another word.")
        cells = self._select(adata, indices, layer, min_gene_overlap)
        if not cells.adata.obs_names.is_unique:
            raise ValueError(
                "Cells share names, so that rows could not be told apart: "
                "`adata.obs_names_make_unique()`."
            )
        logits = self._logits_of(cells, batch_size)
        frame, statistics = annotate_cells(state, logits, cells.names, rates, self._is_adapted)
        if statistics is not None:
            self._warn_of_shift(statistics, cells)
        if unassigned is not None:
            frame = unassign(frame, unassigned)
        if key_added is not None:
            frame = frame.add_prefix(f"{key_added}_")
            write_columns(frame, self.adata if adata is None else adata)
        return frame

    def refine(
        self,
        adata: AnnData | None = None,
        clusters: str | Sequence[object] | None = None,
        *,
        batch_key: str | None = None,
        across_batches: bool = False,
        indices: Sequence[int] | None = None,
        n_neighbors: int = 15,
        weight: float = VOTE_WEIGHT,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        r"""Predict cell types by a vote within clusters, or among cells that are alike.

        Each cell keeps its say: its own probabilities are multiplied by :math:`(m / b)^w`, where
        :math:`m` are the mean ones of the others around it and :math:`b` those of all cells. A
        sure cell is hardly ever overruled, and nothing speaks for a type because it is frequent:
        rare types survive, which a majority vote :cite:p:`DominguezConde22` wipes out.

        Parameters
        ----------
        adata
            As in :meth:`~scvi_sctab.SCTAB.predict`.
        clusters
            Column of ``adata.obs``, or a cluster per cell of ``adata``; a series is aligned by the
            names of cells. Without any, each cell votes with those next to it in
            :meth:`~scvi_sctab.SCTAB.get_latent_representation`.
        batch_key
            Column of ``adata.obs``; cells of different batches do not vote together. The one of
            :meth:`~scvi_sctab.SCTAB.setup_anndata` if not given and ``adata`` has it.
        across_batches
            Whether cells of different batches vote together after all.
        indices
            Cells to refine, which vote among themselves; all if not given.
        n_neighbors
            Cells that vote together without ``clusters``, the cell itself included.
        weight
            :math:`w`; 0 leaves cells alone.
        layer, min_gene_overlap
            As in :meth:`~scvi_sctab.SCTAB.predict`.

        Returns
        -------
        A row per cell:

        - ``label``: the refined label, categorical over all labels.
        - ``probability``: its refined probability.
        - ``raw_label``: the cell's own label.
        - ``changed``: whether the two differ.
        - ``cluster_frequency``: share of the cells around it whose own label is the refined one.
        - ``cluster_entropy``: entropy of the mean probabilities around it, in [0, 1].

        Raises
        ------
        KeyError
            If there is no such column.
        ValueError
            If ``clusters`` do not fit the cells, ``n_neighbors`` or ``weight`` are out of range,
            or as in :meth:`~scvi_sctab.SCTAB.predict`.
        """
        if n_neighbors < 1:
            raise ValueError(f"{n_neighbors=} leaves nobody to vote; it counts the cell itself.")
        if not 0 <= weight < np.inf:
            raise ValueError(f"{weight=} must be 0, which leaves cells alone, or more.")
        self._require_trained()
        cells, state = self._select(adata, indices, layer, min_gene_overlap), self.annotation
        soft = self._class_balanced(cells)
        own = soft.to_numpy(dtype=np.float64)
        known_key = self.registry["setup_args"].get("batch_key")
        key = batch_key or (known_key if known_key in cells.adata.obs else None)
        batches = batch_codes(cells, None if across_batches else key)
        if clusters is None:
            neighbors = nearest_neighbors(self._latent(cells), batches, n_neighbors)
            around = neighborhoods_of_neighbors(own, neighbors)
        else:
            around = neighborhoods_of_groups(own, cluster_codes(cells, clusters, batches))
        base = neighborhoods_of_groups(own, batches).mean
        return refine_labels(state, soft, around, base, weight)

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
        return score_labels(self.annotation, truth, self._predict(cells, batch_size))

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
        trained = None
        if adata is None and indices is None:
            cells, own = self._held_out_cells(), self._trained_cells()
            counts = count_labels(self._codes_of(own, labels_key), len(self.labels))
            trained = (*self._labeled_logits(own, labels_key, batch_size), counts)
        else:
            cells = self._select(adata, indices, layer, min_gene_overlap)
            self._refuse_trained(cells, "calibrate", "of which it is surer than of new ones")
        held_out, codes = self._labeled_logits(cells, labels_key, batch_size)
        calibration = fit_calibration(self.annotation, held_out, codes, trained, method)
        self.annotation = replace(self.annotation, calibration=calibration)

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
        for part in self._logits_of(cells, batch_size):
            probabilities = self.annotation.probabilities(part.logits)
            sets.append(self.annotation.prediction_sets(probabilities, error_rate, by_label))
            described.append(calibration.describe(part))
        if described:
            self._warn_of_shift(pd.concat(described), cells)
        return pd.DataFrame(np.concatenate(sets), index=cells.names, columns=self.labels)

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
        p_values, described = [np.zeros(0)], []
        for part in self._logits_of(cells, batch_size):
            p_values.append(calibration.novelty(part))
            described.append(calibration.describe(part))
        if described:
            self._warn_of_shift(pd.concat(described), cells)
        return np.concatenate(p_values)

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
        parts = [calibration.describe(part) for part in self._logits_of(cells, batch_size)]
        parts = parts or [calibration.describe(self.annotation.no_logits())]
        return calibration.shift(pd.concat(parts))

    def set_ontology(
        self,
        terms: Mapping[str, str] | None = None,
        ontology: CellOntology | str | Path | None = None,
        coarse_labels: Sequence[str] = (),
    ) -> pd.DataFrame:
        """Place the labels in the Cell Ontology :cite:p:`Diehl16`.

        :meth:`annotate` then tells the most specific term that the evidence suffices for, and
        :meth:`evaluate` adds scores that count a finer label as right, as scTab does.

        Parameters
        ----------
        terms
            Label -> CL id or name. Labels that it lacks are matched by id, name, synonym or usual
            name (``"NK"``, ``"CD14+ Mono"``), see :func:`~scvi_sctab.ontology.match_labels`.
        ontology
            An ontology, or the path of an ``.obo`` or ``.owl`` file; the bundled one if not given.
        coarse_labels
            Before training: labels of cells that are known less precisely than the others, such as
            "T cell" beside "CD4 T" and "CD8 T". They are learnt from as one of the labels that are
            a kind of them, and not predicted themselves. A label with cells of its own is none,
            though others may be a kind of it: CD16 monocytes are CD14 monocytes to the ontology.

        Returns
        -------
        A row per label: ``term_id``, ``term``, ``matched_by`` and ``near_misses``. Nothing is
        guessed: what did not match has an empty ``term_id``, is a kind of *cell* and nothing else,
        and is called ``"not in the Cell Ontology: <label>"`` by :meth:`annotate`.

        Raises
        ------
        ValueError
            If no label matched, ``terms`` names labels or terms that there are not (all of them
            are listed), or a coarse label has no finer one, or the model is trained.
        FileNotFoundError
            If there is no such file.

        Warns
        -----
        UserWarning
            If labels could not be placed; they are listed with near misses.

        Examples
        --------
        >>> model.set_ontology({"CD14 Mono": "CL:0001054"})  # doctest: +SKIP
        """
        if not isinstance(ontology, CellOntology):
            ontology = CellOntology.load(ontology)
        state, matches = place_labels(self.annotation, terms or {}, ontology, coarse_labels)
        if coarse_labels and self.is_trained:
            raise ValueError("coarse_labels change what is learnt: name them before training.")
        self.annotation = state
        return matches

    def trained_on(
        self, adata: AnnData | None = None, layer: str | None = None
    ) -> NDArray[np.bool_]:
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
        cells = self._select(adata, None, layer)
        return identify(cells, self.gene_names).among(record.trained)

    @property
    def calibration(self) -> Calibration | None:
        """Fit to held-out cells; ``None`` if none were held out."""
        return self.annotation.calibration

    @property
    def hierarchy(self) -> LabelHierarchy | None:
        """Labels of the model in the Cell Ontology; ``None`` before :meth:`set_ontology`."""
        return self.annotation.hierarchy

    @property
    def coarse_labels(self) -> dict[str, list[str]]:
        """Labels that stand for finer ones, and are not predicted."""
        return {label: list(finer) for label, finer in self.annotation.coarse_labels.items()}

    def _predict(self, cells: CellSelection, batch_size: int | None = None) -> NDArray[np.str_]:
        """Most probable label of each cell."""
        return predict_labels(self.annotation, self._logits_of(cells, batch_size))

    def _class_balanced(self, cells: CellSelection) -> pd.DataFrame:
        """Class-balanced probabilities of cells, without the label prior."""
        parts = (self.annotation.class_balanced(part.logits) for part in self._logits_of(cells))
        return join_probabilities(self.annotation, parts, cells.names)

    def _require_calibration(self) -> Calibration:
        self._require_trained()
        return self.annotation.calibrated()

    def _calibrate_after_training(self) -> None:
        """Calibrate if enough cells were held out whose label can be told right from wrong."""
        self.annotation = replace(self.annotation, calibration=None)
        if not self._has_held_out():
            return
        n_cells = int((self._codes_of(self._held_out_cells()) >= 0).sum())
        if n_cells < MIN_CELLS_TO_CALIBRATE:
            logger.warning(
                f"{n_cells} held-out cells are too few to calibrate on; it takes "
                f"{MIN_CELLS_TO_CALIBRATE}. "
                "`annotate()` goes without `prediction_set`, `novelty_p_value` and `novel`, and its "
                "probabilities are not calibrated. Train on more labelled cells, hold out more, "
                "`train(train_size=0.7)`, or calibrate on other labelled cells, "
                "`model.calibrate(adata)`."
            )
        else:
            self.calibrate()

    def _labeled_logits(
        self, cells: CellSelection, labels_key: str | None, batch_size: int | None
    ) -> tuple[CellEvidence, NDArray[np.int64]]:
        """Logits and codes of cells with a label that the model knows and can predict."""
        codes = self._codes_of(cells, labels_key)
        chosen = draw_cells(np.flatnonzero(codes >= 0), _MAX_CELLS)
        parts = list(self._logits_of(cells.take(chosen), batch_size))
        logits = CellEvidence.concatenate(parts) if parts else self.annotation.no_logits()
        return logits, codes[chosen]

    def _true_labels(self, cells: CellSelection, labels_key: str | None) -> NDArray[Any]:
        manager = self.adata_manager if cells.adata is self.adata else None
        return true_labels(cells, self.registry["setup_args"], labels_key, manager)

    def _codes_of(self, cells: CellSelection, labels_key: str | None = None) -> NDArray[np.int64]:
        """Codes of labels; -1 where there is none that the model knows and can predict."""
        codes = pd.Index(self.labels).get_indexer(self._true_labels(cells, labels_key))
        # Whether a label that stands for others is right cannot be told.
        return np.where((codes >= 0) & self.annotation.predictable[codes], codes, -1)

    def _has_label(self, truth: NDArray[Any]) -> NDArray[np.bool_]:
        """Mark cells with a label; words for none count as none unless they were learnt."""
        none = {str(self.registry["setup_args"]["unlabeled_category"])}
        none |= {label for label in set(truth) - set(self.labels) if reads_as_none(label)}
        return ~np.isin(truth, list(none))

    def _held_out_cells(self) -> CellSelection:
        """Find the cells of the model's AnnData that were held out; stop if there are none."""
        everyone, places = self._select(None), self.validation_indices
        return find_held_out(everyone, self.training_record, places, self.gene_names)

    def _trained_cells(self) -> CellSelection:
        """Find the cells of the model's AnnData that were trained on."""
        everyone, record = self._select(None), self.training_record
        wanted = CellIdentities.none() if record is None else record.trained
        return find_cells(everyone, wanted, self.train_indices, self.gene_names)

    def _has_held_out(self) -> bool:
        record = self.training_record
        return record is not None and len(record.held_out) > 0

    def _n_trained_on(self, cells: CellSelection) -> int:
        record = self.training_record
        if record is None:
            return 0
        return int(identify(cells, self.gene_names).among(record.trained).sum())

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

    def _warn_of_shift(self, described: pd.DataFrame, cells: CellSelection) -> None:
        found = find_shift(self.annotation.calibrated(), described)
        if found:
            message = shift_message(found, len(cells), self._n_trained_on(cells))
            warnings.warn(message, UserWarning, stacklevel=3)
