"""Batches and covariates of cells, as codes of the categories that a model knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scvi import REGISTRY_KEYS

from scvi_sctab._constants import UNKNOWN_CODE

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Condition(NamedTuple):
    """A column that conditions the encoder.

    Attributes
    ----------
    key
        Column of ``adata.obs``.
    categories
        Values that the model knows, as strings, in the order of their codes.
    """

    key: str
    categories: list[str]


def canonical(value: object) -> str:
    """Name a category alike whatever type its column has: ``2``, ``2.0`` and ``"2"`` are one.

    Parameters
    ----------
    value
        Value of the column.

    Examples
    --------
    >>> canonical(2.0), canonical("2"), canonical(True)
    ('2', '2', 'True')
    """
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return str(value)


def registered_conditions(registry: dict[str, Any]) -> list[Condition]:
    """List the columns that a registry conditions on: the batch first, then covariates.

    Parameters
    ----------
    registry
        Registry of a model.
    """
    setup = registry["setup_args"]
    conditions = []
    if setup.get("batch_key") is not None:
        state = registry["field_registries"][REGISTRY_KEYS.BATCH_KEY]["state_registry"]
        conditions.append((setup["batch_key"], state["categorical_mapping"]))
    if setup.get("categorical_covariate_keys"):
        state = registry["field_registries"][REGISTRY_KEYS.CAT_COVS_KEY]["state_registry"]
        conditions += [(key, state["mappings"][key]) for key in state["field_keys"]]
    return [Condition(key, [canonical(value) for value in values]) for key, values in conditions]


def condition_codes(conditions: Sequence[Condition], obs: pd.DataFrame) -> NDArray[np.int64]:
    """Look up which categories the cells are of.

    Parameters
    ----------
    conditions
        Columns and their categories.
    obs
        ``adata.obs``; a column may be missing.

    Returns
    -------
    ``(n_cells, n_conditions)``; -1 where the model does not know the category, or the column or
    its value is missing.

    Examples
    --------
    >>> obs = pd.DataFrame({"batch": ["b", "x", "a"]})
    >>> condition_codes([Condition("batch", ["a", "b"])], obs).ravel().tolist()
    [1, -1, 0]
    """
    codes = np.full((len(obs), len(conditions)), UNKNOWN_CODE, dtype=np.int64)
    for column, (key, categories) in zip(codes.T, conditions, strict=True):
        if key in obs:
            values = obs[key].astype(object).where(obs[key].notna(), None)
            column[:] = pd.Index(categories).get_indexer(
                [None if value is None else canonical(value) for value in values]
            )
    return codes
