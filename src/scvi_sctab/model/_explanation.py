"""Which genes a classifier looks at, and which decide."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd

from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab._optional import import_optional
from scvi_sctab.data import get_column
from scvi_sctab.metrics import score_markers
from scvi_sctab.model._coarse import check_label

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy import sparse

AttributionMethod = Literal["integrated_gradients", "input_x_gradient"]


class ExplanationMixin:
    """Attention per cell, marker genes per group, attributions, for one network or for several."""

    def get_attention(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> sparse.csr_matrix:
        """Attention of each cell to each gene: TabNet's masks.

        Attention says where the encoder looks, which is not the same as what decides: it often
        falls on house-keeping genes, and the linear path of the small preset has none.
        :meth:`get_markers` weighs both.

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
        return self._attend(self._select(adata, indices, layer, min_gene_overlap), batch_size)

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
        """Rank genes that contribute to the label of a group and that its neighbours lack.

        A gene's score is its mean contribution over the cells of the group times the cube of its
        specificity, see :func:`~scvi_sctab.metrics.score_markers`. With a linear path the
        contribution is ``(weight of the predicted label - mean weight over labels) * expression``;
        without one it is
        ``gradient of (logit of the predicted label - mean logit) * expression``. Specificity is
        the share of the expression that exceeds that of other groups, both of the three with the
        most similar expression and of all, less a standard error, so that what a few cells express
        by chance does not count. Genes with a score of 0 are not specific; the one with the larger contribution comes
        first. ``sort_values(["group", "contribution"], ascending=[True, False])`` ranks by
        contribution alone.
        NOTE[DIFF] scTab ranks by ``attention * expression``, which finds hardly any textbook marker
        (benchmarks/explanations.py).

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`~scvi_sctab.SCTAB.predict`.
        groupby
            Column of ``adata.obs`` to group cells by; their predicted labels if not given.
        n_genes
            Genes per group.

        Returns
        -------
        A row per group and gene, best first: ``group``, ``gene``, ``score``, ``contribution``
        (mean), ``specificity`` (0 to 1), ``attention`` (mean; missing without TabNet),
        ``expression`` (mean, log-normalised), ``expression_nearby`` (mean over the nearest
        groups), ``expression_elsewhere`` (mean over all other groups) and ``nearest`` (names of the
        nearest groups). With one group there is no other: the score is the contribution, and these
        columns are missing.

        Raises
        ------
        KeyError
            If there is no such column.
        ValueError
            If there are no genes asked for, the model reads a latent space, or as in
            :meth:`~scvi_sctab.SCTAB.predict`.

        Warns
        -----
        UserWarning
            If there is one group only.
        """
        self._require_trained()
        self._refuse_latent()
        if n_genes < 1:
            raise ValueError(f"{n_genes=}: ask for at least one gene per group.")
        cells = self._select(adata, indices, layer, min_gene_overlap)
        labels = self._predict(cells, batch_size)
        if groupby is None:
            groups = pd.Categorical(labels)
        else:
            groups = pd.Categorical(
                get_column(cells.adata.obs, groupby, "groupby").to_numpy()[cells.positions]
            )
        codes = self._codes_of_labels(labels)
        means = self._group_means(cells, codes, groups, batch_size)
        return _marker_table(groups, self.gene_names, means, n_genes)

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
        r"""Attribute what speaks for a label to the genes of each cell.

        What is attributed is :math:`\ell_k - \frac1K \sum_j \ell_j`, the logit of the label less
        the mean over labels: what all logits share decides nothing. Genes are compared with no
        expression, so that a gene that a cell does not express gets 0. Integrated gradients
        :cite:p:`Sundararajan17` sum up to what the expression of the cell adds to that logit.

        Parameters
        ----------
        adata, indices, layer, min_gene_overlap
            As in :meth:`~scvi_sctab.SCTAB.predict`.
        label
            Label to speak for; the predicted one of each cell if not given.
        method
            ``"integrated_gradients"``, or ``"input_x_gradient"``, which takes the gradient at the
            cell alone: as many times faster as there are steps, and without that sum.
        n_steps
            Steps from no expression to the cell.
        batch_size
            Cells at a time; memory grows with it.

        Returns
        -------
        ``(n_cells, n_genes)``, genes in the order of ``model.gene_names``, with the batch and the
        covariates of the cells as they are.

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
        self._refuse_latent()
        import_optional("captum.attr", "interpret", "get_attributions()")
        if method not in get_args(AttributionMethod):
            raise ValueError(f"{method=} is none of {', '.join(get_args(AttributionMethod))}.")
        cells = self._select(adata, indices, layer, min_gene_overlap)
        if label is None:
            codes = self._codes_of_labels(self._predict(cells))
        else:
            codes = np.full(len(cells), self._label_code(label))
        return self._attribute(cells, codes, method, n_steps, batch_size)

    def _codes_of_labels(self, labels: NDArray[np.str_]) -> NDArray[np.intp]:
        return pd.Index(self.labels).get_indexer(labels)

    def _label_code(self, label: str) -> int:
        check_label(label, self.labels)
        if label in self.coarse_labels:
            raise ValueError(
                f"{label!r} only stands for {self.coarse_labels[label]}; ask for one of these."
            )
        return int(np.flatnonzero(self.labels == label)[0])


def _marker_table(
    groups: pd.Categorical,
    gene_names: NDArray[np.str_],
    means: NDArray[np.float64],
    n_genes: int,
) -> pd.DataFrame:
    """Best genes per group, from mean contribution, attention, expression and its square."""
    names = np.asarray(groups.categories)
    contribution, attention, expression, squares = means
    n_cells = np.bincount(groups.codes, minlength=len(names))
    found = score_markers(n_cells, contribution, expression, squares)
    if len(names) == 1:
        warnings.warn(
            f"All cells are in one group, {names[0]!r}, so that there is no other to tell it from: "
            "its genes are ranked by contribution alone, house-keeping genes included. Ask about "
            "more cells, or group them by another column: `groupby=`.",
            UserWarning,
            stacklevel=3,
        )
    order = np.lexsort((-contribution, -found.score), axis=1)[:, :n_genes]
    rows = np.repeat(np.arange(len(order)), order.shape[1])
    columns = order.ravel()
    nearest = pd.Series([", ".join(names[near]) or None for near in found.nearest], dtype=object)
    return pd.DataFrame(
        {
            "group": names[rows],
            "gene": gene_names[columns],
            "score": found.score[rows, columns],
            "contribution": contribution[rows, columns],
            "specificity": found.specificity[rows, columns],
            "attention": attention[rows, columns],
            "expression": expression[rows, columns],
            "expression_nearby": found.nearby[rows, columns],
            "expression_elsewhere": found.elsewhere[rows, columns],
            "nearest": nearest.to_numpy()[rows],
        }
    )
