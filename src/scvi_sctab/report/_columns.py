"""Columns of ``obs`` that hold clusters, or labels of other annotators."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAMES = re.compile(
    r"leiden|louvain|cluster|cell_?type|annotation|celltypist|majority_voting|predicted|azimuth"
    r"|singler|scpred|cellassign|scimilarity|popv|^labels?$",
    re.IGNORECASE,
)
_NOT_NAMES = re.compile(r"ontology|term_id|^_|^sctab|score|prob|conf|novel", re.IGNORECASE)
_BATCHES = ("batch", "sample", "sample_id", "donor_id", "donor", "orig.ident", "library")
_MAX_GROUPS = 100
_MAX_COLUMNS = 4


def find_annotators(obs: pd.DataFrame, own: Iterable[str] = ()) -> list[str]:
    """Find columns with clusters or labels, by their names and values.

    Parameters
    ----------
    obs
        A row per cell.
    own
        Columns that are not of interest, such as batches.

    Returns
    -------
    At most four names of columns with 2 to 100 distinct values.

    Examples
    --------
    >>> obs = pd.DataFrame({"leiden": list("aab"), "n_counts": [1.5, 2.5, 3.5]})
    >>> find_annotators(obs)
    ['leiden']
    """
    taken = set(own)
    found = []
    for name in obs.columns.unique():
        text = str(name)
        if text in taken or not _NAMES.search(text) or _NOT_NAMES.search(text):
            continue
        values = obs[name]
        if not isinstance(values, pd.Series) or pd.api.types.is_float_dtype(values):
            continue
        if 2 <= values.nunique() <= min(_MAX_GROUPS, len(values) - 1):
            found.append(text)
    return found[:_MAX_COLUMNS]


def find_batch(obs: pd.DataFrame, known: str | None = None) -> str | None:
    """Find the column with batches: the one of the model, or one with a usual name.

    Parameters
    ----------
    obs
        A row per cell.
    known
        Column that the model was set up with.

    Returns
    -------
    Name of a column with 2 to 100 distinct values; ``None`` if there is none.

    Examples
    --------
    >>> find_batch(pd.DataFrame({"donor_id": ["a", "b"]}))
    'donor_id'
    """
    for name in (known, *_BATCHES):
        if name in obs and 2 <= obs[name].nunique() <= _MAX_GROUPS:
            return name
    return None
