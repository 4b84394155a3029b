"""Models on encoders that were trained without labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi.model import SCANVI, SCVI

from scvi_sctab._constants import UNLABELED_CATEGORY
from scvi_sctab.base import EncoderMixin
from scvi_sctab.model._latent_space import number_batches_alike, take_latent_space

if TYPE_CHECKING:
    from anndata import AnnData

    from scvi_sctab._types import HasEncoder


class PretrainedMixin(EncoderMixin):
    """Start from an encoder that was trained without labels."""

    @classmethod
    def from_pretrained(
        cls,
        model: SCVI | SCANVI | HasEncoder,
        labels_key: str | None = None,
        unlabeled_category: str | None = None,
        freeze_encoder: bool = False,
        *,
        adata: AnnData | None = None,
        batch_key: str | None = None,
        donor_key: str | None = None,
        preset: str = "auto",
        **overrides: Any,
    ) -> Any:
        """Build a model on the encoder of a trained one; ``model`` is left as it is.

        From a model of :mod:`scvi_sctab.pretrain`, the encoder of genes is taken over, and trained
        further unless it is frozen. Beside it runs the linear path of the preset;
        ``linear_skip=False`` goes without.

        From an SCVI or a SCANVI, TabNet reads the latent space in place of genes. Unless it is
        frozen, the autoencoder is trained further, with its evidence lower bound in the loss.
        Batches and covariates are its own, and :meth:`load_query_data` adapts it to new ones. For
        that, train it as scvi-tools advises for surgery: ``encode_covariates=True``,
        ``use_layer_norm="both"``, ``use_batch_norm="none"``.

        Parameters
        ----------
        model
            A trained model of :mod:`scvi_sctab.pretrain`, a :class:`scvi.model.SCVI` or
            :class:`scvi.model.SCANVI` with its AnnData, or another model with a method
            ``pretrained_encoder``.
        labels_key, unlabeled_category
            As in :meth:`setup_anndata`; those of ``model`` if not given.
        freeze_encoder
            Whether the encoder stays as it is. Only the embedding of a SELU encoder is
            standardised over ``adata``, once, frozen or not.
        adata
            Cells with labels, if they are others than those of ``model``; their counts in the
            same layer. Genes are matched by name. Not for an SCVI or a SCANVI.
        batch_key, donor_key
            As in :meth:`setup_anndata`; an SCVI or a SCANVI has batches of its own.
        preset, **overrides
            As of the class; for an SCVI or a SCANVI ``reconstruction_weight`` is the weight of
            the lower bound in nats per cell and gene, 1 if not given.

        Returns
        -------
        A model to :meth:`train`.

        Raises
        ------
        TypeError
            If ``model`` has no encoder that is known.
        RuntimeError
            If it is not trained.
        ValueError
            If there are no cells, the encoder would have another shape, or ``model`` was set up in a way that this cannot follow, or as
            :meth:`setup_anndata`.
        """
        labels = {"labels_key": labels_key, "unlabeled_category": unlabeled_category}
        labels = {name: value for name, value in labels.items() if value is not None}
        if hasattr(model, "pretrained_encoder") and not isinstance(model, type):
            setup = {"batch_key": batch_key, "donor_key": donor_key, **labels}
            overrides = {"freeze_encoder": freeze_encoder, **overrides}
            return cls._on_encoder(model, adata, setup, preset, overrides)
        if not isinstance(model, SCVI | SCANVI):
            raise TypeError(
                f"from_pretrained() takes a trained SCVI or SCANVI, a model of "
                "`scvi_sctab.pretrain`, or one with a method `pretrained_encoder`, not a "
                f"{type(model).__name__}."
            )
        if adata is not None or batch_key is not None:
            raise ValueError(
                f"A {type(model).__name__} brings its own cells and batches: train it on the "
                "labelled cells, too, and leave out `adata` and `batch_key`."
            )
        setup = {"donor_key": donor_key, **labels}
        return cls._on_latent_space(model, freeze_encoder, setup, preset, overrides)

    @classmethod
    def _on_encoder(
        cls,
        model: HasEncoder,
        adata: AnnData | None,
        setup: dict[str, Any],
        preset: str,
        overrides: dict[str, Any],
    ) -> Any:
        """Build a model whose encoder of genes is taken over."""
        encoder = model.pretrained_encoder()
        network = cls._network_of_encoder(encoder, overrides)
        adata = cls._cells_of_encoder(encoder, adata)
        cls.setup_anndata(adata, layer=encoder.registry["setup_args"]["layer"], **setup)
        sctab = cls(adata, preset, **network)
        sctab._start_from_encoder(encoder)
        return sctab

    @classmethod
    def _on_latent_space(
        cls,
        model: SCVI | SCANVI,
        frozen: bool,
        setup: dict[str, Any],
        preset: str,
        overrides: dict[str, Any],
    ) -> Any:
        """Build a model that reads the latent space of an autoencoder."""
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
