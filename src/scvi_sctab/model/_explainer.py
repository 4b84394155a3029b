"""Verbs that explain labels, for one network or for several."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scvi_sctab._constants import ERROR_RATE, FALSE_ALARM_RATE, MIN_GENE_OVERLAP, TERM_LEVEL
from scvi_sctab.annotation import check_label
from scvi_sctab.base import document_cells, seed
from scvi_sctab.explanation import (
    AttributionMethod,
    as_scores,
    attend_to_genes,
    attribute,
    check_attribution,
    delete_genes,
    group_means,
    marker_table,
    refuse_latent,
)
from scvi_sctab.model._annotator import CellAnnotator
from scvi_sctab.model._groups import column_of
from scvi_sctab.model._notebook import describe_model

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy import sparse

    from scvi_sctab.annotation import LabelAudit
    from scvi_sctab.report import Report, TrainingReport


class CellExplainer(CellAnnotator):
    """Attention, marker genes and attributions, averaged over the networks of a model."""

    @document_cells
    def get_attention(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> sparse.csr_matrix:
        """Return the attention of each cell to each gene, the masks of TabNet.

        High attention to a gene does not mean that it determines the label: house-keeping genes
        often have it, and the linear path of the small preset has no attention.
        :meth:`get_markers` uses contributions.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`~scvi_sctab.SCTAB.predict`.

        Returns
        -------
        ``(n_cells, n_genes)``, genes in the order of ``model.gene_names``; rows sum to one.

        Raises
        ------
        ValueError
            If the encoder has no attention, or as in :meth:`~scvi_sctab.SCTAB.predict`.
        """
        self._require_trained()
        cells = self._select(adata, indices, layer, min_gene_overlap)
        return attend_to_genes(self.networks, self._read(cells), batch_size)

    @document_cells
    def get_markers(
        self,
        adata: AnnData | None = None,
        groupby: str | None = None,
        n_genes: int = 20,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Rank genes with large contributions and specific expression for each group.

        A gene's score is its mean contribution over the cells of the group times the cube of its
        specificity, see :func:`~scvi_sctab.metrics.score_markers`. With a linear path the
        contribution is ``(weight of the predicted label - mean weight over labels) * expression``;
        without one it is
        ``gradient of (logit of the predicted label - mean logit) * expression``. Specificity is
        the share of the expression that exceeds that of other groups, both of the three with the
        most similar expression and of all, minus a standard error, so that chance expression in a
        few cells does not count. Genes with a score of 0 are not specific; they are ranked by
        contribution. ``sort_values(["group", "contribution"], ascending=[True, False])`` ranks all
        genes by contribution.
        NOTE[DIFF] scTab ranks by ``attention * expression``, which finds hardly any textbook
        marker (benchmarks/studies/explanations.md).

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`~scvi_sctab.SCTAB.predict`.
        groupby
            Column of ``adata.obs`` with groups; predicted labels if not given.
        n_genes
            Number of genes per group.

        Returns
        -------
        A row per group and gene, best first: ``group``, ``gene``, ``score``, ``contribution``
        (mean), ``specificity`` (0 to 1), ``attention`` (mean; missing without TabNet),
        ``expression`` (mean, log-normalised), ``expression_nearby`` (mean over the nearest
        groups), ``expression_elsewhere`` (mean over all other groups) and ``nearest`` (names of the
        nearest groups). With only one group the score is the contribution, and values on other
        groups are missing.

        Raises
        ------
        KeyError
            If there is no such column.
        ValueError
            If ``n_genes`` is less than 1, the model reads a latent space, or as in
            :meth:`~scvi_sctab.SCTAB.predict`.

        Warns
        -----
        UserWarning
            If there is only one group.
        """
        self._require_trained()
        refuse_latent(self.networks)
        if n_genes < 1:
            raise ValueError(f"{n_genes=}: ask for at least one gene per group.")
        cells = self._select(adata, indices, layer, min_gene_overlap)
        labels = self._predict(cells, batch_size)
        groups = labels if groupby is None else column_of(cells, groupby, "groupby")
        groups = pd.Categorical(groups)
        means = group_means(
            self.networks,
            self.annotation.predictable,
            self._read(cells),
            pd.Index(self.labels).get_indexer(labels),
            groups,
            batch_size,
        )
        return marker_table(groups, self.gene_names, means, n_genes)

    @document_cells
    def report(
        self,
        adata: AnnData | None = None,
        path: str | os.PathLike[str] | None = None,
        *,
        name: str = "query",
        basis: str | None = None,
        compare: Sequence[str] | None = None,
        populations: pd.DataFrame | None = None,
        card: Mapping[str, Any] | None = None,
        error_rate: float = ERROR_RATE,
        false_alarm_rate: float = FALSE_ALARM_RATE,
        term_level: float = TERM_LEVEL,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
        overwrite: bool = False,
    ) -> Report:
        """Annotate cells and write a page about them, which opens in a browser without a network.

        Parameters
        ----------
        adata, layer, min_gene_overlap
            As in :meth:`predict`.
        path
            File of the page, ``"report.html"``; its numbers are written beside it,
            ``"report.json"``. Nothing is written if not given.
        name
            Name of the cells, the title of the page.
        basis
            Key of ``adata.obsm`` with the coordinates of the map, such as ``"X_umap"``. If not
            given, a layout of the latent space by t-SNE, which takes seconds.
        compare
            Columns of ``adata.obs`` with clusters or other labels to compare with; found by their
            names if not given.
        populations
            Result of :meth:`get_novel_populations`, such as for clusters of your own. If not given,
            it is made for 100 to 50,000 cells, if the model can.
        card
            Card of the model, for its name, licences and citations, such as
            ``scvi_sctab.models.show("pbmc")``.
        error_rate, false_alarm_rate, term_level
            Rates and level of :meth:`annotate`.
        overwrite
            Whether files of these names are replaced.

        Returns
        -------
        The numbers of the page; ``report.to_dict()`` is what the file beside it holds.

        Raises
        ------
        FileExistsError
            If a file exists without ``overwrite``.
        KeyError
            If there is no such key or column.
        RuntimeError
            If the model is not trained.
        ValueError
            If there is no cell, the name of the page does not end in ``.html``, or as in
            :meth:`annotate`.

        Warns
        -----
        UserWarning
            As in :meth:`annotate`, but not of a shift, which the page states.

        Examples
        --------
        >>> model.report(query, "report.html", compare=["leiden"])  # doctest: +SKIP
        """
        # Late, since it imports matplotlib for its colours.
        from scvi_sctab.model._report import report_query

        return report_query(
            self,
            adata,
            path,
            error_rate=error_rate,
            false_alarm_rate=false_alarm_rate,
            term_level=term_level,
            name=name,
            basis=basis,
            compare=compare,
            populations=populations,
            card=card,
            layer=layer,
            min_gene_overlap=min_gene_overlap,
            overwrite=overwrite,
        )

    def training_report(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        name: str = "reference",
        audit: LabelAudit | None = None,
        card: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> TrainingReport:
        """Write a page about the training: curves, held-out cells, hard labels, odd donors, audit.

        Parameters
        ----------
        path
            File of the page, ``"training.html"``; its numbers are written beside it,
            ``"training.json"``. Nothing is written if not given.
        name
            Name of the reference, the title of the page.
        audit
            Result of :meth:`~scvi_sctab.SCTAB.audit_labels`; donors and batches are then compared
            by all cells. Without it by the held-out ones.
        card
            As in :meth:`report`.
        overwrite
            Whether files of these names are replaced.

        Returns
        -------
        The numbers of the page; ``report.to_dict()`` is what the file beside it holds.

        Raises
        ------
        FileExistsError
            If a file exists without ``overwrite``.
        RuntimeError
            If the model is not trained.
        TypeError
            If ``audit`` is no audit.
        ValueError
            If the cells of the model are not here, ``audit`` is of other cells or labels, or the
            name of the page does not end in ``.html``.

        Examples
        --------
        >>> audit = model.audit_labels()  # doctest: +SKIP
        >>> model.training_report("training.html", audit=audit)  # doctest: +SKIP
        """
        # Late, since it imports matplotlib for its colours.
        from scvi_sctab.model._training_report import report_training

        return report_training(self, path, name=name, audit=audit, card=card, overwrite=overwrite)

    @document_cells
    def get_attributions(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        label: str | None = None,
        method: AttributionMethod = "integrated_gradients",
        n_steps: int = 50,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> sparse.csr_matrix:
        r"""Attribute the logit of a label to the genes of each cell.

        The attributed value is :math:`\ell_k - \frac1K \sum_j \ell_j`, the logit of the label
        minus the mean over labels, since a constant in all logits has no effect. The baseline is
        no expression, so that a gene that a cell does not express gets 0. Integrated gradients
        :cite:p:`Sundararajan17` sum to the difference of that value between cell and baseline.

        Parameters
        ----------
        adata, indices, layer, min_gene_overlap
            As in :meth:`~scvi_sctab.SCTAB.predict`.
        label
            Label to explain; the predicted one of each cell if not given.
        method
            ``"integrated_gradients"``, or ``"input_x_gradient"``, which uses the gradient at the
            cell only: faster by a factor of ``n_steps``, and without the property of the sum.
        n_steps
            Number of steps between baseline and cell.
        batch_size
            Cells per minibatch; memory grows with it.

        Returns
        -------
        ``(n_cells, n_genes)``, genes in the order of ``model.gene_names``; batch and covariates of
        the cells are not changed.

        Raises
        ------
        ImportError
            If captum is not installed.
        ValueError
            If the model reads a latent space, there is no such label or method, or as in
            :meth:`~scvi_sctab.SCTAB.predict`.

        Examples
        --------
        >>> contributions = model.get_attributions(query, label="B")  # doctest: +SKIP
        >>> order = contributions.mean(axis=0).A1.argsort()[::-1]  # doctest: +SKIP
        >>> model.gene_names[order[:5]]  # doctest: +SKIP
        """
        self._require_trained()
        refuse_latent(self.networks)
        check_attribution(method)
        cells = self._select(adata, indices, layer, min_gene_overlap)
        if label is None:
            codes = pd.Index(self.labels).get_indexer(self._predict(cells))
        else:
            codes = np.full(len(cells), self._code_of(label))
        return attribute(
            self.networks,
            self.annotation.predictable,
            self._read(cells),
            codes,
            method,
            n_steps,
            batch_size,
        )

    @document_cells
    def deletion_test(
        self,
        rankings: Mapping[str, sparse.csr_matrix | pd.DataFrame],
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        n_genes: Sequence[int] = (5, 10, 20, 50, 100),
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Compare gene rankings by the deletion of their first genes, beside random genes.

        With a ranking of the genes that determine a label, its probability decreases faster than
        with random genes :cite:p:`Samek17`. Only genes that a cell expresses are ranked and drawn.
        Their log-normalised expression is set to 0 in the model, not their counts: a smaller total
        would increase the normalised expression of all other genes of the cell.

        Parameters
        ----------
        rankings
            Rankings by name: scores ``(n_cells, n_genes)`` of the same cells, in the order of
            ``model.gene_names``, as returned by :meth:`~scvi_sctab.SCTAB.get_attributions` and
            :meth:`~scvi_sctab.SCTAB.get_attention`; a data frame of such scores, aligned by the
            names of cells and genes; or a data frame of
            :meth:`~scvi_sctab.SCTAB.get_markers` by predicted label, best with
            ``n_genes=len(model.gene_names)``.
        adata, indices, layer, min_gene_overlap
            As in :meth:`~scvi_sctab.SCTAB.predict`.
        n_genes
            Numbers of genes to delete from each cell.
        batch_size
            Cells per minibatch; memory grows with it.

        Returns
        -------
        A row per ranking, ``"random"`` last, and number of genes: ``ranking``, ``n_genes``,
        ``drop`` (decrease of the probability of the predicted label, before calibration, mean over
        cells), ``drop_sd`` (standard deviation over cells) and ``changed`` (share of cells whose
        label changes).

        Raises
        ------
        ValueError
            If the model reads a latent space, scores do not match the cells, or as in
            :meth:`~scvi_sctab.SCTAB.predict`.
        """
        self._require_trained()
        refuse_latent(self.networks)
        cells = self._select(adata, indices, layer, min_gene_overlap)
        predicted = self._predict(cells)
        scores = {
            name: as_scores(name, ranking, cells.names, self.gene_names, predicted)
            for name, ranking in rankings.items()
        }
        return delete_genes(self.networks, self._read(cells), scores, n_genes, seed(), batch_size)

    def _repr_html_(self) -> str:
        """Describe the model in a notebook."""
        return describe_model(self)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Describe the model once: the text of scvi-tools' models is printed when it is asked for."""
        return {"text/html": self._repr_html_(), "text/plain": type(self).__name__}

    def _code_of(self, label: str) -> int:
        """Return the code of a predictable label."""
        check_label(label, self.labels)
        if label in self.coarse_labels:
            raise ValueError(
                f"{label!r} only stands for {self.coarse_labels[label]}; ask for one of these."
            )
        return int(np.flatnonzero(self.labels == label)[0])
