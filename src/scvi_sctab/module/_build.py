"""Construction of classifiers and encoders from a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from scvi_sctab.module._classifier import CellTypeClassifier
from scvi_sctab.module._latent_classifier import LatentClassifier
from scvi_sctab.module._latent_space import VAELatentSpace
from scvi_sctab.module._one_vs_rest import OneVsRestClassifier
from scvi_sctab.module._reconstruction import MaskedReconstruction
from scvi_sctab.nn import LinearEncoder, MLPEncoder, SELUEncoder, TabNetEncoder

if TYPE_CHECKING:
    from scvi_sctab._config import NetworkConfig
    from scvi_sctab._types import Encoder


def build_classifier(
    config: NetworkConfig,
    n_genes: int,
    n_labels: int,
    n_categories: Sequence[int] = (),
    pretrained: dict[str, Any] | None = None,
    first_query_batches: Sequence[int] = (),
) -> CellTypeClassifier:
    """Build a classifier of genes, or of a pretrained latent space.

    Parameters
    ----------
    config
        Hyperparameters.
    n_genes, n_labels
        Number of genes, and of labels.
    n_categories
        Number of categories of the batch and of each other covariate.
    pretrained
        Arguments of :class:`~scvi_sctab.module.VAELatentSpace` but ``n_categories``; the
        classifier reads genes if not given.
    first_query_batches
        See :class:`~scvi_sctab.module.QueryPaths`.

    Raises
    ------
    ValueError
        If ``config.encoder`` is not an encoder.
    """
    shared: dict[str, Any] = {
        "linear_skip": config.linear_skip,
        "encoder_weight": config.encoder_weight,
        "lambda_sparse": config.lambda_sparse,
        "reconstruction_weight": config.reconstruction_weight,
        "first_query_batches": first_query_batches,
    }
    if pretrained is not None:
        space = VAELatentSpace(n_categories=n_categories, **pretrained)
        return LatentClassifier(space, build_encoder(space.n_output, config), n_labels, **shared)
    if config.encoder == "celltypist":
        return OneVsRestClassifier(n_genes, n_labels)
    encoder = build_encoder(n_genes, config)
    wanted = config.reconstruction_weight > 0
    return CellTypeClassifier(
        encoder,
        n_genes,
        n_labels,
        n_categories=n_categories,
        batch_dropout=config.batch_dropout,
        freeze_encoder=config.freeze_encoder,
        reconstruction=(
            build_reconstruction(encoder, n_genes, n_categories, config) if wanted else None
        ),
        **shared,
    )


def build_reconstruction(
    encoder: Encoder, n_genes: int, n_categories: Sequence[int], config: NetworkConfig
) -> MaskedReconstruction:
    """Build the reconstruction of hidden genes, which trains an encoder without labels.

    Parameters
    ----------
    encoder
        The encoder.
    n_genes
        Number of genes.
    n_categories
        Number of categories of the batch and of each other covariate.
    config
        Hyperparameters.
    """
    return MaskedReconstruction(
        encoder.n_output,
        n_genes,
        n_categories,
        virtual_batch_size=config.virtual_batch_size,
        momentum=config.momentum,
    )


def build_encoder(n_input: int, config: NetworkConfig) -> Encoder:
    """Build an encoder.

    Parameters
    ----------
    n_input
        Number of genes, or width of the latent space that is read in their place.
    config
        Hyperparameters.

    Raises
    ------
    ValueError
        If ``config.encoder`` is not an encoder.
    """
    if config.encoder == "tabnet":
        return TabNetEncoder(
            n_input,
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
        return MLPEncoder(n_input, n_output=config.n_d)
    if config.encoder == "linear":
        return LinearEncoder(n_input, n_output=config.n_d)
    if config.encoder == "selu":
        return SELUEncoder(n_input, config.widths)
    raise ValueError(
        f"encoder={config.encoder!r} is none of 'tabnet', 'mlp', 'linear' and 'selu'."
    )
