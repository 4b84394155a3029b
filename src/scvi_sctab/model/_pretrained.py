"""Models on encoders that were trained without labels."""

from __future__ import annotations

from copy import deepcopy
from inspect import signature
from typing import TYPE_CHECKING, Any, NamedTuple

from scvi import REGISTRY_KEYS
from scvi.model import SCANVI, SCVI
from scvi.module import VAE

from scvi_sctab._constants import UNLABELED_CATEGORY

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor

    from scvi_sctab._types import HasEncoder


class PretrainedEncoder(NamedTuple):
    """What a trained model hands over.

    Attributes
    ----------
    adata
        Cells that it is registered with.
    registry
        Its registry.
    arguments
        Of :class:`scvi.module.VAE`, without the numbers of categories; plain values.
    weights
        State dict of that module; further entries do not matter.
    """

    adata: AnnData
    registry: dict[str, Any]
    arguments: dict[str, Any]
    weights: dict[str, Tensor]


class PretrainedMixin:
    """Start from an encoder instead of from genes."""

    @classmethod
    def from_pretrained(
        cls,
        model: SCVI | SCANVI | HasEncoder,
        labels_key: str | None = None,
        unlabeled_category: str | None = None,
        freeze_encoder: bool = False,
        *,
        donor_key: str | None = None,
        preset: str = "auto",
        **overrides: Any,
    ) -> Any:
        """Build a model on the latent space of a trained SCVI or SCANVI.

        TabNet then reads the latent space in place of genes. Unless it is frozen, the encoder is
        trained further, with its evidence lower bound in the loss. Batches and covariates are
        those of the encoder, and :meth:`load_query_data` adapts it to new ones. For that, train
        it as scvi-tools advises for surgery: ``encode_covariates=True``,
        ``use_layer_norm="both"``, ``use_batch_norm="none"``.

        Parameters
        ----------
        model
            A trained :class:`scvi.model.SCVI` or :class:`scvi.model.SCANVI` with its AnnData, or
            another model with a method ``pretrained_encoder``.
        labels_key, unlabeled_category
            As in :meth:`setup_anndata`; those of ``model`` if not given.
        freeze_encoder
            Whether the encoder stays exactly as it is.
        donor_key
            As in :meth:`setup_anndata`.
        preset, **overrides
            As of the class; ``reconstruction_weight`` is the weight of the lower bound in nats per
            cell and gene, 1 if not given.

        Returns
        -------
        A model to :meth:`train`. ``model`` is left as it is.

        Raises
        ------
        TypeError
            If ``model`` has no encoder that is known.
        RuntimeError
            If it is not trained.
        ValueError
            If it was set up in a way that this cannot follow, or as :meth:`setup_anndata`.
        """
        encoder = _hand_over(model)
        setup = encoder.registry["setup_args"]
        arguments = {
            "layer": setup.get("layer"),
            "labels_key": labels_key or setup.get("labels_key"),
            "unlabeled_category": unlabeled_category
            or setup.get("unlabeled_category")
            or UNLABELED_CATEGORY,
            "batch_key": setup.get("batch_key"),
            "donor_key": donor_key,
            "categorical_covariate_keys": setup.get("categorical_covariate_keys"),
        }
        cls.setup_anndata(encoder.adata, **arguments)
        _number_batches_alike(cls, encoder, arguments)
        pretrained = {
            "arguments": encoder.arguments,
            "has_batch": arguments["batch_key"] is not None,
            "frozen": freeze_encoder,
        }
        overrides = {"reconstruction_weight": 0.0 if freeze_encoder else 1.0, **overrides}
        sctab = cls(encoder.adata, preset, pretrained=pretrained, **overrides)
        vae = sctab.module.space.vae
        vae.load_state_dict({name: encoder.weights[name] for name in vae.state_dict()})
        return sctab


def _hand_over(model: Any) -> PretrainedEncoder:
    """Take the encoder out of a model."""
    if hasattr(model, "pretrained_encoder"):
        return model.pretrained_encoder()
    if not isinstance(model, SCVI | SCANVI):
        raise TypeError(
            f"from_pretrained() takes a trained SCVI or SCANVI, or a model with a method "
            f"`pretrained_encoder`, not a {type(model).__name__}."
        )
    model._check_if_trained(warn=False, message="Train the encoder's model first.")
    if model.adata is None:
        raise ValueError("The encoder's model has no AnnData: load it with `adata=`.")
    _refuse_what_differs(model)
    parameters = model.init_params_
    given = {k: v for part in parameters["kwargs"].values() for k, v in part.items()}
    given |= parameters["non_kwargs"]
    known = signature(VAE).parameters
    arguments = {name: value for name, value in given.items() if name in known}
    arguments["n_input"] = int(model.module.n_input)
    weights = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    return PretrainedEncoder(model.adata, deepcopy(model.registry), arguments, weights)


def _refuse_what_differs(model: SCVI | SCANVI) -> None:
    """Stop where the encoder reads what SCTAB does not hand it."""
    setup, module = model.registry["setup_args"], model.module
    unknown = {
        "continuous_covariate_keys": bool(setup.get("continuous_covariate_keys")),
        "size_factor_key": setup.get("size_factor_key") is not None,
        "use_observed_lib_size=False": not module.use_observed_lib_size,
        "dispersion='gene-label'": module.dispersion == "gene-label",
        "minified data": model.minified_data_type is not None,
    }
    found = [name for name, there in unknown.items() if there]
    if found:
        raise ValueError(
            f"The encoder was trained with {', '.join(found)}, which SCTAB does not support; "
            f"train the {type(model).__name__} without."
        )


def _number_batches_alike(cls: Any, encoder: PretrainedEncoder, arguments: dict[str, Any]) -> None:
    """Set up once more by the encoder's order of batches, which surgery may have left unsorted."""
    source = deepcopy(cls._get_most_recent_anndata_manager(encoder.adata).registry)
    for key in (REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.CAT_COVS_KEY):
        if key in encoder.registry["field_registries"]:
            state = encoder.registry["field_registries"][key]["state_registry"]
            if state:
                source["field_registries"][key]["state_registry"] = deepcopy(state)
    cls.setup_anndata(encoder.adata, source_registry=source, **arguments)
