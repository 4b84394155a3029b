"""Build the encoder that a configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scvi_sctab.nn import LinearEncoder, MLPEncoder, TabNetEncoder

if TYPE_CHECKING:
    from scvi_sctab._config import NetworkConfig
    from scvi_sctab._types import Encoder


def build_encoder(n_genes: int, config: NetworkConfig) -> Encoder:
    """Build an encoder of genes.

    Parameters
    ----------
    n_genes
        Number of genes.
    config
        Its hyperparameters.

    Raises
    ------
    ValueError
        If ``config.encoder`` is not an encoder.
    """
    if config.encoder == "tabnet":
        return TabNetEncoder(
            n_genes,
            n_d=config.n_d,
            n_a=config.n_a,
            n_steps=config.n_steps,
            gamma=config.gamma,
            n_independent=config.n_independent,
            n_shared=config.n_shared,
            epsilon=config.epsilon,
            virtual_batch_size=config.virtual_batch_size,
            momentum=config.momentum,
            mask_type=config.mask_type,
        )
    if config.encoder == "mlp":
        return MLPEncoder(n_genes, n_output=config.n_d)
    if config.encoder == "linear":
        return LinearEncoder(n_genes, n_output=config.n_d)
    raise ValueError(f"encoder={config.encoder!r} is none of 'tabnet', 'mlp' and 'linear'.")
