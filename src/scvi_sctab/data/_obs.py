"""Check the columns of ``adata.obs`` that a model is set up with."""

from __future__ import annotations

import warnings
from difflib import get_close_matches

import pandas as pd

from scvi_sctab._constants import MIN_CELLS_PER_LABEL, UNLABELED_CATEGORY
from scvi_sctab.data._messages import list_names

# What cells without a label are called in public data.
_NO_LABEL = {
    *("", "-", "na", "n/a", "nan", "none", "not available"),
    *("unannotated", "unassigned", "unknown", "unlabeled", "unlabelled"),
}


def get_column(
    obs: pd.DataFrame, key: str, argument: str, unlabeled_category: str = UNLABELED_CATEGORY
) -> pd.Series:
    """Return a column without missing values, as strings.

    Parameters
    ----------
    obs
        ``adata.obs``.
    key
        Name of the column.
    argument
        Argument that named it, for messages.
    unlabeled_category
        What to call missing labels, for messages.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If it has missing values.
    """
    if key not in obs:
        near = get_close_matches(key, [str(c) for c in obs.columns], n=1)
        raise KeyError(
            f"{argument}={key!r} is not a column of `adata.obs`"
            + (f"; did you mean {near[0]!r}?" if near else f", which has {list(obs.columns)}.")
        )
    column = obs[key]
    missing = column.isna().to_numpy()
    if missing.any():
        labels = argument == "labels_key"
        cure = "the unlabelled category" if labels else "a category of its own"
        fill = unlabeled_category if labels else "missing"
        raise ValueError(
            f"{argument}={key!r} has {missing.sum():,} missing values (NaN), in cells "
            f"{list_names(obs.index[missing])}. Give them {cure}, e.g. "
            f"`adata.obs[{key!r}] = adata.obs[{key!r}].astype(object).fillna({fill!r})`."
        )
    return column.astype(str)


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
    values = obs[labels_key].astype(object)
    if not all(isinstance(value, str) for value in values.unique()):
        raise ValueError(
            f"labels_key={labels_key!r} holds {obs[labels_key].dtype} values, not strings: "
            f"`adata.obs[{labels_key!r}] = adata.obs[{labels_key!r}].astype(str)`."
        )
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
        warnings.warn(
            f"{len(single):,} labels come from one donor only: {list_names(single)}. They are "
            "trained on but no held-out donor can tell how well they are recognised.",
            UserWarning,
            stacklevel=2,
        )


def reads_as_none(label: str) -> bool:
    """Whether a label says that a cell has none, in the words of public data.

    Parameters
    ----------
    label
        A label.

    Examples
    --------
    >>> [reads_as_none(label) for label in ("Unassigned", "NA", "B cell")]
    [True, True, False]
    """
    return label.strip().casefold() in _NO_LABEL


def ask_about_labels(labels: pd.Series, unlabeled_category: str) -> None:
    """Warn of labels that read as if their cells had none, but would be learnt.

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
    blank = [name for name in n_cells.index if reads_as_none(name)]
    if blank:
        warnings.warn(
            f"{n_cells[blank].sum():,} cells are labelled {list_names(blank)}, which will be learnt "
            f"as a cell type. If they have none, say so: `unlabeled_category={blank[0]!r}`.",
            UserWarning,
            stacklevel=3,
        )
