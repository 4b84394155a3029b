"""Use of an encoder that another model trained."""

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


class EncoderMixin:
    """Cells, hyperparameters and weights from a pretrained encoder."""

    @staticmethod
    def _cells_of_encoder(encoder: PretrainedEncoder, adata: AnnData | None) -> AnnData:
        """Align cells with the genes of an encoder; use its own cells if none are given."""
        if adata is not None:
            state = encoder.registry["field_registries"]["X"]["state_registry"]
            layer = encoder.registry["setup_args"]["layer"]
            return query_cells(adata, layer, check_genes(state["column_names"]), into=layer)
        if encoder.adata is None:
            raise ValueError("The encoder's model has no AnnData; say which cells: `adata=`.")
        return encoder.adata

    @staticmethod
    def _network_of_encoder(encoder: PretrainedEncoder, overrides: dict[str, Any]) -> dict:
        """Merge the hyperparameters of an encoder with others, which may not change its shape."""
        network = encoder.network
        shape = [name for name in _SHAPE_PARAMETERS if name in overrides]
        # Those that do not apply to the encoder are refused by the model.
        shape = [name for name in shape if name in network]
        changed = [n for n in shape if _plain(overrides[n]) != _plain(network[n])]
        if changed:
            own = ", ".join(f"{name}={network[name]!r}" for name in changed)
            raise ValueError(
                f"The pretrained encoder has {own}; leave {', '.join(changed)} out, or pretrain "
                "one of the shape that you want."
            )
        return {**network, **overrides}

    def _start_from_encoder(self, encoder: PretrainedEncoder) -> None:
        """Copy the weights of an encoder; standardise the embedding of a SELU encoder."""
        own = self.module.encoder
        own.load_state_dict(encoder.weights)
        if isinstance(own, SELUEncoder):
            cells = self._select(None, draw_cells(np.arange(self.adata.n_obs)))
            z = np.concatenate(list(self._map_cells(self._embed, cells, None)))
            moments = (torch.from_numpy(moment) for moment in (z.mean(axis=0), z.std(axis=0)))
            own.standardize(*(moment.to(self.module.device) for moment in moments))


def _plain(value: Any) -> Any:
    """Convert lists to tuples, since widths may be given as either."""
    return tuple(value) if isinstance(value, list) else value
