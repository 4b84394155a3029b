"""Encoder taken over from another model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scvi_sctab.base._arrays import draw_cells
from scvi_sctab.data import check_genes, query_cells
from scvi_sctab.nn import SELUEncoder

if TYPE_CHECKING:
    from anndata import AnnData

    from scvi_sctab._types import PretrainedEncoder

# Hyperparameters that determine the shapes of the weights.
_SHAPE_PARAMETERS = ("encoder", "widths", "n_d", "n_a", "n_steps", "n_independent", "n_shared")


def bring_to_encoder(encoder: PretrainedEncoder, adata: AnnData | None) -> AnnData:
    """Bring cells to the genes of an encoder; its own cells if none are given.

    Parameters
    ----------
    encoder
        The encoder.
    adata
        Cells, genes in any order.

    Raises
    ------
    ValueError
        If there are no cells.
    """
    if adata is not None:
        state = encoder.registry["field_registries"]["X"]["state_registry"]
        layer = encoder.registry["setup_args"]["layer"]
        return query_cells(adata, layer, check_genes(state["column_names"]), into=layer)
    if encoder.adata is None:
        raise ValueError("The encoder's model has no AnnData; say which cells: `adata=`.")
    return encoder.adata


def network_of_encoder(encoder: PretrainedEncoder, overrides: dict[str, Any]) -> dict[str, Any]:
    """Hyperparameters of an encoder and others.

    Parameters
    ----------
    encoder
        The encoder.
    overrides
        Hyperparameters to change; those that give the encoder its shape are its own.

    Raises
    ------
    ValueError
        If the encoder would have another shape.
    """
    network = encoder.network
    # One that does not apply to the encoder is for the model to refuse.
    shape = [name for name in _SHAPE_PARAMETERS if name in overrides and name in network]
    changed = [n for n in shape if _plain(overrides[n]) != _plain(network[n])]
    if changed:
        own = ", ".join(f"{name}={network[name]!r}" for name in changed)
        raise ValueError(
            f"The pretrained encoder has {own}; leave {', '.join(changed)} out, or pretrain "
            "one of the shape that you want."
        )
    return {**network, **overrides}


def start_from_encoder(model: Any, encoder: PretrainedEncoder) -> None:
    """Take over the weights of an encoder; standardise a SELU encoder over the model's cells.

    Parameters
    ----------
    model
        Model with an encoder of the same shape.
    encoder
        The encoder.
    """
    own = model.module.encoder
    own.load_state_dict(encoder.weights)
    if isinstance(own, SELUEncoder):
        cells = model._select(None, draw_cells(np.arange(model.adata.n_obs)))
        z = np.concatenate(list(model._map_cells(model._embed, cells)))
        moments = (torch.from_numpy(moment) for moment in (z.mean(axis=0), z.std(axis=0)))
        own.standardize(*(moment.to(model.module.device) for moment in moments))


def _plain(value: Any) -> Any:
    """Convert lists to tuples, since widths may be given as either."""
    return tuple(value) if isinstance(value, list) else value
