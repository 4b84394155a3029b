"""What one network looks at, and which genes decide."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse
from scvi import REGISTRY_KEYS

from scvi_sctab._constants import CONDITIONS_KEY
from scvi_sctab.module import LatentClassifier
from scvi_sctab.nn import TabNetEncoder, normalize_counts
from scvi_sctab.sparse import CSR, to_scipy

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor

    from scvi_sctab.data import CellSelection

# Gradients need dense cells, several times over.
_GRADIENT_BATCH_SIZE = 256


class AttributionMixin:
    """Attention, and what genes contribute to a label."""

    def _attend(self, cells: CellSelection, batch_size: int | None) -> sparse.csr_matrix:
        """Attention of each cell to each gene, ``(n_cells, n_genes)``."""
        encoder = self._attentive_encoder()

        def attend(tensors: dict[str, Tensor]) -> sparse.csr_matrix:
            return _attention(encoder, *self._encoder_input(tensors))

        return self._stack_sparse(self._map_cells(attend, cells, batch_size))

    def _group_means(
        self,
        cells: CellSelection,
        codes: NDArray[np.intp],
        groups: pd.Categorical,
        batch_size: int | None,
    ) -> NDArray[np.float64]:
        """Mean contribution to the label of each cell, attention, expression and its square.

        Per group: ``(4, n_groups, n_genes)``.
        """
        if self.module.linear_skip is None:
            batch_size = batch_size or _GRADIENT_BATCH_SIZE
        sums = np.zeros((4, len(groups.categories), len(self.gene_names)))
        start = 0

        def add(tensors: dict[str, Tensor]) -> None:
            nonlocal start
            n_cells = len(tensors[CONDITIONS_KEY])
            rows = slice(start, start + n_cells)
            start = rows.stop
            places = groups.codes[rows], np.arange(n_cells)
            member = sparse.csr_matrix((np.ones(n_cells), places), (len(sums[0]), n_cells))
            values = self._contributions(tensors, codes[rows])
            squares = values[-1].power(2)
            for total, value in zip(sums, [*values, squares], strict=True):
                total += np.nan if value is None else (member @ value).toarray()

        for _ in self._map_cells(add, cells, batch_size):
            pass
        return sums / np.maximum(np.bincount(groups.codes, minlength=sums.shape[1]), 1)[:, None]

    def _stack_sparse(self, parts: Iterable[sparse.csr_matrix]) -> sparse.csr_matrix:
        """Join rows over the model's genes; there may be none."""
        empty = sparse.csr_matrix((0, len(self.gene_names)), dtype=np.float32)
        return sparse.vstack([empty, *parts], format="csr")

    def _encoder_input(self, tensors: dict[str, Tensor]) -> tuple[Tensor | CSR, Tensor | None]:
        """Expression and condition."""
        x = normalize_counts(tensors[REGISTRY_KEYS.X_KEY])
        return x, self.module.condition(tensors[CONDITIONS_KEY])

    def _contributions(
        self, tensors: dict[str, Tensor], codes: NDArray[np.intp]
    ) -> list[sparse.csr_matrix | None]:
        """Score, attention (if there is any) and expression, each ``(n_cells, n_genes)``."""
        x, condition = self._encoder_input(tensors)
        skip = self.module.linear_skip
        expression = to_scipy(x)
        if isinstance(self.module.encoder, TabNetEncoder):
            attention = _attention(self.module.encoder, x, condition)
        else:
            attention = None
        if skip is None:
            return [self._input_x_gradient(tensors, codes), attention, expression]
        weight = skip.weight.cpu().numpy()
        weight = weight - weight[self._open_labels].mean(axis=0)
        score = expression.copy()
        rows = np.repeat(np.arange(score.shape[0]), np.diff(score.indptr))
        score.data *= weight[codes[rows], score.indices]
        return [score, attention, expression]

    def _input_x_gradient(
        self, tensors: dict[str, Tensor], codes: NDArray[np.intp]
    ) -> sparse.csr_matrix:
        """Expression times the gradient of the logit of each cell's label."""
        x, conditions = self._dense_input(tensors)
        # What was made without gradients cannot be given any, but its copies can.
        with torch.inference_mode(False), torch.enable_grad():
            x = x.clone().requires_grad_()
            logits = self._centred_logits(x, conditions.clone())
            of_label = torch.from_numpy(codes).to(x.device)[:, None]
            (gradient,) = torch.autograd.grad(logits.gather(1, of_label).sum(), x)
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

    def _expression_probabilities(self, x: Tensor, conditions: Tensor) -> Tensor:
        """Probabilities before calibration, of log-normalised expression."""
        return self._expression_logits(x, conditions).softmax(dim=1)

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
