"""Checks of a reference before training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from scvi import REGISTRY_KEYS

from scvi_sctab._messages import list_names
from scvi_sctab.data._counts import describe_empty_cells, empty_cells
from scvi_sctab.data._fields import LEARNT
from scvi_sctab.data._genes import check_genes
from scvi_sctab.data._names import canonical, near_name
from scvi_sctab.data._obs import (
    check_labels,
    get_column,
    warn_about_few_cells,
    warn_about_missing_labels,
    warn_about_spelling,
)
from scvi_sctab.data._reader import read_counts, refuse_view

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


def check_cells(adata: AnnData, layer: str | None) -> None:
    """Check that the values are raw counts and no cell is empty.

    Parameters
    ----------
    adata
        Cells in memory or backed.
    layer
        Layer with the counts; ``None`` is ``X``.

    Raises
    ------
    ValueError
        If a value is not a count, or cells are empty.
    """
    start, empty = 0, []
    for block in read_counts(adata, layer):
        empty.extend(adata.obs_names[start + empty_cells(block)])
        start += block.shape[0]
    if empty:
        raise ValueError(describe_empty_cells(empty, adata.n_obs))


def check_reference(
    adata: AnnData,
    layer: str | None,
    labels_key: str,
    unlabeled_category: str,
    columns: dict[str, str | None],
    covariates: Sequence[str] | None = None,
) -> None:
    """Check genes, columns, labels and counts of a reference.

    Parameters
    ----------
    adata
        The reference.
    layer
        Layer with the counts; ``None`` is ``X``.
    labels_key, unlabeled_category
        Column of labels, and the label of cells without one.
    columns
        Further columns by the argument that named them; ``None`` is no column. Donors are looked
        up as ``"donor_key"``.
    covariates
        Columns of covariates.

    Raises
    ------
    KeyError
        If a column or the layer does not exist.
    ValueError
        If something cannot be learnt from.

    Warns
    -----
    UserWarning
        If a label comes from one donor only or reads as missing, or names differ only in case,
        spaces or Unicode form or have very few cells.
    """
    names = check_columns(adata, labels_key, unlabeled_category, columns, covariates)
    check_cells(adata, layer)
    warn_about_columns(adata, labels_key, unlabeled_category, names)


def check_columns(
    adata: AnnData,
    labels_key: str,
    unlabeled_category: str,
    columns: dict[str, str | None],
    covariates: Sequence[str] | None = None,
) -> dict[tuple[str, str], pd.Series]:
    """Check genes, columns and labels of a reference, not its counts.

    Parameters
    ----------
    adata, labels_key, unlabeled_category, columns, covariates
        As in :func:`check_reference`, which has the errors.

    Returns
    -------
    Columns besides the labels, by argument and name.
    """
    refuse_view(adata)
    check_genes(adata.var_names)
    pairs = [(argument, key) for argument, key in columns.items() if key is not None]
    pairs += [("categorical_covariate_keys", key) for key in covariates or ()]
    names = {pair: get_column(adata.obs, pair[1], pair[0]) for pair in pairs}
    check_labels(adata.obs, labels_key, unlabeled_category, columns.get("donor_key"))
    return names


def warn_about_columns(
    adata: AnnData,
    labels_key: str,
    unlabeled_category: str,
    names: dict[tuple[str, str], pd.Series],
) -> None:
    """Warn about names that may be errors.

    Parameters
    ----------
    adata, labels_key, unlabeled_category
        As in :func:`check_reference`, which has the warnings.
    names
        Columns besides the labels, by argument and name.
    """
    labels = get_column(adata.obs, labels_key, "labels_key")
    warn_about_missing_labels(labels, unlabeled_category)
    learnt = {("labels_key", labels_key): labels[labels != str(unlabeled_category)]}
    for (argument, key), column in (names | learnt).items():
        warn_about_spelling(column, key, argument)
        if argument != "donor_key":
            warn_about_few_cells(column, key, argument)


def check_transfer(
    adata: AnnData, registry: dict[str, Any], setup: dict[str, Any], model: str
) -> None:
    """Check that cells match the registry of the model that is loaded with them.

    Parameters
    ----------
    adata
        The cells.
    registry
        Registry of the model.
    setup
        Arguments of the set-up: ``labels_key``, ``unlabeled_category`` and ``donor_key``.
    model
        Class of the model, for messages.

    Raises
    ------
    KeyError
        If the column of donors is missing.
    ValueError
        If there are labels unknown to the model, or a column has missing values.
    """
    predict = f"To predict, load without them, `{model}.load(path, adata=False)`"
    key = setup["donor_key"]
    if key is not None and key not in adata.obs:
        raise KeyError(
            f"The model was set up with donor_key={key!r}, which is no column of `adata.obs`; it "
            f"has {list(adata.obs)}. {predict}; to train on, say whose cells they are, e.g. "
            f"`adata.obs[{key!r}] = 'one donor'`."
        )
    key, unlabeled = setup["labels_key"], str(setup["unlabeled_category"])
    state = registry["field_registries"][REGISTRY_KEYS.LABELS_KEY]["state_registry"]
    if key not in adata.obs or not state.get(LEARNT, True):
        return
    known = [canonical(label) for label in state["categorical_mapping"]]
    labels = get_column(adata.obs, key, "labels_key", unlabeled)
    new = sorted(set(labels) - {*known, unlabeled})
    if not new:
        return
    n_cells, here = int(labels.isin(new).sum()), f"adata.obs[{key!r}]"
    near = {label: near_name(label, known) for label in new}
    renamed = {label: other or unlabeled for label, other in near.items()}
    raise ValueError(
        f"labels_key={key!r} holds labels that the model does not know, {list_names(new)}, in "
        f"{n_cells:,} cells. {predict}. To train on with known labels only: "
        f"`{here} = {here}.astype(str).replace({renamed})`. To learn new ones, train a model on "
        "all cells, or map these, "
        f"`{model}.load_query_data(adata, path, learn_labels=True)`."
    )
