"""Module of scDTL: transfer from bulk, U-Net over genes, and their fusion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch import Generator, Tensor, nn
from torch.nn.functional import log_softmax

from scvi_sctab._constants import MEASURED_KEY
from scvi_sctab.external.scdtl._attention import CrossChannelAttention
from scvi_sctab.external.scdtl._discrepancy import maximum_mean_discrepancy
from scvi_sctab.external.scdtl._transfer import (
    CodeEncoder,
    ContrastDecoder,
    add_noise,
    dense_expression,
    profile_divergence,
)
from scvi_sctab.external.scdtl._unet import GeneUNet
from scvi_sctab.nn import sample

if TYPE_CHECKING:
    from scvi_sctab._config import ScDTLNetworkConfig


class Profiles(NamedTuple):
    """Levels and order of genes, and bulk, as known before training; all of the model's genes.

    Attributes
    ----------
    order
        Positions of the genes in the order of the convolution, ``(n_genes,)``.
    log_level, log_bulk_level
        Log of the mean share of each gene in cells and in bulk, ``(n_genes,)``.
    center
        Mean log-normalised expression of the training cells, ``(n_genes,)``.
    scale, bulk_scale
        Root mean square of the centred expression of cells and of bulk.
    bulk
        Shares of genes in each bulk sample, ``(n_samples, n_genes)``.
    n_molecules
        Molecules of the training cells.
    """

    order: Tensor
    log_level: Tensor
    log_bulk_level: Tensor
    center: Tensor
    scale: Tensor
    bulk_scale: Tensor
    bulk: Tensor
    n_molecules: Tensor


class ScDTLModule(BaseModuleClass):  # type: ignore[misc]
    r"""Counts of single cells from two channels :cite:p:`Zhao24`.

    With :math:`\ell` the log level of genes in cells, :math:`x` the centred expression of a cell,
    :math:`f` the encoder of cells, :math:`h` the decoder that was trained on bulk, :math:`u` the
    U-Net and :math:`a` the attention, the share of gene :math:`g` in the molecules of a cell is

    .. math:: p_g \propto \exp(\ell_g + d_g + a_{1g}\, h(f(x))_g + a_{2g}\, u(x)_g).

    The loss is the negative multinomial log-likelihood of molecules that were hidden from the
    input, for :math:`p` and for each channel alone; the divergence of reconstructed bulk samples;
    the maximum mean discrepancy between the codes of bulk and of cells; and Gaussian priors on
    contrasts and :math:`d`.

    NOTE[DIFF] The released code of scDTL fuses by regression on the counts *before* dropout, with
    centres of the clusters of all cells, so that truth and labels of test cells are in the loss.
    Here molecules of the observed counts are hidden, and no other counts are used.

    NOTE[DIFF] In the released code the optimiser of the adaptation holds the encoder of cells
    only, for which the loss of the source has no gradient, and nothing ties the code of a cell to
    the profile of that cell. Here the decoder is shared, and both sides are reconstructed.

    NOTE[DIFF] In the released code the U-Net reads the transferred prediction and depends on its
    errors. Here it reads the cell, in parallel, as in the paper.

    Parameters
    ----------
    positions
        Positions of the genes of the model among those of the cells, ``(n_genes,)``.
    config
        Sizes, rates and weights of losses.

    Notes
    -----
    - input: raw counts ``(n_cells, n_genes_of_cells)``, dense or sparse.
    - output: log shares of the genes of the model, ``(n_cells, n_genes)``.
    """

    needs_batch = False

    def __init__(self, positions: Tensor, config: ScDTLNetworkConfig):
        super().__init__()
        n_genes = len(positions)
        self.config = config
        sizes = n_genes, config.n_hidden, config.n_latent
        self.bulk_encoder, self.encoder = CodeEncoder(*sizes), CodeEncoder(*sizes)
        self.decoder = ContrastDecoder(*sizes[::-1])
        self.unet = GeneUNet(2, config.widths)
        self.unet_scale = nn.Parameter(torch.ones(n_genes))
        self.attention = CrossChannelAttention(2, n_genes)
        self.deviation = nn.Parameter(torch.zeros(n_genes))
        self.register_buffer("positions", positions)
        for name in ("log_level", "log_bulk_level", "center"):
            self.register_buffer(name, torch.zeros(n_genes))
        for name in ("scale", "bulk_scale", "n_molecules"):
            self.register_buffer(name, torch.ones(()))
        self.register_buffer("order", torch.arange(n_genes))
        self.register_buffer("contrasts_of_bulk", torch.zeros(n_genes, config.n_hidden))
        # Bulk is needed to train only, and is not saved.
        self.register_buffer("bulk", torch.zeros(0, n_genes), persistent=False)

    def start_from(self, profiles: Profiles) -> None:
        """Set what is known before training.

        Parameters
        ----------
        profiles
            Levels, order and bulk.
        """
        for name, value in profiles._asdict().items():
            setattr(self, name, value.to(getattr(self, name)))

    def bulk_expression(self) -> Tensor:
        """Normalise bulk as cells, centre and scale it, ``(n_samples, n_genes)``."""
        x = dense_expression(self.bulk)
        return (x - x.mean(dim=0)) / self.bulk_scale

    def train_on_bulk(self, generator: Generator) -> list[float]:
        """Train the denoising autoencoder of bulk, and start the encoder of cells from its own.

        NOTE[DIFF] The released code builds a denoising autoencoder and does not train it; its bulk
        model is a regression without noise. Its noise for cells is written into the target too.

        Parameters
        ----------
        generator
            Source of the noise.

        Returns
        -------
        Divergence at each step, in nats per molecule.
        """
        parts = nn.ModuleList([self.bulk_encoder, self.decoder])
        optimizer = torch.optim.Adam(parts.parameters(), lr=self.config.bulk_lr)
        x, losses = self.bulk_expression(), []
        for _ in range(self.config.bulk_steps):
            divergence = self._bulk_divergence(self._bulk_codes(x, generator))
            losses.append(float(divergence.detach()))
            optimizer.zero_grad()
            (divergence + self._prior()).backward()
            optimizer.step()
        self.encoder.load_state_dict(self.bulk_encoder.state_dict())
        self.contrasts_of_bulk.copy_(self.decoder.contrasts.weight.detach())
        return losses

    def _bulk_codes(self, x: Tensor, generator: Generator | None) -> Tensor:
        return self.bulk_encoder(add_noise(x, self.config.bulk_noise, generator))

    def _bulk_divergence(self, codes: Tensor) -> Tensor:
        return profile_divergence(self.bulk, self.log_bulk_level, self.decoder(codes))

    def counts_of(self, tensors: dict[str, Tensor]) -> Tensor:
        """Return dense counts of the genes of the model, ``(n_cells, n_genes)``."""
        counts = tensors[REGISTRY_KEYS.X_KEY]
        dense = counts if counts.layout is torch.strided else counts.to_dense()
        return dense[:, self.positions]

    def _measured(self, tensors: dict[str, Tensor]) -> Tensor | None:
        """Return flags of the genes of the model that the cells have; ``None`` if all."""
        measured = tensors.get(MEASURED_KEY)
        return None if measured is None else measured[self.positions]

    def library_of(self, tensors: dict[str, Tensor], shares: Tensor) -> Tensor:
        """Compute the molecules of cells in all genes of the model, ``(n_cells, 1)``.

        Parameters
        ----------
        tensors
            Minibatch.
        shares
            Shares of genes, ``(n_cells, n_genes)``; those of genes that the cells lack say how many
            molecules these would have.
        """
        library, measured = (
            self.counts_of(tensors).sum(dim=1, keepdim=True),
            self._measured(tensors),
        )
        if measured is None:
            return library
        return library / shares[:, measured].sum(dim=1, keepdim=True).clamp(min=1e-30)

    def _get_inference_input(
        self, tensors: dict[str, Tensor], generator: Generator | None = None, hide: bool = True
    ) -> dict[str, Any]:
        """Split the molecules of cells into visible and hidden ones."""
        counts = self.counts_of(tensors)
        measured = self._measured(tensors)
        if not hide:
            return {"visible": counts, "hidden": torch.zeros_like(counts), "measured": measured}
        low, high = self.config.hidden_share
        device = counts.device
        rate = torch.rand(len(counts), 1, generator=generator, device=device) * (high - low) + low
        hidden = sample(torch.binomial, counts, rate.expand_as(counts), generator=generator)
        return {"visible": counts - hidden, "hidden": hidden, "measured": measured}

    @auto_move_data
    def inference(
        self, visible: Tensor, hidden: Tensor, measured: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Encode the visible molecules; genes that were not ``measured`` are as expected."""
        expression = dense_expression(visible)
        if measured is not None:
            share = (self.log_level.exp() * measured).sum()
            expression = (expression.expm1() * share).log1p()
            expression = torch.where(measured, expression, self.center)
        x = (expression - self.center) / self.scale
        depth = visible.sum(dim=1).log1p()
        return {"x": x, "log_depth": depth, "hidden": hidden, "code": self.encoder(x)}

    def _get_generative_input(
        self, tensors: dict[str, Tensor], inference_outputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        return {name: inference_outputs[name] for name in ("x", "log_depth", "code")}

    @auto_move_data
    def generative(self, x: Tensor, log_depth: Tensor, code: Tensor) -> dict[str, Tensor]:
        """Decode both channels and fuse them; the log shares are in the order of the genes."""
        order = self.order
        level = (self.log_level - self.log_level.mean())[order].expand(len(x), -1)
        signal = self.unet(torch.stack([x[:, order], level], dim=1)) * self.unet_scale
        channels = torch.stack([self.decoder(code)[:, order], signal], dim=1)
        weights = self.attention(channels, log_depth)
        logits = torch.cat([channels, (weights * channels).sum(dim=1, keepdim=True)], dim=1)
        base = self.log_level + self.deviation
        log_shares = log_softmax(base + logits[..., order.argsort()], dim=-1)
        return {"log_shares": log_shares, "weights": weights}

    def loss(
        self,
        tensors: dict[str, Tensor],
        inference_outputs: dict[str, Tensor],
        generative_outputs: dict[str, Tensor],
    ) -> LossOutput:
        """Compute the loss in nats per hidden molecule; validation scores the fusion alone."""
        hidden = inference_outputs["hidden"]
        scores = -(generative_outputs["log_shares"] * hidden[:, None]).sum(dim=(0, 2))
        transferred, own, fused = scores / hidden.sum().clamp(min=1)
        parts = {"transferred": transferred, "own": own, "fused": fused}
        loss = fused
        if self.training:
            config = self.config
            codes = self._bulk_codes(self.bulk_expression(), None)
            parts["bulk"] = self._bulk_divergence(codes)
            parts["discrepancy"] = maximum_mean_discrepancy(codes, inference_outputs["code"])
            loss = (
                fused
                + config.channel_weight * (transferred + own)
                + config.bulk_weight * parts["bulk"]
                + config.mmd_weight * parts["discrepancy"]
                + self._prior()
            )
        return LossOutput(loss=loss, n_obs_minibatch=len(hidden), extra_metrics=parts)

    def _prior(self) -> Tensor:
        """Compute the negative log of the Gaussian priors, per molecule."""
        config = self.config
        penalty = (
            config.contrast_precision
            * (self.decoder.contrasts.weight - self.contrasts_of_bulk).square().sum()
            + config.deviation_precision * self.deviation.square().sum()
            + config.deviation_precision * (self.unet_scale - 1).square().sum()
            + config.deviation_precision * self.attention.of_genes.square().sum()
        )
        return penalty / (2 * self.n_molecules)

    def embed(self, tensors: dict[str, Tensor]) -> Tensor:
        """Encode cells without hidden molecules, ``(n_cells, n_latent)``."""
        inference, _ = self._predicted(tensors)
        return inference["code"]

    def predict(self, tensors: dict[str, Tensor]) -> Tensor:
        """Predict the shares of genes in the molecules of cells, ``(n_cells, n_genes)``."""
        _, generated = self._predicted(tensors)
        return generated["log_shares"][:, -1].exp()

    def fusion(self, tensors: dict[str, Tensor]) -> Tensor:
        """Compute the mean weight of each channel, ``(n_cells, 2)``."""
        _, generated = self._predicted(tensors)
        return generated["weights"].mean(dim=-1)

    def _predicted(self, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], ...]:
        visible = {"hide": False}
        return self(tensors, get_inference_input_kwargs=visible, compute_loss=False)

    def sample(self, *args: object, **kwargs: object) -> None:
        """Raise an error: sampling is not defined for this module."""
        raise NotImplementedError("scDTL does not generate cells.")
