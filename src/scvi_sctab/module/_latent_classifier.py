"""Classifier that reads a latent space in place of genes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from scvi import REGISTRY_KEYS
from scvi.module.base import auto_move_data
from torch import Tensor

from scvi_sctab._constants import CONDITIONS_KEY
from scvi_sctab.module._classifier import CellTypeClassifier

if TYPE_CHECKING:
    from scvi_sctab._types import Encoder
    from scvi_sctab.module._latent_space import VAELatentSpace
    from scvi_sctab.nn import CSR, NewEntries

    Cells = Tensor | CSR


class LatentClassifier(CellTypeClassifier):
    """Classifier of cell types in a pretrained latent space, whose loss is added unless frozen.

    Parameters
    ----------
    space
        Latent space, which embeds raw counts.
    encoder
        Encoder of the latent representation.
    n_labels
        Number of labels.
    **kwargs
        Arguments of :class:`CellTypeClassifier`.

    Notes
    -----
    - input: raw counts ``(n_cells, n_genes)`` and codes of batch and covariates
      ``(n_cells, n_conditions)``, which the latent space reads.
    - output: logits ``(n_cells, n_labels)``.
    """

    def __init__(self, space: VAELatentSpace, encoder: Encoder, n_labels: int, **kwargs: Any):
        super().__init__(encoder, space.n_output, n_labels, **kwargs)
        self.space = space

    @property
    def frozen(self) -> list[str]:
        """Patterns of parameters that are never trained."""
        return ["space.*"] if self.space.frozen else []

    @property
    def needs_batch(self) -> bool:
        """Whether the latent representation of a cell depends on its batch."""
        return self.space.needs_batch

    @property
    def reads_genes(self) -> bool:
        """Whether the classifier reads genes, not a latent space."""
        return False

    @property
    def has_unsupervised_loss(self) -> bool:
        """Whether the autoencoder is trained further."""
        return not self.space.frozen

    def _get_inference_input(
        self, tensors: dict[str, Tensor], transform: Callable[[Cells], Cells] | None = None
    ) -> dict[str, Any]:
        """Select counts and codes of conditions."""
        return {
            "counts": tensors[REGISTRY_KEYS.X_KEY],
            "conditions": tensors[CONDITIONS_KEY],
        }

    @auto_move_data
    def inference(self, counts: Tensor, conditions: Tensor) -> dict[str, Any]:
        """Embed counts in the latent space, then by the encoder."""
        latent, loss = self.space(counts, conditions)
        embedding, mask_loss = self.encoder(latent)
        return {"x": latent, "z": embedding, "mask_loss": mask_loss, "unsupervised_loss": loss}

    def _grow(
        self, name: str, old: Tensor, new: Tensor, n_categories: Sequence[int]
    ) -> tuple[Tensor, NewEntries]:
        """Append new entries to a tensor; the latent space has its own rule."""
        if name.startswith("space."):
            return self.space.grow(name, old, new, n_categories)
        return super()._grow(name, old, new, n_categories)
