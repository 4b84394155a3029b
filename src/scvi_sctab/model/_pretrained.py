"""Construction of models on encoders that were trained without labels."""

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
    """Construction of a model on an encoder that was trained without labels."""

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
        """Build a model on the encoder of a trained one; ``model`` is not changed.

        The encoder of a model of :mod:`scvi_sctab.pretrain` is copied, and fine-tuned unless it is
        frozen. There is also the linear path of the preset, unless ``linear_skip=False``.

        With an SCVI or a SCANVI, TabNet reads the latent space in place of genes. Unless it is
        frozen, the autoencoder is trained further, with its evidence lower bound in the loss.
        Batches and covariates are those of ``model``, and :meth:`load_query_data` adapts the
        autoencoder to new ones. For this, train it as scvi-tools advises for surgery:
        ``encode_covariates=True``, ``use_layer_norm="both"``, ``use_batch_norm="none"``.

        Parameters
        ----------
        model
            A trained model of :mod:`scvi_sctab.pretrain`, a :class:`scvi.model.SCVI` or
            :class:`scvi.model.SCANVI` with its AnnData, or another model with a method
            ``pretrained_encoder``.
        labels_key, unlabeled_category
            As in :meth:`setup_anndata`; those of ``model`` if not given.
        freeze_encoder
            Whether the encoder is frozen. The embedding of a SELU encoder is standardised over
            ``adata`` once in either case.
        adata
            Labelled cells, if other than those of ``model``, with counts in the same layer. Genes
            are matched by name. Not for an SCVI or a SCANVI.
        batch_key, donor_key
            As in :meth:`setup_anndata`; ``batch_key`` not for an SCVI or a SCANVI.
        preset, **overrides
            As in the class; for an SCVI or a SCANVI ``reconstruction_weight`` is the weight of
            the lower bound in nats per cell and gene, 1 if not given.

        Returns
        -------
        A model to :meth:`train`.

        Raises
        ------
        TypeError
            If the encoder of ``model`` is not supported.
        RuntimeError
            If ``model`` is not trained.
        ValueError
            If there are no cells, the encoder would have another shape, the set-up of ``model`` is
            not supported, or as in :meth:`setup_anndata`.
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
        """Build a model with a copy of an encoder of genes."""
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
