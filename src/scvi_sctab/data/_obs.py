"""Checks of the columns of ``adata.obs`` for set-up."""

from __future__ import annotations

import re
from difflib import get_close_matches

import numpy as np
import pandas as pd

from scvi_sctab._constants import FEW_CELLS, MIN_CELLS_PER_LABEL, UNLABELED_CATEGORY
from scvi_sctab._messages import list_names, warn
from scvi_sctab.data._names import check_values, fold, name_values

# Markers of missing values in pandas, and words for them in public data.
_NO_LABEL = (
    *("", "#N/A", "#N/A N/A", "-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN", "NA", "NaN", "NaT"),
    *("None", "NULL", "ambiguous", "missing", "no annotation", "no call", "no label"),
    *("not annotated", "not applicable", "not assigned", "not available", "not classified"),
    *("not determined", "not known", "not labeled", "not labelled", "tbd", "unannotated"),
    *("unassigned", "uncertain", "unclassified", "undefined", "undetermined", "unidentified"),
    *("unknown", "unknown cell", "unknown cells", "unknown cell type", "unknown type"),
    *("unlabeled", "unlabelled", "unresolved", "unspecified"),
)


def find_column(obs: pd.DataFrame, key: str, argument: str) -> pd.Series:
    """Return a column, unchanged.

    Parameters
    ----------
    obs
        ``adata.obs``.
    key
        Name of the column.
    argument
        Argument that named it, for messages.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If there are several of that name.
    """
    if key not in obs:
        near = get_close_matches(key, [str(c) for c in obs.columns], n=1)
        raise KeyError(
            f"{argument}={key!r} is not a column of `adata.obs`"
            + (f"; did you mean {near[0]!r}?" if near else f", which has {list(obs.columns)}.")
        )
    column = obs[key]
    if isinstance(column, pd.DataFrame):
        raise ValueError(
            f"{argument}={key!r} is the name of {column.shape[1]} columns of `adata.obs`. Keep the "
            "first of each name: "
            "`adata.obs = adata.obs.loc[:, ~adata.obs.columns.duplicated()].copy()`."
        )
    return column


def get_column(
    obs: pd.DataFrame, key: str, argument: str, unlabeled_category: str = UNLABELED_CATEGORY
) -> pd.Series:
    """Return the names of the values of a column; missing values are refused.

    Parameters
    ----------
    obs
        ``adata.obs``.
    key
        Name of the column.
    argument
        Argument that named it, for messages.
    unlabeled_category
        Name for missing labels, for messages.

    Returns
    -------
    Names by :func:`~scvi_sctab.data.canonical`, ``(n_cells,)``.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If there are several, values are missing or of an unsupported type, or different values
        have the same name.
    """
    column = find_column(obs, key, argument)
    missing = column.isna().to_numpy()
    if missing.any():
        labels = argument == "labels_key"
        cure = "the unlabelled category" if labels else "a category of its own"
        fill = str(unlabeled_category) if labels else "missing"
        here = f"adata.obs[{key!r}]"
        raise ValueError(
            f"{argument}={key!r} has {missing.sum():,} missing values (NaN), in cells "
            f"{list_names(obs.index[missing])}. Give them {cure}, e.g. "
            f"`{here} = {here}.astype(str).where({here}.notna(), {fill!r})`."
        )
    check_values(column, key, argument)
    return pd.Series(np.asarray(name_values(column), dtype=object), column.index, name=key)


def check_labels(
    obs: pd.DataFrame, labels_key: str, unlabeled_category: str, donor_key: str | None
) -> None:
    """Check that labels can be learnt.

    Parameters
    ----------
    obs
        ``adata.obs``.
    labels_key
        Column of labels.
    unlabeled_category
        Label of cells without one.
    donor_key
        Column of donors, if any.

    Raises
    ------
    ValueError
        If labels are not strings, all cells are unlabelled, there is one label only, or a label
        has too few cells.

    Warns
    -----
    UserWarning
        If a label comes from one donor only.
    """
    labels = get_column(obs, labels_key, "labels_key", unlabeled_category)
    _require_strings(obs[labels_key], labels_key)
    labelled = labels != str(unlabeled_category)
    n_cells = labels[labelled].value_counts()
    if n_cells.empty:
        raise ValueError(
            f"All {len(labels):,} cells are unlabelled: labels_key={labels_key!r} holds nothing "
            f"but the unlabeled_category {unlabeled_category!r}. Name a column with labels."
        )
    if len(n_cells) < 2:
        raise ValueError(
            f"labels_key={labels_key!r} has one label only, {n_cells.index[0]!r}; a classifier "
            "needs at least two."
        )
    rare = n_cells.index[n_cells < MIN_CELLS_PER_LABEL]
    if len(rare):
        raise ValueError(
            f"Labels with fewer than {MIN_CELLS_PER_LABEL} cells cannot be learnt: "
            f"{list_names(rare)}. Merge them with a related label, drop them, or set them to the "
            f"unlabeled_category {unlabeled_category!r}."
        )
    if donor_key is None:
        return
    donors = get_column(obs, donor_key, "donor_key")[labelled]
    n_donors = donors.groupby(labels[labelled], observed=True).nunique()
    single = n_donors.index[n_donors == 1]
    if len(single) and donors.nunique() > 1:
        warn(
            f"{len(single):,} labels come from one donor only: {list_names(single)}. They are "
            "trained on but no held-out donor can tell how well they are recognised."
        )


def _require_strings(column: pd.Series, labels_key: str) -> None:
    values = [*column.astype(object).unique()]
    if all(isinstance(value, str) for value in values):
        return
    here = f"adata.obs[{labels_key!r}]"
    raise ValueError(
        f"labels_key={labels_key!r} holds {column.dtype} values, not strings: "
        f"`{here} = {here}.astype(str)`."
    )


def reads_as_none(label: str) -> bool:
    """Return whether a label reads as missing, as "unassigned" does.

    Parameters
    ----------
    label
        A label.

    Examples
    --------
    >>> [reads_as_none(label) for label in ("Unassigned", "<NA>", "?", "B cell")]
    [True, True, True, False]
    """
    return _letters(label) in _NO_LABEL_LETTERS


def _letters(label: str) -> str:
    """Return the letters and digits of a label, without other characters."""
    return re.sub(r"[\W_]+", "", fold(label))


_NO_LABEL_LETTERS = frozenset(map(_letters, _NO_LABEL))


def warn_about_missing_labels(labels: pd.Series, unlabeled_category: str) -> None:
    """Warn about labels that read as missing, but would be learnt.

    Parameters
    ----------
    labels
        Label of each cell.
    unlabeled_category
        Label of cells without one.

    Warns
    -----
    UserWarning
        If there are such labels.
    """
    n_cells = labels[labels != str(unlabeled_category)].astype(str).value_counts()
    n_cells = n_cells[n_cells > 0]
    blank = [name for name in n_cells.index if reads_as_none(name)]
    if blank:
        warn(
            f"{n_cells[blank].sum():,} cells are labelled {list_names(blank)}, which will be learnt "
            f"as a cell type. If they have none, say so: `unlabeled_category={blank[0]!r}`."
        )


def warn_about_spelling(names: pd.Series, key: str, argument: str) -> None:
    """Warn about names that differ only in case, spaces or Unicode form.

    Parameters
    ----------
    names
        Name of each cell, as :func:`get_column` gives them.
    key, argument
        Name of the column, and the argument that named it.

    Warns
    -----
    UserWarning
        If there are such names.
    """
    n_cells = names.value_counts()
    spellings: dict[str, list[str]] = {}
    for name in n_cells.index:  # the most frequent first
        if not reads_as_none(name):
            spellings.setdefault(fold(name), []).append(name)
    several = [group for group in spellings.values() if len(group) > 1]
    if several:
        pairs = ", ".join(
            " and ".join(f"{name!r} ({n_cells[name]:,} cells)" for name in group)
            for group in several
        )
        usual = {name: group[0] for group in several for name in group[1:]}
        here = f"adata.obs[{key!r}]"
        warn(
            f"{argument}={key!r} holds names that are equal but for case, spaces or Unicode form, "
            f"and are taken as different: {pairs}. If they are the same: "
            f"`{here} = {here}.astype(str).replace({usual!r})`."
        )


def warn_about_few_cells(names: pd.Series, key: str, argument: str) -> None:
    """Warn about names with very few cells.

    Parameters
    ----------
    names, key, argument
        As in :func:`warn_about_spelling`.

    Warns
    -----
    UserWarning
        If a name has fewer than ``FEW_CELLS`` cells.
    """
    n_cells = names.value_counts()
    few = sorted(n_cells.index[n_cells < FEW_CELLS])
    if few:
        warn(
            f"{argument}={key!r} has fewer than {FEW_CELLS} cells of {list_names(few)}; little can "
            "be learnt of so few."
        )
