"""Audit of given labels by predictions for cells that were left out in turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scvi_sctab.metrics import LabelIssues, group_errors

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from scvi_sctab.annotation._profiles import Profiles

MAX_PAIRS_WITH_GENES = 50
"""Number of pairs of labels, the most frequent ones, for which genes are looked for."""
_N_GENES = 5
# Added to a standard deviation, so that genes of hardly any cell are not the first.
_MIN_SD = 0.1


@dataclass(frozen=True, eq=False)
class LabelAudit:
    """Labels of a reference that contradict predictions by models without their cells.

    Attributes
    ----------
    cells
        A row per labelled cell: ``label``; ``suggested_label``, the same unless the cell is an
        issue; ``probability`` of its own label; ``score``, by which cells are ranked;
        ``is_issue``; ``predicted_label``, the most probable one with the label prior; and
        ``fold``. Probability and score are missing for cells whose label no other fold has, which
        cannot be audited.
    labels
        A row per label, the highest share first: ``n_cells``, ``n_issues``, ``share`` of these,
        ``recall`` of the predictions, and ``threshold``, the mean probability of the label over
        its cells. The last three are missing for a label that cannot be audited.
    pairs
        A row per pair of labels, the most frequent first: ``label``, ``suggested_label``,
        ``n_cells``, ``share`` of the cells of the label, and ``genes``, which the suggested label
        and these cells express more than the given one.
    groups
        A row per ``column`` of ``obs`` and ``group`` of audited cells: ``n_cells``, ``n_issues``,
        and ``error``, ``expected`` and ``stands_out`` of
        :func:`~scvi_sctab.metrics.group_errors`.
    """

    cells: pd.DataFrame
    labels: pd.DataFrame
    pairs: pd.DataFrame
    groups: pd.DataFrame

    @property
    def is_audited(self) -> pd.Series:
        """Whether another fold has the label of each cell, so that a model could predict it."""
        return self.cells["score"].notna()

    def __repr__(self) -> str:
        n_issues = int(self.cells["is_issue"].sum())
        pairs = ", ".join(
            f"{row.label} -> {row.suggested_label} ({row.n_cells:,})"
            for row in self.pairs.head(3).itertuples()
        )
        most = f", most often {pairs}" if pairs else ""
        return (
            f"LabelAudit: {n_issues:,} of {self.is_audited.sum():,} labels contradict the predictions"
            f"{most}."
        )


def describe_issues(
    names: pd.Index,
    labels: NDArray[np.str_],
    given: NDArray[np.int64],
    issues: LabelIssues,
    predicted: NDArray[np.int64],
    folds: NDArray[np.int64],
    known: NDArray[np.bool_],
) -> pd.DataFrame:
    """Describe each cell of an audit, as of :class:`LabelAudit`.

    Parameters
    ----------
    names
        Names of the cells, ``(n_cells,)``.
    labels
        Names of the labels, ``(n_labels,)``.
    given
        Codes of the given labels, ``(n_cells,)``.
    issues
        Result of :func:`~scvi_sctab.metrics.find_label_issues` for the cells that are known.
    predicted
        Codes of the most probable labels, ``(n_cells,)``.
    folds
        Fold of each cell, ``(n_cells,)``.
    known
        Cells whose label another fold has, ``(n_cells,)``.
    """
    suggested = given.copy()
    suggested[known] = issues.suggested
    probability, score = np.full((2, len(given)), np.nan)
    probability[known], score[known] = issues.self_confidence, issues.score
    return pd.DataFrame(
        {
            "label": pd.Categorical.from_codes(given, categories=labels),
            "suggested_label": pd.Categorical.from_codes(suggested, categories=labels),
            "probability": probability,
            "score": score,
            "is_issue": suggested != given,
            "predicted_label": pd.Categorical.from_codes(predicted, categories=labels),
            "fold": folds,
        },
        index=names,
    )


def count_issues(cells: pd.DataFrame, thresholds: NDArray[np.float64]) -> pd.DataFrame:
    """Count the issues of each label, as of :class:`LabelAudit`.

    Parameters
    ----------
    cells
        Result of :func:`describe_issues`.
    thresholds
        Of :class:`~scvi_sctab.metrics.LabelIssues`.
    """
    right = cells["predicted_label"].astype(str) == cells["label"].astype(str)
    # A label that no other fold has cannot be predicted: neither its share nor its recall is 0.
    can_be = cells["score"].notna()
    shares = {"share": cells["is_issue"], "recall": right}
    shares = {name: values.astype(float).where(can_be) for name, values in shares.items()}
    grouped = cells.assign(**shares).groupby("label", observed=False)
    table = pd.DataFrame(
        {
            "n_cells": grouped.size(),
            "n_issues": grouped["is_issue"].sum().astype(int),
            "share": grouped["share"].mean(),
            "recall": grouped["recall"].mean(),
            "threshold": np.where(np.isfinite(thresholds), thresholds, np.nan),
        }
    )
    table = table[table["n_cells"] > 0]
    return table.set_axis(table.index.astype(str)).sort_values(
        "share", ascending=False, kind="stable"
    )


def count_pairs(cells: pd.DataFrame) -> pd.DataFrame:
    """Count the issues by given and suggested label, the most frequent pairs first.

    Parameters
    ----------
    cells
        Result of :func:`describe_issues`.
    """
    issues = cells[cells["is_issue"]]
    counts = issues.groupby(["label", "suggested_label"], observed=True).size()
    table = counts.rename("n_cells").reset_index()
    sizes = cells["label"].value_counts()
    table["label"], table["suggested_label"] = (
        table[name].astype(str) for name in ("label", "suggested_label")
    )
    table["share"] = [row.n_cells / sizes[row.label] for row in table.itertuples()]
    return table.sort_values("n_cells", ascending=False, kind="stable", ignore_index=True)


def count_groups(cells: pd.DataFrame, columns: Mapping[str, ArrayLike]) -> pd.DataFrame:
    """Count the issues of groups of cells, and compare their errors, as of :class:`LabelAudit`.

    Parameters
    ----------
    cells
        Result of :func:`describe_issues`.
    columns
        Group of each cell, ``(n_cells,)``, by the name of the column.
    """
    can_be = cells["score"].notna().to_numpy()
    cells = cells[can_be]
    wrong = (cells["predicted_label"].astype(str) != cells["label"].astype(str)).to_numpy()
    parts = []
    for column, values in columns.items():
        groups = pd.Series(np.asarray(values, dtype=object)[can_be])
        table = group_errors(groups, cells["label"].astype(str), wrong)
        known = groups.notna().to_numpy()
        n_issues = cells["is_issue"][known].groupby(groups[known].astype(str).to_numpy()).sum()
        table.insert(1, "n_issues", n_issues.reindex(table.index).astype(int))
        table = table.reset_index()
        table.insert(0, "column", column)
        parts.append(table)
    names = ["column", "group", "n_cells", "n_issues", "error", "expected", "stands_out"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)


def telling_genes(
    profiles: Profiles, given: int, suggested: int, issues: int, gene_names: NDArray[np.str_]
) -> tuple[str, ...]:
    """Return genes that a label and some cells express more than the label that these have.

    Parameters
    ----------
    profiles
        Expression of groups of cells.
    given, suggested, issues
        Rows of the given label, of the suggested one, and of the cells with the former.
    gene_names
        Names of the genes, ``(n_genes,)``.

    Returns
    -------
    At most five genes, the largest difference between the labels in standard deviations first. In
    the cells a gene has at least half of that difference.
    """
    if not profiles.n_cells[[given, suggested, issues]].all():
        return ()
    own, other, cells = profiles.mean[[given, suggested, issues]]
    gap = other - own
    spread = np.sqrt((profiles.sd[given] ** 2 + profiles.sd[suggested] ** 2) / 2) + _MIN_SD
    effect = np.where((gap > 0) & (cells - own >= gap / 2), gap / spread, 0.0)
    best = np.argsort(-effect, kind="stable")[:_N_GENES]
    return tuple(str(gene_names[gene]) for gene in best if effect[gene] > 0)
