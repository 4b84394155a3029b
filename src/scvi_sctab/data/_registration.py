"""Check of labels against those that were registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scvi import REGISTRY_KEYS
from scvi.data._constants import _MANAGER_UUID_KEY

from scvi_sctab._messages import list_names
from scvi_sctab.data._fields import LEARNT
from scvi_sctab.data._names import name_values

if TYPE_CHECKING:
    from scvi.data import AnnDataManager


def check_labels_unchanged(manager: AnnDataManager) -> None:
    """Raise an error if labels in ``adata.obs`` have changed since they were registered.

    Parameters
    ----------
    manager
        Manager of the cells that a model was set up with. If the cells were set up again since,
        nothing is checked, because the registered labels were overwritten.

    Raises
    ------
    ValueError
        If the label of a cell has changed.
    """
    adata, registry = manager.adata, manager.registry
    if adata.uns.get(_MANAGER_UUID_KEY) != manager.id:
        return
    key = registry["setup_args"]["labels_key"]
    field = registry["field_registries"][REGISTRY_KEYS.LABELS_KEY]
    codes = adata.obs.get(field["data_registry"]["attr_key"])
    state = field["state_registry"]
    if codes is None or key not in adata.obs or not state.get(LEARNT, True):
        return
    registered = np.asarray(state["categorical_mapping"]).astype(str)[codes.to_numpy()]
    names = name_values(adata.obs[key])
    now = np.where(names.codes < 0, str(state["unlabeled_category"]), np.asarray(names, object))
    changed = registered != now
    if changed.any():
        first = int(np.argmax(changed))
        raise ValueError(
            f"`adata.obs[{key!r}]` has changed since `setup_anndata` in {changed.sum():,} cells "
            f"({list_names(adata.obs_names[changed])}; the first from {str(registered[first])!r} to "
            f"{str(now[first])!r}). To learn the new labels, set up and build a new model: "
            f"`SCTAB.setup_anndata(adata, labels_key={key!r}, ...)`, `SCTAB(adata)`. To compare "
            f"this model with them, name the column: `model.evaluate(labels_key={key!r})`."
        )
