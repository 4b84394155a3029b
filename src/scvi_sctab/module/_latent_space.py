"""The latent space of a variational autoencoder of scvi-tools, as something to classify on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from scvi import REGISTRY_KEYS
from scvi.module import VAE
from torch import Tensor, nn

from scvi_sctab.nn import NewEntries, append_entries


class VAELatentSpace(nn.Module):
    """Embed counts by the encoder of an SCVI or a SCANVI :cite:p:`Lopez18,Xu21`.

    Parameters
    ----------
    arguments
        Of :class:`scvi.module.VAE`, without the numbers of categories.
    n_categories
        Number of categories of the batch, if there is one, and of each other covariate.
    has_batch
        Whether the first of them is the batch.
    frozen
        Whether the autoencoder stays as it is.

    Notes
    -----
    - input: raw counts ``(n_cells, n_genes)``, codes ``(n_cells, len(n_categories))``.
    - output: latent ``(n_cells, n_latent)``, a sample in training and the mean otherwise; and the
      negative evidence lower bound per cell and gene ``()``, 0 where it is not trained.
    - NOTE[DIFF] Of a SCANVI this is the autoencoder alone: its own classifier and the prior that
      depends on the label give way to those of SCTAB.
    """

    def __init__(
        self,
        arguments: Mapping[str, Any],
        n_categories: Sequence[int],
        *,
        has_batch: bool,
        frozen: bool,
    ):
        super().__init__()
        n_batch, covariates = n_categories[:has_batch], n_categories[has_batch:]
        self.vae = VAE(
            **arguments, n_batch=sum(n_batch) or 1, n_cats_per_cov=list(covariates) or None
        )
        self.n_categories = list(n_categories)
        self.has_batch, self.frozen = has_batch, frozen
        self.vae.requires_grad_(not frozen)

    @property
    def n_output(self) -> int:
        """Width of the latent space."""
        return self.vae.n_latent

    @property
    def needs_batch(self) -> bool:
        """Whether the latent of a cell depends on its batch, so that it has to be a known one."""
        return self.vae.encode_covariates

    def train(self, mode: bool = True) -> VAELatentSpace:
        """Keep a frozen autoencoder in evaluation."""
        super().train(mode and not self.frozen)
        return self

    def forward(self, counts: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Embed cells."""
        tensors = self._tensors(counts, conditions)
        outputs = self.vae.inference(**self.vae._get_inference_input(tensors))
        if self.frozen or not torch.is_grad_enabled():
            latent = self.vae.z_encoder.z_transformation(outputs["qz"].loc)
            return latent, latent.new_zeros(())
        generated = self.vae.generative(**self.vae._get_generative_input(tensors, outputs))
        loss = self.vae.loss(tensors, outputs, generated).loss
        return outputs["z"], loss / self.vae.n_input

    def grow(
        self, name: str, old: Tensor, new: Tensor, n_categories: Sequence[int]
    ) -> tuple[Tensor, NewEntries]:
        """Lengthen a tensor of an autoencoder with fewer categories, new ones at the mean.

        Parameters
        ----------
        name
            Name of the tensor.
        old
            The smaller one.
        new
            The larger one.
        n_categories
            Numbers of categories of the smaller autoencoder.
        """
        if old.shape[0] != new.shape[0]:
            return append_entries(old, len(new))
        if name.endswith("px_r"):
            return append_entries(old, new.shape[1], dim=1)
        fields = list(zip(n_categories, self.n_categories, strict=True))
        if self.has_batch and self.vae.batch_representation == "embedding":
            fields = fields[1:]
        # scvi-tools gives no column to a field of one category.
        n_columns = sum(before for before, _ in fields if before > 1)
        blocks = [old[:, : old.shape[1] - n_columns]]
        start = position = blocks[0].shape[1]
        positions: list[int] = []
        for before, after in fields:
            if after < 2:
                continue
            known = old[:, start : start + before] if before > 1 else old.new_zeros(len(old), 1)
            start += before if before > 1 else 0
            block, entries = append_entries(known, after, dim=1)
            blocks.append(block)
            positions += [position + column for column in entries.positions]
            position += after
        return torch.cat(blocks, dim=1), NewEntries(1, positions)

    def _tensors(self, counts: Tensor, conditions: Tensor) -> dict[str, Tensor]:
        """Name what the autoencoder reads; where its encoder asks for no batch, any will do."""
        counts = counts.to_dense() if counts.layout != torch.strided else counts
        codes = conditions.clamp(min=0)
        batch = codes[:, :1] if self.has_batch else codes.new_zeros((len(counts), 1))
        tensors = {
            REGISTRY_KEYS.X_KEY: counts,
            REGISTRY_KEYS.BATCH_KEY: batch,
            REGISTRY_KEYS.LABELS_KEY: torch.zeros_like(batch),
        }
        covariates = codes[:, int(self.has_batch) :]
        if covariates.shape[1]:
            tensors[REGISTRY_KEYS.CAT_COVS_KEY] = covariates
        return tensors
