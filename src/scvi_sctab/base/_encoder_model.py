"""Base of models with an encoder of genes: training and embedding."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab._types import PretrainedEncoder
from scvi_sctab.base._docstrings import document_cells
from scvi_sctab.base._unlabeled_model import UnlabeledModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from anndata import AnnData
    from numpy.typing import NDArray
    from torch import Tensor


class EncoderModel(UnlabeledModel):
    """Model with an encoder of genes, and its training."""

    @document_cells
    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> NDArray[np.float32]:
        """Embed cells, without hidden genes.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`scvi_sctab.SCTAB.predict`.

        Returns
        -------
        ``(n_cells, n_latent)``.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If counts are not raw, or the gene overlap is too small.
        """
        n_output = self.module.encoder.n_output
        cells = self._select(adata, indices, layer, min_gene_overlap)
        return self._stack(self._embed, n_output, cells, batch_size)

    def _embed(self, tensors: dict[str, Tensor]) -> NDArray[np.float32]:
        return self.module.embed(tensors).cpu().numpy()

    def pretrained_encoder(self) -> PretrainedEncoder:
        """Return cells, registry, hyperparameters and weights of the encoder.

        They are used by :meth:`scvi_sctab.SCTAB.from_pretrained`.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        """
        self._require_trained()
        weights = self.module.encoder.state_dict()
        return PretrainedEncoder(
            self.adata,
            deepcopy(self.registry),
            self._network.encoder_kwargs(),
            {name: tensor.detach().clone() for name, tensor in weights.items()},
        )
