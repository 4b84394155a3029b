"""Three sentences on a trained model: held-out cells, hard labels, and the reference itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scvi_sctab.report._format import count, decimal, percent
from scvi_sctab.report._training_report import TrainingVerdict

if TYPE_CHECKING:
    from scvi_sctab.report._training_build import TrainingFindings
    from scvi_sctab.report._training_report import (
        AuditSummary,
        ConfusedPair,
        GroupErrors,
        HeldOut,
        LabelScore,
    )

LOW_F1 = 0.7
"""F1 below which a label is called hard to learn."""
_MIN_CONFUSED = 0.1


def reach_training_verdict(
    findings: TrainingFindings,
    scores: Sequence[LabelScore],
    held_out: HeldOut | None,
    pairs: Sequence[ConfusedPair],
    groups: Sequence[GroupErrors],
    audit: AuditSummary | None,
) -> TrainingVerdict:
    """Say in three sentences what a reader can rely on, and what to look at.

    Parameters
    ----------
    findings
        Frames of the report.
    scores, held_out, pairs, groups, audit
        Sections of the report.
    """
    known = [row.f1 for row in scores if row.f1 is not None]
    f1 = float(np.mean(known)) if known else None
    n_trained = sum(findings.n_trained.values())
    return TrainingVerdict(
        sentences=(
            _first(n_trained, held_out, f1, len(known)),
            _second(scores, pairs),
            _third(groups, audit),
        ),
        n_labels=len(scores),
        n_trained=n_trained,
        n_held_out=0 if held_out is None else held_out.n_held_out,
        accuracy=None if held_out is None else held_out.accuracy,
        f1_macro=f1,
        n_issues=None if audit is None else audit.n_issues,
    )


def _first(n_trained: int, held_out: HeldOut | None, f1: float | None, n_labels: int) -> str:
    if held_out is None or f1 is None:
        return (
            f"The model was trained on {count(n_trained)} cells and none is held out, so that "
            "nothing is known about cells that it has not seen."
        )
    return (
        f"Of {count(held_out.n_held_out)} held-out cells, {percent(held_out.accuracy)} got the "
        f"right label; the mean F1 of {count(n_labels)} labels is {decimal(f1)}, after training on "
        f"{count(n_trained)} cells."
    )


def _second(scores: Sequence[LabelScore], pairs: Sequence[ConfusedPair]) -> str:
    known = [row for row in scores if row.f1 is not None]
    if not known:
        return "Which labels are hard to learn is not known without held-out cells."
    hard = [row for row in known if row.f1 is not None and row.f1 < LOW_F1]
    n_unseen = len(scores) - len(known)
    unseen = f"; {count(n_unseen)} {'has' if n_unseen == 1 else 'have'} no held-out cell"
    first = f"No label has an F1 below {decimal(LOW_F1)}"
    if hard:
        named = ", ".join(f"{row.label} ({decimal(row.f1 or 0.0)})" for row in hard[:3])
        more = f" and {count(len(hard) - 3)} more" if len(hard) > 3 else ""
        are = "label is" if len(hard) == 1 else "labels are"
        first = f"{count(len(hard))} {are} hard to learn by F1: {named}{more}"
    confused = next((row for row in pairs if row.share_confused >= _MIN_CONFUSED), None)
    last = f"; no two labels are confused in {percent(_MIN_CONFUSED)} of their cells or more"
    if confused is not None:
        one, other = confused.labels
        last = f"; {one} and {other} are confused most"
    return f"{first}{unseen * bool(n_unseen)}{last}."


def _third(groups: Sequence[GroupErrors], audit: AuditSummary | None) -> str:
    out = [
        f"{row.group} ({column.column})"
        for column in groups
        for row in column.groups
        if row.stands_out
    ]
    n_out = sum(column.n_outstanding for column in groups)
    more = f" and {count(n_out - 3)} more" if n_out > 3 else ""
    stand = (
        f"{', '.join(out[:3])}{more} {'has' if n_out == 1 else 'have'} more errors than the labels "
        "explain"
        if out
        else "no donor or batch has more errors than its labels explain"
        if groups
        else "no donors or batches were set up to compare"
    )
    if audit is None:
        return f"{stand[0].upper()}{stand[1:]}; the labels of the reference were not audited."
    most = ""
    if audit.pairs:
        pair = audit.pairs[0]
        most = f", most often {pair.label} that look like {pair.suggested_label}"
    return (
        f"{count(audit.n_issues)} of {count(audit.n_cells)} labels ({percent(audit.share)}) "
        f"contradict models that were trained without their cells{most}; {stand}."
    )
