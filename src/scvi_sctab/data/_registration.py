"""Registration of cells, and check of labels against those that were registered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data._constants import _MANAGER_UUID_KEY
from scvi.data.fields import AnnDataField, BaseAnnDataField, LayerField

from scvi_sctab._constants import DONOR_KEY
from scvi_sctab._messages import list_names
from scvi_sctab.data._fields import (
    LEARNT,
    NamedJointObsField,
    NamedLabelsField,
    NamedObsField,
)
from scvi_sctab.data._names import name_values

if TYPE_CHECKING:
    from anndata import AnnData


def labelled_fields(
    layer: str | None,
    labels_key: str,
    unlabeled_category: str,
    batch_key: str | None = None,
    donor_key: str | None = None,
    categorical_covariate_keys: list[str] | None = None,
) -> list[BaseAnnDataField]:
    """List the fields to register of labelled cells.

    Parameters
    ----------
    layer, labels_key, unlabeled_category, batch_key, donor_key, categorical_covariate_keys
        As in :meth:`scvi_sctab.SCTAB.setup_anndata`.
    """
    fields = [
        LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=True),
        NamedLabelsField(REGISTRY_KEYS.LABELS_KEY, labels_key, unlabeled_category),
        NamedObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
        NamedJointObsField(REGISTRY_KEYS.CAT_COVS_KEY, categorical_covariate_keys),
    ]
    if donor_key is not None:
        fields.append(NamedObsField(DONOR_KEY, donor_key))
    return fields


def make_manager(
    model_name: str,
    adata: AnnData,
    fields: Sequence[AnnDataField],
    arguments: dict[str, Any],
    **transfer: Any,
) -> AnnDataManager:
    """Register cells.

    Parameters
    ----------
    model_name
        Name of the class of the model.
    adata
        Cells.
    fields
        Fields to register.
    arguments
        Arguments of ``setup_anndata`` to record.
    **transfer
        Passed to :meth:`~scvi.data.AnnDataManager.register_fields`.
    """
    setup = {
        "model_name": model_name,
        "setup_method_name": "setup_anndata",
        "setup_args": arguments,
    }
    manager = AnnDataManager(fields=fields, setup_method_args=setup)
    manager.register_fields(adata, **transfer)
    return manager


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
