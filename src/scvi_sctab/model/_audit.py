"""Audit of the labels of a reference: models without the cells of each fold predict these."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from tqdm.auto import tqdm

from scvi_sctab._logging import logger, shows_progress
from scvi_sctab.annotation import (
    MAX_PAIRS_WITH_GENES,
    LabelAudit,
    Profiles,
    count_groups,
    count_issues,
    count_labels,
    count_pairs,
    describe_issues,
    telling_genes,
)
from scvi_sctab.base import draw_cells, seed
from scvi_sctab.data import get_column
from scvi_sctab.metrics import find_label_issues, fit_scaling
from scvi_sctab.model._novel_populations import read_expression
from scvi_sctab.model._siblings import check_siblings, train_sibling, without_batches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from scvi_sctab.data import CellSelection
    from scvi_sctab.metrics import Scaling
    from scvi_sctab.model._sctab import SCTAB

# Cells of each group whose expression is averaged.
_MAX_CELLS_PER_GROUP = 200


@dataclass(frozen=True, eq=False)
class CrossFitted:
    """Predictions of labelled cells by models that were trained without them.

    Parameters
    ----------
    cells
        The cells.
    codes, folds
        Codes of their labels, and their folds, ``(n_cells,)``.
    is_known
        Whether cells of another fold have the label, too, ``(n_cells,)``.
    logits
        ``(n_cells, n_labels)``.
    scaling
        Scaling of the logits, fitted to these cells.
    """

    cells: CellSelection
    codes: NDArray[np.int64]
    folds: NDArray[np.int64]
    is_known: NDArray[np.bool_]
    logits: NDArray[np.float32]
    scaling: Scaling

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Calibrated probabilities with the label prior, ``(n_cells, n_labels)``."""
        return self.scaling.probabilities(self.logits)


def audit(
    model: SCTAB,
    n_folds: int,
    group_key: str | None,
    groupby: str | Sequence[str],
    train_kwargs: Mapping[str, Any],
) -> LabelAudit:
    """Find the cells of a model whose labels contradict predictions by models without them.

    Parameters
    ----------
    model
        The model; it is left as it is.
    n_folds, group_key, groupby, train_kwargs
        As of :meth:`scvi_sctab.SCTAB.audit_labels`.

    Raises
    ------
    KeyError, TypeError, ValueError
        As of :meth:`scvi_sctab.SCTAB.audit_labels`.
    """
    if train_kwargs.get("early_stopping"):
        raise ValueError(
            "early_stopping: the models of an audit hold out nothing to stop by, since they are "
            "asked about all cells of their fold. Give `max_epochs` instead."
        )
    check_siblings(model, train_kwargs, "fold")
    obs = model.adata.obs
    names = [groupby] if isinstance(groupby, str) else groupby
    columns = {name: get_column(obs, name, "groupby").to_numpy() for name in names}
    key = _group_key(model, group_key)
    found = cross_fit(model, n_folds, key, train_kwargs)
    given, known, probabilities = found.codes, found.is_known, found.probabilities
    issues = find_label_issues(given[known], probabilities[known])
    table = describe_issues(
        found.cells.names,
        model.labels,
        given,
        issues,
        probabilities.argmax(axis=1),
        found.folds,
        known,
    )
    if key is not None:
        columns = {key: obs[key].to_numpy(), **columns}
    audited = found.cells.positions
    return LabelAudit(
        table,
        count_issues(table, issues.thresholds),
        _with_genes(model, found.cells, table),
        count_groups(table, {name: values[audited] for name, values in columns.items()}),
    )


def assign_folds(
    labels: NDArray[np.int64], groups: NDArray[np.int64] | None, n_folds: int
) -> NDArray[np.int64]:
    """Assign cells to folds with similar frequencies of the labels, whole groups if there are two.

    Parameters
    ----------
    labels
        Codes, ``(n_cells,)``.
    groups
        Code of the group of each cell, such as its donor, if it has any.
    n_folds
        Number of folds; as many as groups, if these are fewer.

    Raises
    ------
    ValueError
        If there are fewer than two folds, or fewer cells than folds.
    """
    n_groups = 0 if groups is None else len(np.unique(groups))
    if n_groups >= 2:
        n_folds = min(n_folds, n_groups)
    if not 2 <= n_folds <= len(labels):
        raise ValueError(
            f"{n_folds=} of {len(labels):,} labelled cells: take two or more, and no more than cells."
        )
    splitter = (StratifiedGroupKFold if n_groups >= 2 else StratifiedKFold)(
        n_folds, shuffle=True, random_state=seed()
    )
    folds = np.zeros(len(labels), dtype=np.int64)
    with warnings.catch_warnings():
        # A label with fewer cells than folds is not in each of them.
        warnings.filterwarnings("ignore", "The least populated class")
        try:
            parts = list(splitter.split(labels, labels, groups if n_groups >= 2 else None))
        except ValueError as error:
            raise ValueError(
                f"{n_folds=} is more than the cells of any label: take fewer folds."
            ) from error
    for fold, (_, own) in enumerate(parts):
        folds[own] = fold
    return folds


def cross_fit(
    model: SCTAB, n_folds: int, group_key: str | None, train_kwargs: Mapping[str, Any]
) -> CrossFitted:
    """Predict labelled cells by models that were trained without them.

    Parameters
    ----------
    model
        Model of all cells; it is left as it is.
    n_folds
        Number of folds.
    group_key
        Column whose values stay whole, if there is one.
    train_kwargs
        Arguments of ``train``.

    Raises
    ------
    ValueError
        If there are fewer than two folds, or more than cells of any label, or no label is in two.
    """
    everyone, n_labels = model._select(None), len(model.labels)
    # Cells with coarse labels are learnt from, but have no true label to contradict.
    learnt = np.flatnonzero(model._label_codes() < n_labels)
    groups = None if group_key is None else pd.factorize(model.adata.obs[group_key])[0][learnt]
    folds = np.full(len(everyone), -1)
    folds[learnt] = assign_folds(model._label_codes()[learnt], groups, n_folds)
    codes = model._codes_of(everyone)
    cells = np.flatnonzero((folds >= 0) & (codes >= 0))
    codes, own = codes[cells], folds[cells]
    known = _is_learnt_elsewhere(codes, own)
    if not known.any():
        raise ValueError(_no_label_twice(group_key))
    logits = _predict_folds(model, folds, cells, train_kwargs)
    # Class-balanced training removes the label prior. The power of it that these cells fit best
    # is between none and all.
    scaling = fit_prior(logits[known], codes[known], count_labels(codes, n_labels))
    return CrossFitted(everyone.take(cells), codes, own, known, logits, scaling)


def fit_prior(
    logits: NDArray[np.floating], codes: NDArray[np.int64], counts: NDArray[np.int64]
) -> Scaling:
    """Fit a scaling with the label prior that changes the most probable label, too.

    Else each cell of a frequent label that class-balanced logits call a rare one is contradicted.

    Parameters
    ----------
    logits
        Class-balanced logits, ``(n_cells, n_labels)``.
    codes
        Codes of the labels, ``(n_cells,)``.
    counts
        Number of cells by label, ``(n_labels,)``.
    """
    return fit_scaling(logits, codes, "prior", counts)._replace(moves_labels=True)


def _predict_folds(
    model: SCTAB,
    folds: NDArray[np.int64],
    cells: NDArray[np.intp],
    train_kwargs: Mapping[str, Any],
) -> NDArray[np.float32]:
    """Return the logits of cells, by models that were trained on the other folds."""
    n_folds = int(folds.max()) + 1
    logger.info(f"Training {n_folds} models, each without one of {n_folds} folds.")
    nobody, unseen = np.zeros(0, np.intp), without_batches(model)
    shows_bar = shows_progress() and train_kwargs.get("enable_progress_bar", True)
    arguments = {**train_kwargs, "enable_progress_bar": False}
    logits = np.zeros((len(cells), len(model.labels)), np.float32)
    for fold in tqdm(range(n_folds), desc="Folds", unit=" folds", disable=not shows_bar):
        trained = np.flatnonzero((folds >= 0) & (folds != fold))
        sibling = train_sibling(model, trained, nobody, arguments)
        own = np.flatnonzero(folds[cells] == fold)
        parts = sibling._logits_of(sibling._select(unseen, cells[own]))
        logits[own] = np.concatenate([part.logits for part in parts])
    return logits


def _group_key(model: SCTAB, given: str | None) -> str | None:
    """Return the column whose values are held out whole: donors, else batches, if there are two."""
    setup = model.registry["setup_args"]
    labelled = model.adata.obs[model._label_codes() < len(model.labels)]
    if given is not None:
        values = get_column(labelled, given, "group_key")
        if values.nunique() < 2:
            raise ValueError(
                f"group_key={given!r} has one value for all labelled cells, so that none can be "
                "held out whole. Give a column with two or more values."
            )
        return given
    for name in (setup.get("donor_key"), setup.get("batch_key")):
        if name is not None and labelled[name].nunique() > 1:
            return str(name)
    return None


def _no_label_twice(group_key: str | None) -> str:
    """Return the message for folds that have no label in common."""
    if group_key is None:
        return "No label is in two folds: give more cells of each label."
    return (
        f"No label is in two folds, because the groups of {group_key!r} have labels of their own. "
        "Divide the cells by another column, `group_key=...`; or set up without `donor_key` and "
        "`batch_key`, so that the cells of a group are in several folds."
    )


def _is_learnt_elsewhere(codes: NDArray[np.int64], folds: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark cells whose label cells of another fold have, too."""
    counts = np.zeros((codes.max(initial=-1) + 1, folds.max(initial=-1) + 1), int)
    np.add.at(counts, (codes, folds), 1)
    return counts[codes].sum(axis=1) > counts[codes, folds]


def _with_genes(model: SCTAB, cells: CellSelection, table: pd.DataFrame) -> pd.DataFrame:
    """Count issues by pair of labels, with genes that tell these apart."""
    pairs, n_labels = count_pairs(table), len(model.labels)
    shown = pairs.head(MAX_PAIRS_WITH_GENES)
    row = {
        pair: n_labels + i
        for i, pair in enumerate(zip(shown.label, shown.suggested_label, strict=True))
    }
    given, suggested = (table[name].cat.codes.to_numpy() for name in ("label", "suggested_label"))
    groups = given.astype(int)
    for cell in np.flatnonzero(table["is_issue"].to_numpy()):
        pair = (str(model.labels[given[cell]]), str(model.labels[suggested[cell]]))
        groups[cell] = row.get(pair, -1)
    of_groups = (np.flatnonzero(groups == group) for group in range(n_labels + len(row)))
    drawn = [draw_cells(own, _MAX_CELLS_PER_GROUP) for own in of_groups]
    chosen = np.sort(np.concatenate(drawn)).astype(np.intp)
    blocks = read_expression(cells.take(chosen), model._read(cells).alignment)
    profiles = Profiles.fit(blocks, groups[chosen], n_labels + len(row))
    place = {str(label): code for code, label in enumerate(model.labels)}
    genes = [
        telling_genes(profiles, place[label], place[other], group, model.gene_names)
        for (label, other), group in row.items()
    ]
    return pairs.assign(genes=[*genes, *[()] * (len(pairs) - len(genes))])
