"""Module of sparse shifts: a variational autoencoder of counts with a prior per perturbation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from pyro.distributions import RelaxedBernoulliStraightThrough
from scvi import REGISTRY_KEYS
from scvi.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from scvi.nn import DecoderSCVI, Encoder
from torch import Tensor, nn
from torch.nn import functional as F

from scvi_sctab._constants import CONDITIONS_KEY
from scvi_sctab.external.svae._field import PERTURBATIONS_KEY

if TYPE_CHECKING:
    from torch.distributions import Distribution

    Likelihood = NegativeBinomial | ZeroInflatedNegativeBinomial

Prior = Literal["spike_slab", "dense", "l1", "none"]
Objective = Literal["standard", "sampled", "expected"]

PRIORS = ("spike_slab", "dense", "l1", "none")
LIKELIHOODS = ("nb", "zinb")
DISPERSION_CELLS = 64
"""Cells of a minibatch from which the gradient of the dispersion is computed."""


class SpikeSlabModule(BaseModuleClass):  # type: ignore[misc]
    r"""Variational autoencoder whose prior is shifted by perturbations, :cite:t:`Lopez23`.

    The latents of a cell with perturbations :math:`a` and its counts are

    .. math::
        z &\sim N\Big(\sum_a \gamma_a \circ \mu_a, I\Big), \qquad
        \gamma_{ak} \sim \mathrm{Bernoulli}(p_{ak}), \qquad p_{ak} \sim \mathrm{Beta}(1, K), \\
        x &\sim \mathrm{NB}(l \, f(z, b), \theta),

    with library size :math:`l` and batch and covariates :math:`b`. Neither encoder nor decoder
    reads the perturbation.

    Parameters
    ----------
    n_genes, n_perturbations
        Number of genes, and of perturbations without the control.
    n_latent, n_hidden, n_layers, dropout_rate
        Shape of encoder and decoder, as of :class:`scvi.model.SCVI`.
    gene_likelihood
        Negative binomial, ``"nb"``, or zero-inflated, ``"zinb"``.
    prior
        ``"spike_slab"``; ``"dense"``, all shifts without masks (iVAE); ``"l1"``, masks with an L1
        penalty (sVAE); or ``"none"``, a standard normal (VAE).
    sparsity
        K of the spike-and-slab prior, or the weight of the L1 penalty.
    beta
        Weight of the KL divergence of latents.
    n_categories
        Number of categories of batch and of each covariate, which the decoder reads.
    n_covariates
        Number of continuous covariates.

    Notes
    -----
    - input: raw counts ``(n_cells, n_genes)``, dense or sparse; codes of perturbations
      ``(n_cells, max_parts)``, filled up with -1; codes of batch and covariates
      ``(n_cells, n_conditions)``; continuous covariates; size factors ``(n_cells, 1)``, if any.
    - output: latents ``(n_cells, n_latent)``, parameters of counts ``(n_cells, n_genes)``.
    """

    # The encoder needs none; what needs the decoder checks by itself.
    needs_batch = False

    def __init__(
        self,
        n_genes: int,
        n_perturbations: int,
        *,
        n_latent: int,
        n_hidden: int,
        n_layers: int,
        dropout_rate: float,
        gene_likelihood: Literal["nb", "zinb"],
        prior: Prior,
        sparsity: float,
        beta: float,
        n_categories: Sequence[int] = (),
        n_covariates: int = 0,
    ):
        super().__init__()
        self.n_latent, self.prior, self.beta = n_latent, prior, beta
        self.gene_likelihood = gene_likelihood
        self.n_categories = [*n_categories]
        self.encoder = Encoder(
            n_genes,
            n_latent,
            n_layers=n_layers,
            n_hidden=n_hidden,
            dropout_rate=dropout_rate,
            use_batch_norm=True,
            return_dist=True,
        )
        self.decoder = DecoderSCVI(
            n_latent + n_covariates,
            n_genes,
            n_cat_list=self.n_categories,
            n_layers=n_layers,
            n_hidden=n_hidden,
            # In the first layer alone, so that new batches are new columns of one matrix.
            inject_covariates=False,
            use_batch_norm=True,
        )
        self.px_r = nn.Parameter(torch.randn(n_genes))
        self.shift = nn.Parameter(torch.randn(n_perturbations, n_latent))
        self.inclusion_logit = nn.Parameter(torch.full((n_perturbations, n_latent), 5.0))
        self.register_buffer("sparsity", torch.tensor(float(sparsity)))
        self.register_buffer("size_factor_unit", torch.ones(()))
        self.register_buffer("covariate_mean", torch.zeros(n_covariates))
        self.register_buffer("covariate_std", torch.ones(n_covariates))

    @property
    def shift_parameters(self) -> list[nn.Parameter]:
        """Shifts of perturbations and logits of their masks."""
        return [self.shift, self.inclusion_logit]

    @property
    def decoder_layer(self) -> nn.Linear:
        """First layer of the decoder; its columns are latents, covariates and categories."""
        layer: nn.Linear = self.decoder.px_decoder.fc_layers[0][0]
        return layer

    def inclusion(self) -> Tensor:
        """Compute the probability that a shift is not 0, ``(n_perturbations, n_latent)``."""
        if self.prior in ("spike_slab", "l1"):
            return self.inclusion_logit.sigmoid()
        return torch.full_like(self.shift, float(self.prior == "dense"))

    def _get_inference_input(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        # A likelihood of counts needs the zeros, too.
        x = tensors[REGISTRY_KEYS.X_KEY]
        return {"x": x if x.layout == torch.strided else x.to_dense()}

    @auto_move_data
    def inference(self, x: Tensor, n_samples: int | None = None) -> dict[str, Any]:
        """Embed counts; ``n_samples`` adds a first dimension to the samples ``z``."""
        qz, z = self.encoder(torch.log1p(x))
        if n_samples is not None:
            z = qz.sample((n_samples,))
        return {"x": x, "qz": qz, "z": z}

    def _get_generative_input(
        self, tensors: dict[str, Tensor], inference_outputs: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "z": inference_outputs["z"],
            "library": self.library(tensors, inference_outputs["x"]),
            "conditions": tensors.get(CONDITIONS_KEY),
            "covariates": tensors.get(REGISTRY_KEYS.CONT_COVS_KEY),
        }

    def library(self, tensors: dict[str, Tensor], x: Tensor) -> Tensor:
        """Return size factors in units of counts, or the sums of counts, ``(n_cells, 1)``."""
        size = tensors.get(REGISTRY_KEYS.SIZE_FACTOR_KEY)
        return x.sum(dim=1, keepdim=True) if size is None else size * self.size_factor_unit

    @auto_move_data
    def generative(
        self,
        z: Tensor,
        library: Tensor,
        conditions: Tensor | None = None,
        covariates: Tensor | None = None,
    ) -> dict[str, Any]:
        """Decode latents ``(..., n_cells, n_latent)``.

        Without ``conditions``, all categories have equal weights; without ``covariates``, these
        are at their means.
        """
        shape = z.shape[:-1]
        n_repeats = 1 if z.ndim == 2 else shape[0]
        flat = z.reshape(-1, self.n_latent)
        library = library.expand(*shape, 1).reshape(-1, 1)
        if len(self.covariate_mean):
            known = 0.0 if covariates is None else self._standardise(covariates, n_repeats)
            flat = torch.cat(
                [flat, flat.new_zeros(len(flat), len(self.covariate_mean)) + known], 1
            )
        categories = self._categories(conditions, len(flat), n_repeats)
        hidden = self.decoder.px_decoder(flat, *categories)
        scale = self.decoder.px_scale_decoder(hidden)
        outputs = {"scale": scale, "rate": library * scale}
        if self.gene_likelihood == "zinb":
            outputs["dropout"] = self.decoder.px_dropout_decoder(hidden)
        return {name: value.reshape(*shape, -1) for name, value in outputs.items()}

    def _standardise(self, covariates: Tensor, n_repeats: int) -> Tensor:
        return ((covariates - self.covariate_mean) / self.covariate_std).repeat(n_repeats, 1)

    def _categories(self, conditions: Tensor | None, n_rows: int, n_repeats: int) -> list[Tensor]:
        """Return codes of categories, or weights of all of them."""
        if conditions is None:
            return [self.px_r.new_full((n_rows, n), 1 / n) for n in self.n_categories]
        return [codes[:, None] for codes in conditions.repeat(n_repeats, 1).T]

    def likelihood(self, outputs: dict[str, Tensor]) -> Distribution:
        """Return the distribution of counts, given the result of :meth:`generative`."""
        theta = self.px_r.exp()
        if self.gene_likelihood == "nb":
            return NegativeBinomial(mu=outputs["rate"], theta=theta, validate_args=False)
        return ZeroInflatedNegativeBinomial(
            mu=outputs["rate"], theta=theta, zi_logits=outputs["dropout"], validate_args=False
        )

    def prior_mean(self, perturbations: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
        r"""Compute mean and variance of the centre of the prior.

        With :math:`p` the inclusion of the perturbations of a cell, the expected KL divergence
        over masks is that of the mean :math:`\sum_a p_a \mu_a`, plus half of the variance
        :math:`\sum_a p_a (1 - p_a) \mu_a^2`.

        Parameters
        ----------
        perturbations
            Codes, ``(n_cells, max_parts)``.
        objective
            Whether masks are sampled for each cell, or averaged over.

        Returns
        -------
        Both ``(n_cells, n_latent)``; the variance is 0 for sampled masks.
        """
        if objective == "standard" or self.prior == "none":
            zero = self.shift.new_zeros(len(perturbations), self.n_latent)
            return zero, zero
        if objective == "sampled" and self.prior != "dense":
            shifts = _take(self.shift, perturbations)
            logits = _take(self.inclusion_logit, perturbations)
            one = torch.ones((), device=logits.device)
            masks = RelaxedBernoulliStraightThrough(one, logits=logits).rsample()
            mean = (masks * shifts).sum(dim=1)
            return mean, torch.zeros_like(mean)
        p = self.inclusion()
        mean = _take(p * self.shift, perturbations).sum(dim=1)
        return mean, _take(p * (1 - p) * self.shift.square(), perturbations).sum(dim=1)

    @torch.no_grad()
    def sample_shifts(self, perturbations: Tensor) -> Tensor:
        """Sample masks, and sum the shifts of the perturbations of each cell.

        Parameters
        ----------
        perturbations
            Codes, ``(n_cells, max_parts)``.

        Returns
        -------
        ``(n_cells, n_latent)``.
        """
        masks = _take(self.inclusion(), perturbations).bernoulli()
        return (masks * _take(self.shift, perturbations)).sum(dim=1)

    def penalty(self, n_obs: int) -> Tensor:
        r"""Compute the penalty of masks per cell.

        Of the spike-and-slab prior, :math:`-\log \mathrm{Beta}(\sigma(\alpha); 1, K)` is
        :math:`(K - 1) \log(1 + e^\alpha)` up to a constant.

        Parameters
        ----------
        n_obs
            Number of training cells.
        """
        if self.prior == "spike_slab":
            return (self.sparsity - 1) / n_obs * F.softplus(self.inclusion_logit).sum()
        if self.prior == "l1":
            return self.sparsity * self.inclusion_logit.sigmoid().mean()
        return self.shift.new_zeros(())

    def embed(self, tensors: dict[str, Tensor]) -> Tensor:
        """Compute posterior means and variances, ``(n_cells, 2 * n_latent)``."""
        qz = self.inference(**self._get_inference_input(tensors))["qz"]
        return torch.cat([qz.loc, qz.variance], dim=1)

    def loss(
        self,
        tensors: dict[str, Tensor],
        inference_outputs: dict[str, Any],
        generative_outputs: dict[str, Any],
        *,
        objective: Objective = "expected",
        kl_weight: float = 1.0,
        n_obs: int = 1,
    ) -> LossOutput:
        """Compute the negative evidence lower bound, mean over cells, with the penalty of masks."""
        x, qz = inference_outputs["x"], inference_outputs["qz"]
        if self.training and self.gene_likelihood == "nb":
            reconstruction = fast_nb_loss(x, generative_outputs["rate"], self.px_r.exp())
        else:
            reconstruction = -self.likelihood(generative_outputs).log_prob(x).sum(dim=-1)
        centre, spread = self.prior_mean(tensors[PERTURBATIONS_KEY], objective)
        variance = qz.variance
        kl = (variance + (qz.loc - centre).square() + spread - 1 - variance.log()).sum(dim=1) / 2
        loss = (reconstruction + kl_weight * self.beta * kl).mean()
        if objective != "standard":
            loss = loss + kl_weight * self.penalty(n_obs)
        return LossOutput(loss=loss, reconstruction_loss=reconstruction, kl_local=kl)

    def sample(self, *args: object, **kwargs: object) -> None:
        """Raise an error: expression is predicted, not sampled."""
        raise NotImplementedError("Use `model.predict_perturbation(...)`.")


def fast_nb_loss(
    x: Tensor, mean: Tensor, theta: Tensor, n_cells: int = DISPERSION_CELLS
) -> Tensor:
    """Compute the negative log-likelihood of counts, with some terms of a few cells only.

    Log-gamma functions take a third of a training step, and depend on the dispersion alone. They
    are computed for the first ``n_cells``, a random choice, and averaged: the mean over cells and
    its gradient are unbiased, and the gradient with respect to ``mean`` is exact.

    Parameters
    ----------
    x, mean
        Counts and their means, ``(n_cells, n_genes)``, in random order.
    theta
        Inverse dispersion, ``(n_genes,)``.
    n_cells
        Number of cells for the terms of the dispersion.

    Returns
    -------
    ``(n_cells,)``.
    """
    some = x[:n_cells]
    of_theta = torch.lgamma(some + theta) - torch.lgamma(theta) - torch.lgamma(some + 1)
    total = (theta + mean).log()
    of_mean = theta * (theta.log() - total) + x * ((mean + 1e-8).log() - total)
    return -of_mean.sum(dim=1) - of_theta.sum(dim=1).mean()


def _take(table: Tensor, codes: Tensor) -> Tensor:
    """Take rows of a table, ``(n_cells, max_parts, n_columns)``; those of code -1 are 0."""
    # The row after the last one; an embedding has a faster gradient than indexing.
    padded = F.pad(table, (0, 0, 0, 1))
    return F.embedding(codes.remainder(len(padded)), padded)
