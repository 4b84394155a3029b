"""Which genes the model looks at, and which decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scvi import REGISTRY_KEYS

from scvi_sctab._constants import CONDITIONS_KEY
from scvi_sctab.data import get_column
from scvi_sctab.mixins import to_scipy
from scvi_sctab.module import LatentClassifier
from scvi_sctab.nn import CSR, TabNetEncoder, normalize_counts

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor

# Gradients need dense cells, several times over.
_GRADIENT_BATCH_SIZE = 256


class AttributionMixin:
    """Attention per cell, marker genes per group."""

    def get_attention(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> sparse.csr_matrix:
        """Attention of each cell to each gene: TabNet's masks.

        Attention says where the encoder looks, which is not the same as what decides: it often
        falls on house-keeping genes, and the linear path of the small preset has none.
        :meth:`get_markers` weighs both.

        Parameters
        ----------
        adata, indices, batch_size
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
        encoder = self._attentive_encoder()

        def attend(tensors: dict[str, Tensor]) -> sparse.csr_matrix:
            return _attention(encoder, *self._encoder_input(tensors))

        adata, cells = self._query(adata, indices)
        parts = list(self._map_cells(attend, adata, cells, batch_size))
        empty = sparse.csr_matrix((0, len(self.gene_names)), dtype=np.float32)
        return sparse.vstack([empty, *parts], format="csr")

    def get_markers(
        self,
        adata: AnnData | None = None,
        groupby: str | None = None,
        n_genes: int = 20,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Genes that speak most for the predicted label, per group of cells.

        A gene's score is its mean contribution over the cells of the group. With a linear path
        that is ``(weight of the predicted label - mean weight over labels) * expression``; without
        one it is ``gradient of (logit of the predicted label - mean logit) * expression``.
        NOTE[DIFF] scTab ranks by ``attention * expression``; attention finds 1 of 34 textbook
        markers, the gradient 25 (benchmarks/explanations.py --tabnet-alone).

        Parameters
        ----------
        adata, indices, batch_size
            As in :meth:`~scvi_sctab.SCTAB.predict`.
        groupby
            Column of ``adata.obs`` to group cells by; their predicted labels if not given.
        n_genes
            Genes per group.

        Returns
        -------
        A row per group and gene, best first: ``group``, ``gene``, ``score``, ``attention`` (mean;
        missing without TabNet) and ``expression`` (mean, log-normalised).

        Raises
        ------
        KeyError
            If there is no such column.
        ValueError
            If the model reads a latent space, or as in :meth:`~scvi_sctab.SCTAB.predict`.
        """
        self._require_trained()
        self._refuse_latent()
        adata, cells = self._query(adata, indices)
        if groupby is None:
            groups = pd.Categorical(self.predict(adata, cells, batch_size=batch_size))
        else:
            groups = pd.Categorical(get_column(adata.obs, groupby, "groupby").to_numpy()[cells])
        if self.module.linear_skip is None:
            batch_size = batch_size or _GRADIENT_BATCH_SIZE
        sums = np.zeros((3, len(groups.categories), len(self.gene_names)))
        start = 0
        for values in self._map_cells(self._contributions, adata, cells, batch_size):
            n_cells = values[0].shape[0]
            codes = groups.codes[start : start + n_cells]
            ones, positions = np.ones(n_cells), np.arange(n_cells)
            member = sparse.csr_matrix((ones, (codes, positions)), (len(sums[0]), n_cells))
            for total, value in zip(sums, values, strict=True):
                total += np.nan if value is None else (member @ value).toarray()
            start += n_cells
        means = sums / np.maximum(np.bincount(groups.codes, minlength=sums.shape[1]), 1)[:, None]
        order = np.argsort(-means[0], axis=1, kind="stable")[:, :n_genes]
        rows = np.repeat(np.arange(len(order)), order.shape[1])
        columns = order.ravel()
        return pd.DataFrame(
            {
                "group": np.asarray(groups.categories)[rows],
                "gene": self.gene_names[columns],
                "score": means[0, rows, columns],
                "attention": means[1, rows, columns],
                "expression": means[2, rows, columns],
            }
        )

    def _encoder_input(self, tensors: dict[str, Tensor]) -> tuple[Tensor | CSR, Tensor | None]:
        """Expression and condition."""
        x = normalize_counts(tensors[REGISTRY_KEYS.X_KEY])
        return x, self.module.condition(tensors[CONDITIONS_KEY])

    def _contributions(self, tensors: dict[str, Tensor]) -> list[sparse.csr_matrix | None]:
        """Score, attention (if there is any) and expression, each ``(n_cells, n_genes)``."""
        x, condition = self._encoder_input(tensors)
        skip = self.module.linear_skip
        expression = to_scipy(x)
        if isinstance(self.module.encoder, TabNetEncoder):
            attention = _attention(self.module.encoder, x, condition)
        else:
            attention = None
        if skip is None:
            return [self._input_x_gradient(tensors), attention, expression]
        predicted = self._logits(tensors).argmax(dim=1).cpu().numpy()
        weight = skip.weight.cpu().numpy()
        weight = weight - weight[self._open_labels].mean(axis=0)
        score = expression.copy()
        rows = np.repeat(np.arange(score.shape[0]), np.diff(score.indptr))
        score.data *= weight[predicted[rows], score.indices]
        return [score, attention, expression]

    def _input_x_gradient(self, tensors: dict[str, Tensor]) -> sparse.csr_matrix:
        """Expression times the gradient of the predicted label's logit."""
        x, conditions = self._dense_input(tensors)
        predicted = self._logits(tensors).argmax(dim=1, keepdim=True)
        # What was made without gradients cannot be given any, but its copies can.
        with torch.inference_mode(False), torch.enable_grad():
            x = x.clone().requires_grad_()
            logits = self._centred_logits(x, conditions.clone())
            (gradient,) = torch.autograd.grad(logits.gather(1, predicted.clone()).sum(), x)
        return sparse.csr_matrix((x * gradient).detach().cpu().numpy())

    def _dense_input(self, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Log-normalised expression with its zeros, and codes of batch and covariates."""
        x, _ = self._encoder_input(tensors)
        return x.to_dense() if isinstance(x, CSR) else x, tensors[CONDITIONS_KEY]

    def _expression_logits(self, x: Tensor, conditions: Tensor) -> Tensor:
        """Logits of log-normalised expression, by the network that trains on it."""
        # Not `inference`, which hides genes at random where the model reconstructs them.
        z, _ = self.module.encoder(x, self.module.condition(conditions))
        return self.module.generative(x, z, conditions)["logits"]

    def _centred_logits(self, x: Tensor, conditions: Tensor) -> Tensor:
        logits = self._expression_logits(x, conditions)
        return logits - logits[:, self._open_labels].mean(dim=1, keepdim=True)

    def _refuse_latent(self) -> None:
        if isinstance(self.module, LatentClassifier):
            raise ValueError(
                "This model reads a latent space, so it attends to no genes; ask one that was "
                "trained on genes."
            )

    def _attentive_encoder(self) -> TabNetEncoder:
        self._refuse_latent()
        encoder = self.module.encoder
        if not isinstance(encoder, TabNetEncoder):
            raise ValueError(
                f"{type(encoder).__name__} has no attention; build the model with "
                "encoder='tabnet'."
            )
        return encoder


def _attention(
    encoder: TabNetEncoder, x: Tensor | CSR, condition: Tensor | None
) -> sparse.csr_matrix:
    """Attention with rows that sum to one."""
    attention = to_scipy(encoder.attention(x, condition))
    total = np.asarray(attention.sum(axis=1)).ravel()
    attention.data /= np.repeat(np.where(total == 0, 1, total), np.diff(attention.indptr))
    return attention
