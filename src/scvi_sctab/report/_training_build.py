"""A training report from the frames of a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scvi_sctab.metrics import classification_report, group_errors
from scvi_sctab.report._held_out import (
    confused_pairs,
    describe_held_out,
    list_confusions,
    tabulate_confusion,
)
from scvi_sctab.report._training_report import (
    AuditCell,
    AuditLabel,
    AuditPair,
    AuditSummary,
    EpochRow,
    GroupError,
    GroupErrors,
    LabelScore,
    TrainingReport,
)
from scvi_sctab.report._training_verdict import reach_training_verdict
from scvi_sctab.report._types import color_labels

if TYPE_CHECKING:
    from scvi_sctab.annotation import LabelAudit
    from scvi_sctab.report._report import Confusion, Provenance
    from scvi_sctab.report._training_report import ConfusedPair

_MAX_EPOCHS = 100
_MAX_GROUPS = 40
_MAX_AUDIT_PAIRS, _MAX_AUDIT_CELLS = 20, 20
_CURVES = ("train_loss", "validation_loss", "validation_accuracy", "validation_f1_macro")


@dataclass(frozen=True, eq=False)
class TrainingFindings:
    """Frames that a training report is made of.

    Parameters
    ----------
    title
        Title of the page.
    labels
        Predictable labels of the model.
    histories
        History of each network, as of scvi-tools: a frame per curve, with a row per epoch.
    n_trained
        Number of cells by label that the model was trained on.
    held_out
        Data frame of :meth:`scvi_sctab.SCTAB.annotate` of the held-out cells; without rows if there
        are none.
    truth
        Their true labels, in the same order.
    columns
        Donors and batches of the held-out cells, by the name of the column, in the same order.
    provenance
        How to reproduce it.
    settings
        How the model was trained, as text.
    audit
        Audit of the labels, if there was one.
    can_audit
        Whether the labels of the model can be audited.
    """

    title: str
    labels: Sequence[str]
    histories: Sequence[Mapping[str, pd.DataFrame]]
    n_trained: Mapping[str, int]
    held_out: pd.DataFrame
    truth: Sequence[str]
    provenance: Provenance
    columns: Mapping[str, pd.Series] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    audit: LabelAudit | None = None
    can_audit: bool = True


def build_training_report(findings: TrainingFindings) -> TrainingReport:
    """Make a training report of frames.

    Parameters
    ----------
    findings
        Frames of a trained model.
    """
    truth, frame = [str(label) for label in findings.truth], findings.held_out
    predicted = [str(label) for label in frame["label"]] if truth else []
    scores = _score_labels(findings, truth, predicted)
    pairs: tuple[ConfusedPair, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    confusion, held_out = None, None
    if truth:
        right = np.asarray(truth) == np.asarray(predicted)
        pairs = confused_pairs(frame, truth, findings.labels)
        confusion = tabulate_confusion(truth, predicted)
        confusions = list_confusions(truth, predicted)
        held_out = describe_held_out(frame["probability"].to_numpy(), right)
    groups = _compare_groups(findings, truth, predicted)
    audit = None if findings.audit is None else summarize_audit(findings.audit)
    return TrainingReport(
        title=findings.title,
        verdict=reach_training_verdict(findings, scores, held_out, pairs, groups, audit),
        epochs=_list_epochs(findings.histories),
        scores=scores,
        confusion=confusion,
        confusions=confusions,
        held_out=held_out,
        pairs=pairs,
        groups=groups,
        audit=audit,
        provenance=findings.provenance,
        is_calibrated="prediction_set" in frame,
        can_audit=findings.can_audit,
        settings=dict(findings.settings),
    )


def summarize_audit(audit: LabelAudit) -> AuditSummary:
    """Take the numbers of an audit, and the first rows of its tables.

    Parameters
    ----------
    audit
        The audit.
    """
    cells = audit.cells[audit.is_audited]
    n_cells = len(cells)
    n_issues = int(cells["is_issue"].sum())
    right = (cells["predicted_label"].astype(str) == cells["label"].astype(str)).mean()
    first = cells[cells["is_issue"]].sort_values("score", ascending=False, kind="stable")
    return AuditSummary(
        n_cells=n_cells,
        n_not_audited=len(audit.cells) - n_cells,
        n_folds=int(audit.cells["fold"].nunique()),
        n_issues=n_issues,
        share=n_issues / max(n_cells, 1),
        accuracy=float(right) if n_cells else 0.0,
        labels=tuple(
            AuditLabel(
                str(label),
                int(row.n_cells),
                int(row.n_issues),
                _finite(row.share),
                _finite(row.recall),
            )
            for label, row in zip(audit.labels.index, audit.labels.itertuples(), strict=True)
        ),
        n_pairs=len(audit.pairs),
        pairs=tuple(
            AuditPair(row.label, row.suggested_label, int(row.n_cells), row.share, (*row.genes,))
            for row in audit.pairs.head(_MAX_AUDIT_PAIRS).itertuples()
        ),
        cells=tuple(
            AuditCell(
                str(row.Index),
                str(row.label),
                str(row.suggested_label),
                float(row.probability),
                float(row.score),
            )
            for row in first.head(_MAX_AUDIT_CELLS).itertuples()
        ),
    )


def _score_labels(
    findings: TrainingFindings, truth: Sequence[str], predicted: Sequence[str]
) -> tuple[LabelScore, ...]:
    """Score each label, those with the lowest F1 first, and those without held-out cells last."""
    table = classification_report(truth, predicted) if truth else pd.DataFrame()
    sizes = pd.Series(list(truth), dtype=str).value_counts()
    names, counts = list(findings.n_trained), list(findings.n_trained.values())
    cells = pd.Series(np.repeat(np.array(names, dtype=object), counts), dtype=object)
    colors = color_labels(findings.labels, cells)
    rows = []
    for name in map(str, findings.labels):
        own = table.loc[name] if sizes.get(name, 0) else None
        values = [
            None if own is None else float(own[key]) for key in ("precision", "recall", "f1")
        ]
        n_trained, n_held_out = int(findings.n_trained.get(name, 0)), int(sizes.get(name, 0))
        rows.append(LabelScore(name, colors[name], n_trained, n_held_out, *values))
    rows.sort(key=lambda row: (row.f1 is None, row.f1 or 0.0, row.label))
    return tuple(rows)


def _compare_groups(
    findings: TrainingFindings, truth: Sequence[str], predicted: Sequence[str]
) -> tuple[GroupErrors, ...]:
    """Compare donors and batches: all that were audited, else those of the held-out cells."""
    if findings.audit is not None and len(findings.audit.groups):
        tables = {
            str(column): own.set_index("group")
            for column, own in findings.audit.groups.groupby("column", sort=False)
        }
    else:
        wrong = [one != other for one, other in zip(truth, predicted, strict=True)]
        tables = {
            column: group_errors(values.to_numpy(), truth, wrong)
            for column, values in findings.columns.items()
            if truth
        }
    return tuple(_list_groups(column, table) for column, table in tables.items())


def _list_groups(column: str, table: pd.DataFrame) -> GroupErrors:
    table = table.sort_values("stands_out", ascending=False, kind="stable")
    return GroupErrors(
        column=column,
        n_groups=len(table),
        n_outstanding=int(table["stands_out"].sum()),
        groups=tuple(
            GroupError(
                group=str(group),
                n_cells=int(row.n_cells),
                n_issues=int(row.n_issues) if "n_issues" in table else None,
                error=float(row.error),
                expected=float(row.expected),
                stands_out=bool(row.stands_out),
            )
            for group, row in zip(table.index, table.itertuples(), strict=True)
        )[:_MAX_GROUPS],
    )


def _list_epochs(histories: Sequence[Mapping[str, pd.DataFrame]]) -> tuple[EpochRow, ...]:
    """List the curves of each network; of many epochs, evenly spread ones and the last."""
    rows = []
    for network, history in enumerate(histories):
        curves = {name: history[name].iloc[:, 0] for name in _CURVES if name in history}
        table = pd.DataFrame(curves).sort_index()
        if len(table) > _MAX_EPOCHS:
            # Epochs with a validation have the most to say.
            checked = table.iloc[:, 1:].notna().any(axis=1) if len(table.columns) > 1 else None
            if checked is not None and 0 < int(checked.sum()) <= _MAX_EPOCHS:
                table = table[checked | (np.arange(len(table)) == len(table) - 1)]
            chosen = np.linspace(0, len(table) - 1, min(_MAX_EPOCHS, len(table))).round()
            table = table.iloc[chosen.astype(int)]
        rows += [
            EpochRow(network, int(epoch), *(_finite(row.get(name)) for name in _CURVES))
            for epoch, row in zip(table.index, table.to_dict("records"), strict=True)
        ]
    return tuple(rows)


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None
