"""What the network says of cells, seen or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from scvi_sctab._constants import CONDITIONS_KEY, MIN_GENE_OVERLAP, UNKNOWN_CODE
from scvi_sctab.metrics import CellEvidence

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData
    from numpy.typing import NDArray
    from torch import Tensor

    from scvi_sctab.data import CellSelection


class PredictionMixin:
    """Logits and embedding of cells; nothing is written into the AnnData."""

    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> NDArray[np.float32]:
        """Embed cells by the encoder, without their batch, so that all are comparable.

        A latent space that depends on the batch, that of an SCVI, is told it.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`predict`.

        Returns
        -------
        ``(n_cells, n_d)``.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            As in :meth:`predict`.
        """
        return self._latent(self._select(adata, indices, layer, min_gene_overlap), batch_size)

    def _latent(self, cells: CellSelection, batch_size: int | None = None) -> NDArray[np.float32]:
        return self._stack(self._embed, self.module.encoder.n_output, cells, batch_size)

    def _evidence(self, cells: CellSelection, batch_size: int | None) -> Iterator[CellEvidence]:
        """Say what there is to say about cells, a batch at a time."""
        return self._map_cells(self._to_evidence, cells, batch_size)

    def _to_evidence(self, tensors: dict[str, Tensor]) -> CellEvidence:
        _, outputs = self.module(tensors, compute_loss=False)
        logits, of_reference = outputs["logits"], outputs["reference_logits"]
        values = logits.cpu().numpy()
        if of_reference is logits:
            return CellEvidence(values, values, values)
        before = of_reference.cpu().numpy()
        return CellEvidence(values, before, before)

    def _logits(self, tensors: dict[str, Tensor]) -> Tensor:
        _, outputs = self.module(tensors, compute_loss=False)
        return outputs["logits"]

    def _probabilities(self, tensors: dict[str, Tensor]) -> NDArray[np.float32]:
        return self._logits(tensors).softmax(dim=1).cpu().numpy()

    def _embed(self, tensors: dict[str, Tensor]) -> NDArray[np.float32]:
        if not self.module.needs_batch:
            unknown = torch.full_like(tensors[CONDITIONS_KEY], UNKNOWN_CODE)
            tensors = {**tensors, CONDITIONS_KEY: unknown}
        outputs, _ = self.module(tensors, compute_loss=False)
        return outputs["z"].cpu().numpy()
