"""Which genes speak for a cell's label, by gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from scipy import sparse

from scvi_sctab._optional import import_optional
from scvi_sctab.model._coarse import check_label

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor

METHODS = ("integrated_gradients", "input_x_gradient")
# Each cell goes through the network once per step.
_BATCH_SIZE = 64
_MAX_ROWS = 256


class CaptumMixin:
    """Attributions of the label to genes, through captum."""

    def get_attributions(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        label: str | None = None,
        method: Literal["integrated_gradients", "input_x_gradient"] = "integrated_gradients",
        n_steps: int = 50,
        batch_size: int | None = None,
    ) -> sparse.csr_matrix:
        r"""Attribute what speaks for a label to the genes of each cell.

        What is attributed is :math:`\ell_k - \frac1K \sum_j \ell_j`, the logit of the label less
        the mean over labels: what all logits share decides nothing. Genes are compared with no
        expression, so that a gene that a cell does not express gets 0. Integrated gradients
        :cite:p:`Sundararajan17` sum up to what the expression of the cell adds to that logit.

        Parameters
        ----------
        adata, indices
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
        attr = import_optional("captum.attr", "interpret", "get_attributions()")
        if method not in METHODS:
            raise ValueError(f"{method=} is none of {', '.join(METHODS)}.")
        column = None if label is None else self._label_code(label)
        if method == "input_x_gradient":
            captum, options = attr.InputXGradient(self._centred_logits), {}
        else:
            captum = attr.IntegratedGradients(self._centred_logits)
            options = {"n_steps": n_steps, "internal_batch_size": _MAX_ROWS}

        def attribute(tensors: dict[str, Tensor]) -> sparse.csr_matrix:
            x, conditions = self._dense_input(tensors)
            target = self._logits(tensors).argmax(dim=1) if column is None else column
            # What was made without gradients cannot be given any, but its copies can.
            with torch.inference_mode(False), torch.enable_grad():
                x, conditions = x.clone().requires_grad_(), conditions.clone()
                target = target if column is not None else target.clone()
                values = captum.attribute(
                    x, target=target, additional_forward_args=(conditions,), **options
                )
            return sparse.csr_matrix(values.detach().cpu().numpy().astype(np.float32))

        adata, cells = self._query(adata, indices)
        parts = list(self._map_cells(attribute, adata, cells, batch_size or _BATCH_SIZE))
        empty = sparse.csr_matrix((0, len(self.gene_names)), dtype=np.float32)
        return sparse.vstack([empty, *parts], format="csr")

    def _label_code(self, label: str) -> int:
        check_label(label, self.labels)
        if label in self.coarse_labels:
            raise ValueError(
                f"{label!r} only stands for {self.coarse_labels[label]}; ask for one of these."
            )
        return int(np.flatnonzero(self.labels == label)[0])
