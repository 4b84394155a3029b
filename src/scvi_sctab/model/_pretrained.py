"""Construction of models on encoders that were trained before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi_sctab._constants import UNLABELED_CATEGORY
from scvi_sctab.base import bring_to_encoder, network_of_encoder, start_from_encoder
from scvi_sctab.model._latent_space import number_batches_alike, take_latent_space

if TYPE_CHECKING:
    from anndata import AnnData
    from scvi.model import SCANVI, SCVI

    from scvi_sctab._types import HasEncoder
    from scvi_sctab.model._sctab import SCTAB


def build_on_encoder(
    cls: type[SCTAB],
    model: HasEncoder,
    adata: AnnData | None,
    setup: dict[str, Any],
    preset: str,
    overrides: dict[str, Any],
) -> SCTAB:
    """Build a model whose encoder of genes is taken over.

    Parameters
    ----------
    cls
        Class of the model to build.
    model
        Trained model with an encoder of genes.
    adata
        Cells with labels; those of ``model`` if not given.
    setup
        Arguments of ``setup_anndata``.
    preset, overrides
        As of :class:`~scvi_sctab.SCTAB`.
    """
    encoder = model.pretrained_encoder()
    network = network_of_encoder(encoder, overrides)
    adata = bring_to_encoder(encoder, adata)
    cls.setup_anndata(adata, layer=encoder.registry["setup_args"]["layer"], **setup)
    sctab = cls(adata, preset, **network)
    start_from_encoder(sctab, encoder)
    sctab.has_pretrained_encoder_ = True
    return sctab


def build_on_latent_space(
    cls: type[SCTAB],
    model: SCVI | SCANVI,
    frozen: bool,
    setup: dict[str, Any],
    preset: str,
    overrides: dict[str, Any],
) -> SCTAB:
    """Build a model that reads the latent space of an autoencoder.

    Parameters
    ----------
    cls
        Class of the model to build.
    model
        Trained autoencoder.
    frozen
        Whether it stays as it is.
    setup
        Arguments of ``setup_anndata`` other than its own.
    preset, overrides
        As of :class:`~scvi_sctab.SCTAB`.
    """
    space = take_latent_space(model)
    own = space.registry["setup_args"]
    arguments = {
        "layer": own.get("layer"),
        "labels_key": own.get("labels_key"),
        "unlabeled_category": own.get("unlabeled_category") or UNLABELED_CATEGORY,
        "batch_key": own.get("batch_key"),
        "categorical_covariate_keys": own.get("categorical_covariate_keys"),
        **setup,
    }
    cls.setup_anndata(space.adata, **arguments)
    number_batches_alike(cls, space, arguments)
    pretrained = {
        "arguments": space.arguments,
        "has_batch": arguments["batch_key"] is not None,
        "frozen": frozen,
    }
    overrides = {"reconstruction_weight": 0.0 if frozen else 1.0, **overrides}
    sctab = cls(space.adata, preset, pretrained=pretrained, **overrides)
    vae = sctab.module.space.vae
    vae.load_state_dict({name: space.weights[name] for name in vae.state_dict()})
    return sctab
