"""Likelihood of cells under a module of sparse shifts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.distributions import Normal

from scvi_sctab.external.svae._field import PERTURBATIONS_KEY

if TYPE_CHECKING:
    from torch import Tensor

    from scvi_sctab.external.svae._module import SpikeSlabModule

# Decoded numbers in memory at a time.
_MAX_DECODED = 2**24


def lower_bounds(module: SpikeSlabModule, tensors: dict[str, Tensor]) -> Tensor:
    """Estimate the evidence lower bound of each cell from one sample of its latents.

    Parameters
    ----------
    module
        Module in evaluation mode.
    tensors
        Minibatch with perturbations.

    Returns
    -------
    ``(n_cells,)``, in nats; the KL divergence has weight 1, and masks are averaged over.
    """
    *_, output = module(tensors, loss_kwargs={"objective": "expected"})
    (reconstruction,) = output.reconstruction_loss.values()
    (divergence,) = output.kl_local.values()
    bound: Tensor = -(reconstruction + divergence)
    return bound


def marginal_log_likelihoods(
    module: SpikeSlabModule, tensors: dict[str, Tensor], n_samples: int
) -> Tensor:
    r"""Estimate the log-likelihood of each cell by importance weighting :cite:p:`Burda16`.

    With samples :math:`z_s` of the posterior and masks :math:`\gamma_s`, it is
    :math:`\log \frac1S \sum_s p(x \mid z_s) \, p(z_s \mid \gamma_s) / q(z_s \mid x)`.

    Parameters
    ----------
    module
        Module in evaluation mode.
    tensors
        Minibatch with perturbations.
    n_samples
        Number of samples :math:`S`; the more, the closer to the likelihood, from below.

    Returns
    -------
    ``(n_cells,)``, in nats.
    """
    n_decoded = len(tensors[PERTURBATIONS_KEY]) * len(module.px_r)
    size = max(1, _MAX_DECODED // n_decoded)
    parts = [
        _log_weights(module, tensors, min(size, n_samples - start))
        for start in range(0, n_samples, size)
    ]
    return torch.cat(parts).logsumexp(dim=0) - math.log(n_samples)


def _log_weights(module: SpikeSlabModule, tensors: dict[str, Tensor], n_samples: int) -> Tensor:
    """Compute the logarithms of importance weights, ``(n_samples, n_cells)``."""
    x = module._get_inference_input(tensors)["x"]
    embedded = module.inference(x, n_samples=n_samples)
    outputs = module.generative(**module._get_generative_input(tensors, embedded))
    z, qz, codes = embedded["z"], embedded["qz"], tensors[PERTURBATIONS_KEY]
    centre = module.sample_shifts(codes.repeat(n_samples, 1)).reshape(z.shape)
    weights: Tensor = (
        module.likelihood(outputs).log_prob(x).sum(dim=-1)
        + Normal(centre, 1.0).log_prob(z).sum(dim=-1)
        - qz.log_prob(z).sum(dim=-1)
    )
    return weights
