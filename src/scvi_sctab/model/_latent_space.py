"""Use of the autoencoder of an SCVI or a SCANVI by SCTAB."""

from __future__ import annotations

from copy import deepcopy
from inspect import signature
from typing import TYPE_CHECKING, Any, NamedTuple

from scvi import REGISTRY_KEYS
from scvi.module import VAE

from scvi_sctab.base import require_trained

if TYPE_CHECKING:
    from anndata import AnnData
    from scvi.model import SCANVI, SCVI
    from torch import Tensor


class LatentSpace(NamedTuple):
    """Trained variational autoencoder.

    Attributes
    ----------
    adata
        Cells that its model is registered with.
    registry
        Registry of its model.
    arguments
        Arguments of :class:`scvi.module.VAE`, without the numbers of categories; plain values.
    weights
        State dict of that module; further entries are ignored.
    """

    adata: AnnData
    registry: dict[str, Any]
    arguments: dict[str, Any]
    weights: dict[str, Tensor]


def take_latent_space(model: SCVI | SCANVI) -> LatentSpace:
    """Copy the autoencoder of a model.

    Parameters
    ----------
    model
        Trained model with its AnnData.

    Raises
    ------
    RuntimeError
        If the model is not trained.
    ValueError
        If it has no AnnData, or needs inputs that SCTAB does not support.
    """
    require_trained(model, "Train the encoder's model first.")
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
    return LatentSpace(model.adata, deepcopy(model.registry), arguments, weights)


def number_batches_alike(cls: Any, space: LatentSpace, arguments: dict[str, Any]) -> None:
    """Repeat set-up with the codes of batches of the space, which surgery does not sort.

    Parameters
    ----------
    cls
        Class of the model that is set up on the same AnnData.
    space
        The autoencoder.
    arguments
        Arguments of ``cls.setup_anndata``.
    """
    source = deepcopy(cls._registry_of(space.adata))
    for key in (REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.CAT_COVS_KEY):
        if key in space.registry["field_registries"]:
            state = space.registry["field_registries"][key]["state_registry"]
            if state:
                source["field_registries"][key]["state_registry"] = deepcopy(state)
    cls.setup_anndata(space.adata, source_registry=source, **arguments)


def _refuse_what_differs(model: SCVI | SCANVI) -> None:
    """Refuse a model whose autoencoder needs inputs that SCTAB does not support."""
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
