"""Verbs that annotate cells, for one network or for several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scvi_sctab._constants import (
    ERROR_RATE,
    FALSE_ALARM_RATE,
    FALSE_DISCOVERY_RATE,
    MIN_GENE_OVERLAP,
    TERM_LEVEL,
)
from scvi_sctab._logging import logger
from scvi_sctab._messages import list_near_names, warn
from scvi_sctab.annotation import (
    MIN_CELLS_TO_CALIBRATE,
    VOTE_WEIGHT,
    Rates,
    annotate_cells,
    check_entries,
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
from scvi_sctab.base import document_cells, draw_cells, spread_cells
from scvi_sctab.data import (
    CellIdentities,
    find_cells,
    find_held_out,
    identify,
    reads_as_none,
    true_labels,
)
from scvi_sctab.metrics import CellLogits, check_method
from scvi_sctab.model._classifier import CellClassifier
from scvi_sctab.model._groups import batch_codes, cluster_codes, write_columns
from scvi_sctab.model._novel_populations import (
    POPULATION_COLUMNS,
    find_populations,
    profile_labels,
    require_profiles,
)
from scvi_sctab.model._records import saved_annotation
from scvi_sctab.ontology import CellOntology, LabelHierarchy

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from scvi_sctab.annotation import AnnotationState, Profiles
    from scvi_sctab.data import CellSelection
    from scvi_sctab.metrics import Calibration, ScalingMethod

# Cells whose logits are held in memory.
_MAX_CELLS = 20_000
# Cells of each label whose expression is averaged.
_MAX_CELLS_PER_PROFILE = 200


class CellAnnotator(CellClassifier):
    """Labels, probabilities and statements about cells.

    Nothing is written into the AnnData but by ``annotate(key_added=...)``.
    """

    # Names under which files hold parts of the state.
    calibration_ = saved_annotation("calibration")
    hierarchy_ = saved_annotation("hierarchy")
    profiles_ = saved_annotation("profiles")

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
            any order. The reference if not given. For cells whose batch is missing or unknown to
            the model, the encoder is not conditioned on the batch.
        indices
            Positions of cells, in this order, or a mask; all if not given.
        soft
            Whether to return probabilities, calibrated if there were held-out cells.
        batch_size
            Cells per minibatch; memory grows with it.
        layer
            Layer with raw counts, if not the one that the model was set up with; ``"X"`` is
            ``adata.X``.
        min_gene_overlap
            Gene overlap below which ``adata`` is refused; missing genes count as 0.

        Returns
        -------
        Labels ``(n_cells,)``; or, if ``soft``, a data frame ``(n_cells, n_labels)`` of
        probabilities, rows named by cell and columns by label.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If counts are not raw, or the gene overlap is too small.
        """
        self._require_trained()
        cells = self._select(adata, indices, layer, min_gene_overlap)
        if not soft:
            return self._predict(cells, batch_size)
        state = self.annotation
        parts = (state.probabilities(part.logits) for part in self._logits_of(cells, batch_size))
        return join_probabilities(state, parts, cells.names)

    @document_cells
    def annotate(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        error_rate: float = ERROR_RATE,
        false_alarm_rate: float = FALSE_ALARM_RATE,
        term_level: float = TERM_LEVEL,
        unassigned: str | None = None,
        novel_populations: bool = False,
        key_added: str | None = None,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Annotate cells: label, probability, prediction set, novelty and Cell Ontology term.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`predict`.
        error_rate
            Share of cells whose ``prediction_set`` may miss the true label.
        false_alarm_rate
            Share of cells of known labels that may be called ``novel``.
        term_level
            Smallest probability of ``term``.
        unassigned
            Label of cells that are ``novel`` or have an empty prediction set, e.g.
            ``"unassigned"``; the most probable label is then in ``closest_label``. If not given,
            ``label`` is always the most probable one.
        novel_populations
            Whether to look for populations of no known label, too, which takes longer; see
            :meth:`get_novel_populations`, also for clusters of your own.
        key_added
            Prefix of the columns, e.g. ``"sctab"`` for ``sctab_label``. If given, they are also
            written to ``adata.obs``, and replace those of an earlier call.

        Returns
        -------
        A row per cell, to join to ``adata.obs`` (or see ``key_added``):

        - ``label``: the most probable cell type, categorical over all labels.
        - ``probability``: its probability.
        - ``uncertainty``: entropy of the probabilities, divided by that of equal probabilities, in
          [0, 1].
        - ``runner_up``: the second most probable cell type.

        If the model is calibrated, as it is after training with held-out cells:

        - ``prediction_set``: labels that cannot be ruled out, ``"B | NK"``, the most probable
          first; ``"no label"`` if none is probable enough. It also depends on the other cells, see
          :meth:`get_prediction_sets`.
        - ``novelty_p_value``: see :meth:`get_novelty`; ``novel``: whether it is at most
          ``false_alarm_rate``.
        - ``status``: which labels to use. ``"low_quality"`` below 50 molecules of the model's
          genes, else ``"novel"`` if ``novel``, else ``"ambiguous"`` unless ``prediction_set`` has
          exactly one label, else ``"confident"``.

        With ``novel_populations``:

        - ``population``: cluster of the cell; missing in clusters of fewer than 20 cells.
        - ``novel_population``: whether the cluster stands out from all labels.
        - ``novelty_score``: ``-log(novelty_p_value)`` plus the score of the cluster, to rank cells
          by: a cell in a cluster that stands out is more likely of an unknown type.

        If the labels were matched with the Cell Ontology by :meth:`set_ontology`:

        - ``term``, ``term_id``: the most specific term with a probability of at least
          ``term_level``, such as *T cell* for a cell that may be one of its kinds;
          ``term_probability``: its probability. A cell whose label has no term gets the term
          ``"not in the Cell Ontology: <label>"``, with the id of *cell*, ``CL:0000000``, and the
          probability 1.
        - ``set_term``: the most specific term that includes the prediction set; for a single label
          without a term as in ``term``.

        A query model with the policy ``"batch"`` adds ``reference_label`` and
        ``reference_probability``, by the reference logits, without the query adapter. Adaptation
        increases the probabilities of all cells, so that a cell type that the reference lacks is
        seen best in the latter.

        Raises
        ------
        RuntimeError
            If the model is not trained, or as in :meth:`get_novel_populations`.
        ValueError
            If cells share names, a rate is not between 0 and 1, ``unassigned`` is a label of the
            model or the model is not calibrated, or as in :meth:`predict`.

        Warns
        -----
        UserWarning
            If there is a shift between the cells and those that the model was calibrated on, so
            that the rates may not hold.
        """
        self._require_trained()
        rates = self._check_statements(error_rate, false_alarm_rate, term_level, unassigned)
        if novel_populations:
            require_profiles(self)
        cells = self._select(adata, indices, layer, min_gene_overlap)
        self._check_names(cells)
        state, logits = self._look_at(cells, batch_size)
        # Populations are of all cells at once.
        joined = state.join_logits(logits) if novel_populations else None
        parts = logits if joined is None else [joined]
        frame, statistics = annotate_cells(state, parts, cells.names, rates, self._is_adapted)
        if statistics is not None:
            self._warn_of_shift(statistics, cells)
        if joined is not None:
            populations = find_populations(self, cells, state, joined)
            frame = frame.join(populations.of_cells(cells.names))
        if unassigned is not None:
            frame = unassign(frame, unassigned)
        if key_added is not None:
            frame = frame.add_prefix(f"{key_added}_")
            optional = [f"{key_added}_{name}" for name in POPULATION_COLUMNS]
            write_columns(frame, self.adata if adata is None else adata, optional)
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
        r"""Predict cell types by a vote within clusters or neighbourhoods.

        The probabilities of each cell are multiplied by :math:`(m / b)^w`, where :math:`m` is the
        mean over the other cells of its cluster or neighbourhood, and :math:`b` that over all
        cells. Labels with a high probability hardly ever change, and frequent types have no
        advantage: rare types are kept, which a majority vote :cite:p:`DominguezConde22` removes.

        Parameters
        ----------
        adata
            As in :meth:`~scvi_sctab.SCTAB.predict`.
        clusters
            Column of ``adata.obs``, or a cluster per cell of ``adata``; a series is aligned by the
            names of cells. If not given, each cell votes with its nearest neighbours in
            :meth:`~scvi_sctab.SCTAB.get_latent_representation`.
        batch_key
            Column of ``adata.obs``; only cells of the same batch vote together. The one of
            :meth:`~scvi_sctab.SCTAB.setup_anndata` if not given and ``adata`` has it.
        across_batches
            Whether cells of different batches vote together.
        indices
            Cells to refine, which vote among themselves; all if not given.
        n_neighbors
            Number of cells that vote together without ``clusters``, the cell itself included.
        weight
            :math:`w`; with 0 labels do not change.
        layer, min_gene_overlap
            As in :meth:`~scvi_sctab.SCTAB.predict`.

        Returns
        -------
        A row per cell:

        - ``label``: the refined label, categorical over all labels.
        - ``probability``: its refined probability.
        - ``raw_label``: the label before the vote.
        - ``changed``: whether the two differ.
        - ``cluster_frequency``: share of the cluster or neighbourhood whose label before the vote
          is the refined one.
        - ``cluster_entropy``: entropy of the mean probabilities of the cluster or neighbourhood,
          in [0, 1].

        Raises
        ------
        KeyError
            If there is no such column.
        ValueError
            If ``clusters`` do not match the cells, ``n_neighbors`` or ``weight`` are out of range,
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
            Labelled cells that were not trained on; if not given, the reference, and without
            ``indices`` its held-out cells. Unlabelled cells are left out.
        labels_key
            Column with the true labels; the one of :meth:`setup_anndata` if not given.
        indices, batch_size, layer, min_gene_overlap
            As in :meth:`predict`.

        Returns
        -------
        Precision, recall, F1 and number of cells: a row per true label, then ``macro average``,
        ``weighted average`` and ``accuracy``. After :meth:`set_ontology` also
        ``macro average, ontology-corrected`` and ``accuracy, ontology-corrected``, which count a
        label that is finer than the true one as right, as scTab does, if the ontology has all true
        labels. For a coarse label, the labels that it stands for always count as right.

        Raises
        ------
        KeyError
            If there is no such column.
        ValueError
            If no cell has a label, cells of ``adata`` were trained on, labels have changed since
            set-up, or as in :meth:`predict`.

        Warns
        -----
        UserWarning
            If there are true labels that the model does not know, or cells of ``indices`` were
            trained on.
        """
        self._require_trained()
        is_unseen = adata is None and indices is None
        cells = (
            self._unseen_cells()
            if is_unseen
            else self._select(adata, indices, layer, min_gene_overlap)
        )
        truth = self._true_labels(cells, labels_key)
        labeled = self._has_label(truth)
        if not labeled.any():
            raise ValueError("There is no labelled cell to evaluate on.")
        cells, truth = cells.take(labeled), truth[labeled]
        if indices is not None:
            self._warn_of_trained(cells)
        elif not is_unseen:
            self._refuse_trained(cells, "evaluate", "on which scores are too high")
        self._warn_of_unknown_labels(truth)
        return score_labels(self.annotation, truth, self._predict(cells, batch_size))

    @document_cells
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
        """Calibrate on labelled cells that were not trained on; training includes this step.

        The temperature is fitted :cite:p:`Guo17` and increased by its standard error, which is
        large for few cells. The power of the label prior, which class balancing removes
        :cite:p:`Menon21`, is fitted, too. Predicted labels do not change. Prediction sets, novelty
        and the test of shift use the same cells.

        Parameters
        ----------
        adata
            Labelled cells that the model was not trained on, exchangeable with those that it will
            annotate; the reference if not given.
        labels_key
            Column with their labels; the one of :meth:`setup_anndata` if not given. Cells with
            labels that the model does not know are left out.
        indices
            Cells, none of which was trained on. If not given, all of ``adata``, or the held-out
            cells of the reference, found by name and counts.
        method
            ``"prior"``, as above, with the frequencies of labels in training, or among these
            cells; ``"temperature"``, without the label prior; ``"vector"`` fits a bias per label,
            which favours labels that are frequent among these cells. If not given, ``"prior"`` if
            frequencies are known, i.e. if the cells have every label and none is coarse.
        batch_size, layer, min_gene_overlap
            As in :meth:`predict`.

        Raises
        ------
        KeyError
            If there is no such column.
        RuntimeError
            If the model is not trained.
        ValueError
            If cells were trained on, fewer than 50 have a label that the model knows, there are no
            held-out cells and none are given, or there is no such method.

        Warns
        -----
        UserWarning
            If label centres are missing for some labels, so that their cells will look novel.
        """
        self._require_trained()
        if method is not None:
            check_method(method)
        trained = None
        if adata is None and indices is None:
            cells = self._unseen_cells()
            trained = self._trained_logits(labels_key, batch_size)
        else:
            cells = self._select(adata, indices, layer, min_gene_overlap)
            self._refuse_trained(cells, "calibrate", "whose probabilities are too high")
        held_out, codes = self._labeled_logits(cells, labels_key, batch_size)
        calibration = fit_calibration(self.annotation, held_out, codes, trained, method)
        self.annotation = replace(self.annotation, calibration=calibration)
        if trained is not None and self.annotation.profiles is None:
            self.annotation = replace(self.annotation, profiles=self._profiles(labels_key))

    @document_cells
    def get_prediction_sets(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        error_rate: float = ERROR_RATE,
        by_label: bool = False,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """List the labels that cannot be ruled out, by split conformal prediction.

        Sets miss the true label of a share ``error_rate`` of cells that are exchangeable with the
        held-out cells :cite:p:`Angelopoulos23`. Cells of another study are not exchangeable, see
        :meth:`get_shift`, nor are those of a sample with other label frequencies, for which rates
        within labels hold. The sets are the smallest such sets on average :cite:p:`Sadinle19`; a
        set is empty if no label is probable enough.

        For 50 or more cells that are less certain on the mean than the held-out ones, as those of
        another laboratory are, the sets are wider and aim at the rate :cite:p:`Kasa25`. A set then
        depends on the cells that are asked about together.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`predict`.
        error_rate
            In (0, 1).
        by_label
            Whether the rate holds within each label, for which sets are larger; labels with too
            few held-out cells are in every set.

        Returns
        -------
        Data frame ``(n_cells, n_labels)`` of booleans, rows named by cell and columns by label.

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
        state, logits = self._look_at(cells, batch_size)
        for part in logits:
            probabilities = state.probabilities(part.logits)
            sets.append(state.prediction_sets(probabilities, error_rate, by_label))
            described.append(calibration.describe(part))
        if described:
            self._warn_of_shift(pd.concat(described), cells)
        return pd.DataFrame(np.concatenate(sets), index=cells.names, columns=self.labels)

    @document_cells
    def get_novelty(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> NDArray[np.float64]:
        """Compute novelty p-values, a test against types that the model does not know.

        The score is the Mahalanobis distance of a cell's logits to the centre of the nearest label
        :cite:p:`Lee18`, compared with held-out cells :cite:p:`Bates23`. With ``p <= 0.05`` called
        novel, the false-alarm rate is 5 % for cells that are exchangeable with the held-out cells.

        All cells of another laboratory are farther from the labels. For 50 or more cells, distances
        are divided by the ratio of their lower quartile to that of the held-out cells, if it is
        between 1 and 2, so that the rate aims at 5 % there, too. A p-value then depends on the cells
        that are asked about together: pass whole samples, since among cells of new types only,
        these are the typical ones. Above 2 they are of another tissue, and most are novel.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`predict`.

        Returns
        -------
        p-values ``(n_cells,)``; small for novel cells. NaN if the predicted label was added by a
        query, after calibration.

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
        state, logits = self._look_at(cells, batch_size)
        for part in logits:
            p_values.append(state.calibrated().novelty(part))
            described.append(calibration.describe(part))
        if described:
            self._warn_of_shift(pd.concat(described), cells)
        return np.concatenate(p_values)

    @document_cells
    def get_novel_populations(
        self,
        adata: AnnData | None = None,
        groupby: str | Sequence[object] | None = None,
        indices: Sequence[int] | None = None,
        *,
        false_discovery_rate: float = FALSE_DISCOVERY_RATE,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Find populations of cells that are of no label of the model.

        A cell of an unknown type may look like one of a known type; a population of them shows by
        the genes that the type lacks. Two signs are joined: the cells are far from all labels, and
        genes are on that are not in the nearest label. Both are compared with the other
        populations of these cells, since another laboratory shifts all of them. So pass a whole
        sample, most of which is of known types.

        Parameters
        ----------
        adata
            As in :meth:`predict`.
        groupby
            Column of ``adata.obs``, or a population per cell of ``adata``; a series is aligned by
            the names of cells. If not given, cells are clustered :cite:p:`Blondel08` by principal
            components and :meth:`get_latent_representation`, for which all counts are read into
            memory.
        indices
            As in :meth:`predict`.
        false_discovery_rate
            Share of the populations called ``novel`` that may be of known types.
        layer, min_gene_overlap
            As in :meth:`predict`.

        Returns
        -------
        A row per population of 20 or more cells, the largest first:

        - ``nearest_label``: label with the highest mean probability.
        - ``n_cells``, ``n_molecules``: size, and median number of molecules of the model's genes.
        - ``novelty``: mean of ``-log(p)`` over the p-values of :meth:`get_novelty`; 1 for cells
          like the held-out ones.
        - ``excess``: mean of the 30 genes that are highest above the nearest label, in standard
          deviations between cells, without the shift that all populations share.
        - ``score``: both above the median population, in standard deviations between populations
          of known types. ``p_value``; ``q_value`` of Benjamini and Hochberg
          :cite:p:`Benjamini95`. Missing for fewer than five populations.
        - ``markers``: the ten genes that are highest above the nearest label.
        - ``possible_cause``: ``"doublets of A and B"`` or ``"low quality"``, which also stand out.
        - ``novel``: whether ``q_value`` is at most ``false_discovery_rate``.

        A population nearest to a label that a query added is not tested.

        Raises
        ------
        KeyError
            If there is no such column.
        RuntimeError
            If the model is not trained, not calibrated, or does not hold the expression of its
            labels.
        ValueError
            If the rate is not in (0, 1), ``groupby`` does not match the cells, or as in
            :meth:`predict`.

        Warns
        -----
        UserWarning
            If there are fewer than five populations.
        """
        require_profiles(self)
        if not 0 < false_discovery_rate < 1:
            raise ValueError(f"{false_discovery_rate=} is not between 0 and 1.")
        cells = self._select(adata, indices, layer, min_gene_overlap)
        state, parts = self._look_at(cells)
        looked_at = state, state.join_logits(parts)
        return find_populations(self, cells, *looked_at, groupby, false_discovery_rate).table

    @document_cells
    def get_shift(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Test for a shift between cells and those that the model was calibrated on.

        Stated error rates hold without a shift. Label frequencies are not compared: if they
        differ, rates within labels hold.

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
        """Match the labels with terms of the Cell Ontology :cite:p:`Diehl16`.

        :meth:`annotate` then returns the most specific term with enough probability, and
        :meth:`evaluate` adds scores that count a finer label as right, as scTab does.

        Parameters
        ----------
        terms
            CL id or name of the term of a label. Other labels are matched by id, name, synonym or
            usual name (``"NK"``, ``"CD14+ Mono"``), see
            :func:`~scvi_sctab.ontology.match_labels`.
        ontology
            An ontology, or the path of an ``.obo`` or ``.owl`` file; the bundled one if not given.
        coarse_labels
            Coarse labels, to be given before training: labels of cells that are known less
            precisely, such as "T cell" beside "CD4 T" and "CD8 T". Their cells are learnt from as
            one of the labels that are a kind of them, and they are not predicted. A label is not
            coarse just because another one is a kind of it: in the ontology, CD16 monocytes are
            CD14 monocytes.

        Returns
        -------
        A row per label: ``term_id``, ``term``, ``matched_by`` and ``near_misses``. Matches are
        exact: a label without a match has an empty ``term_id``, counts as a kind of *cell* only,
        and has the term ``"not in the Cell Ontology: <label>"`` in :meth:`annotate`.

        Raises
        ------
        ValueError
            If no label matched, ``terms`` has labels or terms that do not exist (all of them are
            listed), a coarse label has no finer one, or the model is trained.
        FileNotFoundError
            If there is no such file.

        Warns
        -----
        UserWarning
            If labels could not be matched; they are listed with near misses.

        Examples
        --------
        >>> model.set_ontology({"CD14 Mono": "CL:0001054"})  # doctest: +SKIP
        """
        if not isinstance(ontology, CellOntology):
            ontology = CellOntology.load(ontology)
        check_entries(self.labels, terms or {}, coarse_labels, ontology)
        if coarse_labels and self.is_trained:
            raise ValueError("coarse_labels change what is learnt: name them before training.")
        state, matches = place_labels(self.annotation, terms or {}, ontology, coarse_labels)
        self.annotation = state
        return matches

    def trained_on(
        self, adata: AnnData | None = None, layer: str | None = None
    ) -> NDArray[np.bool_]:
        """Mark the cells whose labels the model was trained on, by name and counts.

        Scores on such cells are too high, and the model cannot be calibrated on them.

        Parameters
        ----------
        adata
            Cells in any order, with genes in any order; the cells that the model was set up with
            if not given.
        layer
            As in :meth:`predict`.

        Returns
        -------
        Mask ``(n_cells,)``. A cell with at least 20 expressed genes is also recognised under
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
        """Calibration on held-out cells, if any."""
        return self.annotation.calibration

    @property
    def hierarchy(self) -> LabelHierarchy | None:
        """Terms of the labels in the Cell Ontology; ``None`` before :meth:`set_ontology`."""
        return self.annotation.hierarchy

    @property
    def coarse_labels(self) -> dict[str, list[str]]:
        """Coarse labels, with the labels that they stand for."""
        return {label: list(finer) for label, finer in self.annotation.coarse_labels.items()}

    def _check_statements(
        self,
        error_rate: float = ERROR_RATE,
        false_alarm_rate: float = FALSE_ALARM_RATE,
        term_level: float = TERM_LEVEL,
        unassigned: str | None = None,
    ) -> Rates:
        """Check arguments of :meth:`annotate` that do not depend on the cells."""
        rates = Rates(error_rate, false_alarm_rate, term_level)
        if unassigned is not None:
            self.annotation.calibrated()
            if unassigned in self.labels:
                raise ValueError(f"{unassigned=} is a label of the model; choose another word.")
        return rates

    def _check_names(self, cells: CellSelection) -> None:
        """Refuse cells that share names."""
        if not cells.adata.obs_names.is_unique:
            raise ValueError(
                "Cells share names, so that rows could not be distinguished: "
                "`adata.obs_names_make_unique()`."
            )

    def _predict(self, cells: CellSelection, batch_size: int | None = None) -> NDArray[np.str_]:
        """Return the most probable label of each cell."""
        return predict_labels(self.annotation, self._logits_of(cells, batch_size))

    def _look_at(
        self, cells: CellSelection, batch_size: int | None = None
    ) -> tuple[AnnotationState, Iterable[CellLogits]]:
        """Return the state for these cells as a query, and their logits, a batch at a time."""
        if len(cells) <= _MAX_CELLS:
            # Read once: these logits fit into memory.
            sample = list(self._logits_of(cells, batch_size))
            logits: Iterable[CellLogits] = sample
        else:
            sample = list(self._logits_of(cells.take(spread_cells(len(cells))), batch_size))
            logits = self._logits_of(cells, batch_size)
        return self.annotation.for_query(self.annotation.join_logits(sample)), logits

    def _class_balanced(self, cells: CellSelection) -> pd.DataFrame:
        """Compute class-balanced probabilities of cells, without the label prior."""
        parts = (self.annotation.class_balanced(part.logits) for part in self._logits_of(cells))
        return join_probabilities(self.annotation, parts, cells.names)

    def _require_calibration(self) -> Calibration:
        self._require_trained()
        return self.annotation.calibrated()

    def _calibrate_after_training(self) -> None:
        """Calibrate if there are enough held-out cells with predictable labels."""
        self.annotation = replace(self.annotation, calibration=None, profiles=self._profiles())
        if not self._has_unseen():
            return
        n_cells = int((self._codes_of(self._unseen_cells()) >= 0).sum())
        if n_cells < MIN_CELLS_TO_CALIBRATE:
            more = " hold out more, `train(train_size=0.7)`," * self._has_held_out()
            logger.warning(
                f"{n_cells} cells that the model has not seen are too few to calibrate on; it takes "
                f"{MIN_CELLS_TO_CALIBRATE}. "
                "`annotate()` goes without `prediction_set`, `novelty_p_value` and `novel`, and its "
                f"probabilities are not calibrated. Train on more labelled cells,{more} or calibrate "
                "on other labelled cells, `model.calibrate(adata)`."
            )
        else:
            self.calibrate()

    def _has_unseen(self) -> bool:
        """Whether there are cells of which the model states what it does of cells it has not seen."""
        return self._has_held_out()

    def _unseen_cells(self) -> CellSelection:
        """Find these cells in the model's AnnData; raise an error if there are none."""
        return self._held_out_cells()

    def _labeled_logits(
        self, cells: CellSelection, labels_key: str | None, batch_size: int | None
    ) -> tuple[CellLogits, NDArray[np.int64]]:
        """Return logits and codes of the cells with predictable labels."""
        codes = self._codes_of(cells, labels_key)
        chosen = draw_cells(np.flatnonzero(codes >= 0), _MAX_CELLS)
        parts = self._logits_of(cells.take(chosen), batch_size)
        return self.annotation.join_logits(parts), codes[chosen]

    def _trained_logits(
        self, labels_key: str | None = None, batch_size: int | None = None
    ) -> tuple[CellLogits, NDArray[np.int64], NDArray[np.int64]]:
        """Return logits and codes of training cells, and the number of cells per label."""
        own = self._trained_cells()
        counts = count_labels(self._codes_of(own, labels_key), len(self.labels))
        return (*self._labeled_logits(own, labels_key, batch_size), counts)

    def _profiles(self, labels_key: str | None = None) -> Profiles:
        """Measure the expression of the labels in cells that were trained on."""
        own = self._trained_cells()
        codes = self._codes_of(own, labels_key)
        of_labels = (np.flatnonzero(codes == code) for code in range(len(self.labels)))
        drawn = [draw_cells(cells, _MAX_CELLS_PER_PROFILE) for cells in of_labels]
        chosen = np.sort(np.concatenate(drawn))
        return profile_labels(self, own.take(chosen), codes[chosen])

    def _true_labels(self, cells: CellSelection, labels_key: str | None) -> NDArray[Any]:
        manager = self.adata_manager if cells.adata is self.adata else None
        return true_labels(cells, self.registry["setup_args"], labels_key, manager)

    def _codes_of(self, cells: CellSelection, labels_key: str | None = None) -> NDArray[np.int64]:
        """Return codes of labels; -1 for labels that are not predictable."""
        codes = pd.Index(self.labels).get_indexer(self._true_labels(cells, labels_key))
        # A coarse label is never predicted, so that there is no true label to calibrate on.
        return np.where((codes >= 0) & self.annotation.predictable[codes], codes, -1)

    def _has_label(self, truth: NDArray[Any]) -> NDArray[np.bool_]:
        """Mark labelled cells; labels that read as missing count as missing unless learnt."""
        none = {str(self.registry["setup_args"]["unlabeled_category"])}
        none |= {label for label in set(truth) - set(self.labels) if reads_as_none(label)}
        return ~np.isin(truth, list(none))

    def _held_out_cells(self) -> CellSelection:
        """Find the held-out cells of the model's AnnData; raise an error if there are none."""
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
        """Refuse cells that the model was trained on."""
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
            warn(
                f"The model was trained on {n_trained:,} of these {len(cells):,} cells: the scores "
                "say how well it has learnt them, not how well it does on others."
            )

    def _warn_of_unknown_labels(self, truth: NDArray[Any]) -> None:
        unknown = sorted(set(truth) - set(self.labels))
        if unknown:
            n_cells = int(np.isin(truth, unknown).sum())
            warn(
                f"The model does not know {len(unknown):,} labels of the truth: "
                f"{list_near_names(unknown, self.labels)}. Their {n_cells:,} cells of "
                f"{len(truth):,} count as wrong; where names alone differ, rename them."
            )

    def _warn_of_shift(self, described: pd.DataFrame, cells: CellSelection) -> None:
        found = find_shift(self.annotation.calibrated(), described)
        if found:
            message = shift_message(found, len(cells), self._n_trained_on(cells))
            warn(message)
