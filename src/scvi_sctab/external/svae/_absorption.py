"""A rotation of latents within the weights of a model.

The last layer of the encoder and the first one of the decoder are linear, so that a linear change
of coordinates of the latents is another setting of their weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scvi.model import SCANVI, SCVI

from scvi_sctab._config import ROTATION
from scvi_sctab._messages import list_near_names
from scvi_sctab.base._host import require_trained
from scvi_sctab.data import align_cells
from scvi_sctab.external.svae._rotation import sparse_rotation

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from torch import nn

    from scvi_sctab.external.svae._rotation import SparseRotation


@torch.no_grad()
def rotate_encoder(mean_layer: nn.Linear, rotation: SparseRotation) -> None:
    """Let the linear layer that returns latents return modules, in place.

    Parameters
    ----------
    mean_layer
        Last layer of an encoder, ``(n_hidden -> n_latent)``.
    rotation
        Change of coordinates of the latents.

    Raises
    ------
    ValueError
        If the layer has another number of outputs, or no bias.
    """
    _check_layer(mean_layer, mean_layer.out_features == len(rotation.offset), rotation, "outputs")
    weight, bias = _as_float64(mean_layer)
    _set(mean_layer, rotation.matrix.T @ weight, bias @ rotation.matrix + rotation.offset)


@torch.no_grad()
def rotate_decoder(first_layer: nn.Linear, rotation: SparseRotation) -> None:
    """Let the linear layer that reads latents read modules, in place.

    Parameters
    ----------
    first_layer
        First layer of a decoder. Its first columns are those of the latents, the others those of
        covariates.
    rotation
        Change of coordinates of the latents.

    Raises
    ------
    ValueError
        If the layer has fewer inputs than latents, or no bias.
    """
    n_latent = len(rotation.offset)
    _check_layer(first_layer, first_layer.in_features >= n_latent, rotation, "inputs")
    weight, bias = _as_float64(first_layer)
    # latents = (modules - offset) @ inverse
    inverse = np.linalg.inv(rotation.matrix)
    weight[:, :n_latent] = weight[:, :n_latent] @ inverse.T
    _set(first_layer, weight, bias - weight[:, :n_latent] @ rotation.offset)


@torch.no_grad()
def set_constant_variance(variance_layer: nn.Linear, variances: ArrayLike, epsilon: float) -> None:
    """Let the layer that returns log-variances return the same for all cells, in place.

    Parameters
    ----------
    variance_layer
        ``(n_hidden -> n_latent)``; the variance is its exponential plus ``epsilon``.
    variances
        ``(n_latent,)``.
    epsilon
        Number that the network adds to its variances, smaller than them.
    """
    values = np.asarray(variances, dtype=np.float64) - epsilon
    values = np.maximum(values, max(epsilon, float(np.finfo(np.float32).tiny)))
    weight, _ = _as_float64(variance_layer)
    _set(variance_layer, np.zeros_like(weight), np.log(values))


def rotate_scvi(
    model: SCVI | SCANVI,
    labels: str | ArrayLike,
    control: str | None = None,
    *,
    n_starts: int = ROTATION.n_starts,
    seed: int = 0,
) -> SparseRotation:
    """Rotate the latents of a trained model of scvi-tools so that shifts of perturbations are sparse.

    The model is changed in place: ``model.get_latent_representation()`` then returns modules, and
    whatever it decodes is unchanged up to the posterior variances of cells. These are
    correlated after a rotation and become their mean over cells. Saving and loading
    keep the rotation.

    Parameters
    ----------
    model
        Trained :class:`scvi.model.SCVI` or :class:`scvi.model.SCANVI`.
    labels
        Column of ``model.adata.obs``, or the perturbation of each cell; a series is aligned with
        the cells by name.
    control
        Unperturbed cells among the labels; None if there are none.
    n_starts, seed
        As in :func:`~scvi_sctab.external.svae.sparse_rotation`.

    Returns
    -------
    Matrix and offset, effects and targets of perturbations.

    Raises
    ------
    TypeError
        If the model is of another class.
    RuntimeError
        If the model is not trained.
    ValueError
        If its latents cannot be rotated, if the labels are missing from ``model.adata``, and as
        :func:`~scvi_sctab.external.svae.sparse_rotation`.

    Notes
    -----
    Of SCANVI, the classifier and the networks between its two latents change as well, so that its
    predictions stay the same.
    """
    _check_model(model)
    means, variances = model.get_latent_representation(return_dist=True)
    names = _labels_of(model, labels)
    rotation = sparse_rotation(
        means, names, control, variances=variances, n_starts=n_starts, seed=seed
    )
    average = np.asarray(variances, dtype=np.float64).mean(axis=0)
    _rotate_module(model.module, rotation, rotation.transform_variances(average))
    return rotation


def _check_model(model: Any) -> None:
    """Refuse a model whose latents cannot be rotated."""
    name = type(model).__name__
    if not isinstance(model, SCVI | SCANVI):
        raise TypeError(
            f"`rotate_scvi` takes an scvi.model.SCVI or SCANVI, not {name}. Find the rotation by "
            "`sparse_rotation(model.get_latent_representation(), labels)`."
        )
    require_trained(model, f"This {name} is not trained: call `model.train()` first.")
    alternative = "find it for the latents: `sparse_rotation(latents, labels)`."
    if model.minified_data_type is not None:
        raise ValueError(
            f"This {name} is minified: `adata` holds its latents, which a rotation of the weights "
            f"would not change. Rotate the model before `minify_adata`, or {alternative}"
        )
    if model.module.latent_distribution != "normal":
        raise ValueError(
            f"This {name} has latent_distribution={model.module.latent_distribution!r}, whose "
            "latents are positive and sum to 1. Train a model with "
            f'`latent_distribution="normal"`, or {alternative}'
        )
    if model.module.z_encoder.var_activation is not torch.exp:
        raise ValueError(
            f"This {name} has another `var_activation` than the exponential, so that the variance "
            f"of modules cannot be set. Train a model without `var_activation`, or {alternative}"
        )


def _labels_of(model: Any, labels: str | ArrayLike) -> ArrayLike:
    obs = model.adata.obs
    if isinstance(labels, pd.Series):
        named: ArrayLike = align_cells(labels, obs.index, "labels")
        return named
    if not isinstance(labels, str):
        return labels
    if labels not in obs:
        raise ValueError(
            f"`model.adata.obs` has no column {list_near_names([labels], obs.columns)}. Pass a "
            "column of it as `labels=`, or an array with the perturbation of each cell."
        )
    column: ArrayLike = obs[labels]
    return column


def _rotate_module(module: Any, rotation: SparseRotation, variances: NDArray[np.float64]) -> None:
    """Rotate the latents within the weights of a module of scvi-tools."""
    encoder = module.z_encoder
    rotate_encoder(encoder.mean_encoder, rotation)
    set_constant_variance(encoder.var_encoder, variances, encoder.var_eps)
    readers = [module.decoder.px_decoder]
    # Those that only SCANVI has.
    for name in ("classifier", "classifier_groups"):
        readers += [getattr(module, name)] if hasattr(module, name) else []
    if hasattr(module, "encoder_z2_z1"):
        readers.append(module.encoder_z2_z1.encoder)
        prior = module.decoder_z1_z2
        rotate_encoder(prior.mean_decoder, rotation)
        # Modules have unit variance within perturbations; that given the label is not diagonal.
        set_constant_variance(prior.var_decoder, np.ones_like(variances), epsilon=0)
    for reader in readers:
        rotate_decoder(_first_linear(reader), rotation)


def _first_linear(network: nn.Module) -> nn.Linear:
    """Return the first linear layer of a network."""
    return next(layer for layer in network.modules() if isinstance(layer, torch.nn.Linear))


def _check_layer(layer: nn.Linear, fits: bool, rotation: SparseRotation, side: str) -> None:
    n_latent = len(rotation.offset)
    if not fits:
        raise ValueError(
            f"The rotation is of {n_latent} latents, and {layer} has another number of {side}. "
            "Pass the rotation of this model's latents."
        )
    if layer.bias is None:
        raise ValueError(
            f"{layer} has no bias, which the offset of the rotation changes. Build the network "
            "with `bias=True`."
        )


def _as_float64(layer: nn.Linear) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Copy weight and bias in double precision."""
    weight, bias = (p.detach().cpu().double().numpy() for p in (layer.weight, layer.bias))
    return weight.copy(), bias.copy()


def _set(layer: nn.Linear, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> None:
    layer.weight.copy_(torch.from_numpy(weight))
    layer.bias.copy_(torch.from_numpy(bias))
