"""Codes of batches and covariates among the categories of a model."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scvi import REGISTRY_KEYS

from scvi_sctab._constants import UNKNOWN_CODE
from scvi_sctab._messages import list_names
from scvi_sctab.data._names import canonical, codes_among, name_values, near_name
from scvi_sctab.data._obs import find_column

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Condition(NamedTuple):
    """Column of ``adata.obs`` on which the encoder is conditioned.

    Attributes
    ----------
    key
        Column of ``adata.obs``.
    categories
        Known values as strings, in the order of their codes.
    """

    key: str
    categories: list[str]


def registered_conditions(registry: dict[str, Any]) -> list[Condition]:
    """List the columns of conditions in a registry: the batch first, then covariates.

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
    """Look up the codes of the cells' categories.

    Parameters
    ----------
    conditions
        Columns and their categories.
    obs
        ``adata.obs``; a column may be missing.

    Returns
    -------
    ``(n_cells, n_conditions)``; -1 where the category is unknown to the model, or the column or
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
            values = find_column(obs, key, "batch_key or covariate")
            column[:] = codes_among(name_values(values), categories)
    return codes


def describe_unknown(conditions: Sequence[Condition], obs: pd.DataFrame) -> list[str]:
    """Describe unknown categories, with the known ones that may be meant.

    Parameters
    ----------
    conditions, obs
        As in :func:`condition_codes`.

    Returns
    -------
    A text per column with unknown categories.

    Examples
    --------
    >>> obs = pd.DataFrame({"batch": ["Lab 7", "lab 7"]})
    >>> (text,) = describe_unknown([Condition("batch", ["lab 6", "lab 7"])], obs)
    >>> text.split("`")[2]
    " holds 'Lab 7', in 1 of 2 cells: did you mean 'lab 7'? "
    """
    unknown = condition_codes(conditions, obs) == UNKNOWN_CODE
    return [
        _describe_column(condition, obs, cells)
        for condition, cells in zip(conditions, unknown.T, strict=True)
        if cells.any()
    ]


def _describe_column(condition: Condition, obs: pd.DataFrame, cells: NDArray[np.bool_]) -> str:
    key, known = condition
    column = f"`adata.obs[{key!r}]`"
    if key not in obs:
        near = get_close_matches(key, [str(name) for name in obs], n=1)
        value = f"adata.obs[{near[0]!r}]" if near else repr(known[-1])
        return f"there is no {column}; if that is what they are, `adata.obs[{key!r}] = {value}`."
    names = name_values(obs[key][cells])
    if not len(names.categories):
        return f"{column} has {len(names):,} missing values."
    text = (
        f"{column} holds {list_names(names.categories)}, in {cells.sum():,} of {len(obs):,} cells"
    )
    meant = {name: near_name(name, known) for name in names.categories}
    meant = {name: near for name, near in meant.items() if near is not None}
    if not meant:
        return f"{text}; the model knows {list_names(known)}."
    return (
        f"{text}: did you mean {list_names(meant.values())}? "
        f"`adata.obs[{key!r}] = adata.obs[{key!r}].astype(str).replace({meant})`."
    )
