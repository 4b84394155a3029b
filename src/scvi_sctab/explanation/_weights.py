"""Weights of genes for labels, which need no cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from scvi_sctab.nn import TabNetEncoder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scvi_sctab._types import Network


def gene_weights(
    networks: Sequence[Network], predictable: NDArray[np.bool_]
) -> NDArray[np.float64] | None:
    """Return the weight of each gene for each label, in units of the gene's standard deviation.

    It is that of the linear path minus its mean over predictable labels, times the standard
    deviation of the log-normalised expression in training, which the first batch norm of TabNet
    keeps; without TabNet, times one.

    Parameters
    ----------
    networks
        Networks of the model; the mean over them is returned.
    predictable
        Labels that can be predicted, ``(n_labels,)``.

    Returns
    -------
    ``(n_labels, n_genes)``; ``None`` if a network has no linear path from genes.
    """
    parts = []
    for network in networks:
        if network.linear_skip is None or not network.reads_genes:
            return None
        weight = network.linear_skip.weight.detach().cpu().double()
        centred = weight - weight[torch.from_numpy(predictable)].mean(dim=0)
        if isinstance(network.encoder, TabNetEncoder):
            variance = network.encoder.initial_bn.running_var
            assert variance is not None  # it is tracked
            centred = centred * variance.detach().cpu().double().sqrt()
        parts.append(centred.numpy())
    return np.mean(parts, axis=0)
