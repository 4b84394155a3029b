"""Autoencoder of thinned counts, whose decoder has a bulk prior on gene loadings."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch import Generator, Tensor, nn

from scvi_sctab._config import BULK_AUTOENCODER, BulkAutoencoderConfig
from scvi_sctab._constants import CONDITIONS_KEY, MEASURED_KEY
from scvi_sctab.nn import sample


class BulkPriorModule(BaseModuleClass):  # type: ignore[misc]
    r"""Thinning-denoising autoencoder with a bulk prior.

    In training, each molecule of a cell is shown to the encoder with a probability that is drawn
    for the cell, and the decoder predicts the others. With the level :math:`m_g` of a gene, its
    contrasts :math:`F_g` between bulk samples, the hidden layer :math:`h` and the embedding
    :math:`z` of a cell, and the projection :math:`p` of its molecules on the contrasts, the share
    of a gene in the molecules is

    .. math:: \operatorname{softmax}_g\big(\log m_g + d_g + W_g z + F_g (A h + s p) + b_{g}\big),

    where :math:`b_g` is the shift of the batch of the cell. The loss is the multinomial
    log-likelihood of the predicted molecules, with Gaussian priors on :math:`W`, :math:`d`,
    :math:`b` and :math:`z`. Without contrasts the model has no bulk.

    Parameters
    ----------
    n_genes, n_contrasts, n_batches
        Number of genes, of contrasts and of batches.
    n_latent
        Dimension of the embedding.
    config
        Hyperparameters.

    Notes
    -----
    - input: raw counts ``(n_cells, n_genes)``, dense or sparse; in training ``(n_cells, 2 *
      n_genes)``, counts to learn from and counts that are held out.
    - output: log shares ``(n_cells, n_genes)``.
    """

    # Prediction for an unknown batch is without a shift.
    needs_batch = False

    def __init__(
        self,
        n_genes: int,
        n_contrasts: int,
        n_batches: int,
        *,
        n_latent: int,
        config: BulkAutoencoderConfig = BULK_AUTOENCODER,
    ):
        super().__init__()
        self.config = config
        self.hidden = nn.Linear(n_genes, config.n_hidden)
        self.embedding = nn.Linear(config.n_hidden, n_latent)
        self.decoder = nn.Linear(n_latent, n_genes)
        self.shifts = nn.Parameter(torch.zeros(n_batches, n_genes))
        nn.init.normal_(self.decoder.weight, std=config.loading_std)
        nn.init.zeros_(self.decoder.bias)
        # Drawn last, so that the rest starts the same with and without bulk.
        self.hidden_of_bulk = nn.Parameter(
            torch.randn(n_contrasts, config.n_hidden) * config.projection_scale
        )
        self.contrasts_of_hidden = nn.Parameter(torch.zeros(config.n_hidden, n_contrasts))
        self.scale = nn.Parameter(torch.tensor(config.projection_scale))
        self.register_buffer("log_level", torch.zeros(n_genes))
        self.register_buffer("log_shifts", torch.zeros(n_batches, n_genes))
        self.register_buffer("contrasts", torch.zeros(n_genes, n_contrasts))
        self.register_buffer("mean_contrast", torch.zeros(n_contrasts))
        self.register_buffer("variance", torch.ones(n_contrasts))
        self.register_buffer("mean_library", torch.ones(()))
        self.register_buffer("mean_expression", torch.zeros(n_genes))
        self.register_buffer("n_molecules", torch.ones(()))

    def untrained(self) -> BulkPriorModule:
        """Build a network of the same shape with new weights."""
        return BulkPriorModule(
            len(self.log_level),
            self.contrasts.shape[1],
            len(self.shifts),
            n_latent=self.embedding.out_features,
            config=self.config,
        )

    def set_prior(
        self,
        level: NDArray[np.float64],
        contrasts: NDArray[np.float64],
        library: NDArray[np.float64],
        shifts: NDArray[np.float64],
    ) -> None:
        """Set level and contrasts of genes.

        Parameters
        ----------
        level
            Share of each gene, ``(n_genes,)``.
        contrasts
            ``(n_genes, n_contrasts)``, uncorrelated over molecules; see :func:`decorrelate`.
        library
            Molecules of each cell to learn from, ``(n_cells,)``.
        shifts
            Factor of each gene in each batch to start from, ``(n_batches, n_genes)``.
        """
        mean = level @ contrasts
        values = {
            "log_level": np.log(level),
            "contrasts": contrasts,
            "mean_contrast": mean,
            "variance": level @ (contrasts - mean) ** 2,
            "mean_library": np.asarray(library.mean()),
            "mean_expression": np.log1p(level * library.mean()),
            "n_molecules": np.asarray(library.sum()),
            "log_shifts": np.log(shifts),
        }
        for name, value in values.items():
            buffer = getattr(self, name)
            buffer.copy_(torch.from_numpy(np.array(value, dtype=np.float32)))

    def _get_inference_input(
        self, tensors: dict[str, Tensor], generator: Generator | None = None
    ) -> dict[str, Any]:
        """Thin counts in training; ``generator`` is not used."""
        counts = tensors[REGISTRY_KEYS.X_KEY]
        counts = counts if counts.layout is torch.strided else counts.to_dense()
        n_genes = len(self.log_level)
        shown = counts[:, :n_genes]
        return {
            "shown": thin(shown, self.config.shown) if self.training else shown,
            "measured": tensors.get(MEASURED_KEY),
        }

    @auto_move_data
    def inference(self, shown: Tensor, measured: Tensor | None = None) -> dict[str, Tensor]:
        """Embed cells, and project them on the contrasts of bulk.

        Genes that were not ``measured`` are as expected, and do not count in the projection.
        """
        library = shown.sum(dim=1, keepdim=True).clamp(min=1)
        mean_contrast, variance, mean_library = (
            self.mean_contrast, self.variance, self.mean_library
        )  # fmt: skip
        if measured is not None:
            level = self.log_level.exp() * measured
            mean_library = mean_library * level.sum()
            level = level / level.sum().clamp(min=1e-30)
            mean_contrast = level @ self.contrasts
            variance = level @ (self.contrasts - mean_contrast).square()
        projection = shown @ self.contrasts - library * mean_contrast
        # Posterior mean of coefficients with unit variance, given the molecules of the cell.
        projection = projection / (library * variance + 1)
        x = torch.log1p(shown * (mean_library / library)) - self.mean_expression
        if measured is not None:
            x = x * measured
        # Adam moves every weight equally; with thousands of genes the hidden layer would explode.
        x = self.config.input_scale * nn.functional.normalize(x, dim=1)
        hidden = torch.relu(self.hidden(x) + projection @ self.hidden_of_bulk)
        return {
            "hidden": hidden,
            "z": self.embedding(hidden),
            "coefficients": hidden @ self.contrasts_of_hidden + self.scale * projection,
            "shown": shown,
        }

    def _get_generative_input(
        self, tensors: dict[str, Tensor], inference_outputs: dict[str, Tensor]
    ) -> dict[str, Any]:
        return {
            "z": inference_outputs["z"],
            "coefficients": inference_outputs["coefficients"],
            "conditions": tensors.get(CONDITIONS_KEY),
        }

    @auto_move_data
    def generative(
        self, z: Tensor, coefficients: Tensor, conditions: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Decode the log share of each gene; batches may be unknown."""
        logits = self.log_level + self.decoder(z) + coefficients @ self.contrasts.T
        if len(self.shifts) and conditions is not None:
            codes = conditions[:, 0]
            shift = nn.functional.embedding(codes.clamp(min=0), self.log_shifts + self.shifts)
            logits = logits + shift * (codes >= 0)[:, None]
        norm = torch.logsumexp(logits, dim=1, keepdim=True)
        return {"log_shares": logits - norm, "log_norm": norm}

    def loss(
        self,
        tensors: dict[str, Tensor],
        inference_outputs: dict[str, Tensor],
        generative_outputs: dict[str, Tensor],
    ) -> LossOutput:
        """Compute the negative log-likelihood per molecule that was not shown."""
        counts = tensors[REGISTRY_KEYS.X_KEY]
        counts = counts if counts.layout is torch.strided else counts.to_dense()
        learnt, held_out = counts.split(len(self.log_level), dim=1)
        z = inference_outputs["z"]
        target = learnt - inference_outputs["shown"] if self.training else held_out
        loss = -(target * generative_outputs["log_shares"]).sum() / target.sum().clamp(min=1)
        if self.training:
            loss = loss + self._penalty() / self.n_molecules
            # A standard normal prior, without which the embedding would grow in place of loadings.
            loss = loss + z.square().sum() / 2 / target.sum().clamp(min=1)
        return LossOutput(loss=loss, n_obs_minibatch=len(target))

    def _penalty(self) -> Tensor:
        """Compute the negative log prior of the parameters of genes."""
        squares = self.config.loading_precision * self.decoder.weight.square().sum()
        squares = squares + self.config.offset_precision * self.decoder.bias.square().sum()
        return (squares + self.config.offset_precision * self.shifts.square().sum()) / 2

    def describe(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute embeddings, coefficients of contrasts, and log shares of cells."""
        inference, generated = self(tensors, compute_loss=False)
        return {**inference, **generated}

    def sample(self, *args: object, **kwargs: object) -> None:
        """Raise an error: sampling is not defined for this model."""
        raise NotImplementedError("This model imputes the expression of cells; it draws none.")


def thin(counts: Tensor, shown: tuple[float, float]) -> Tensor:
    """Keep each molecule with a probability that is drawn for each cell.

    Parameters
    ----------
    counts
        ``(n_cells, n_genes)``, dense.
    shown
        Range of the probability.
    """
    low, high = shown
    rate = torch.empty(len(counts), 1, device=counts.device).uniform_(low, high)
    kept = torch.zeros_like(counts)
    # Most counts are 0, and a draw takes long.
    rows, columns = counts.nonzero(as_tuple=True)
    kept[rows, columns] = sample(torch.binomial, counts[rows, columns], rate[rows, 0])
    return kept


def decorrelate(level: NDArray[np.float64], contrasts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotation of contrasts after which they are uncorrelated over molecules.

    Parameters
    ----------
    level
        Share of each gene, ``(n_genes,)``.
    contrasts
        ``(n_genes, n_contrasts)``.
    """
    centred = contrasts - level @ contrasts
    return np.linalg.eigh((centred.T * level) @ centred)[1]
