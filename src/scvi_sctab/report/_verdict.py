"""Three sentences on an annotation: labels, novelty, and the ground of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scvi_sctab.annotation import MIN_CELLS_TO_COMPARE, STATUS
from scvi_sctab.report._format import count, percent
from scvi_sctab.report._report import TypeRow, Verdict

if TYPE_CHECKING:
    import pandas as pd

    from scvi_sctab.report._build import Findings


def reach_verdict(frame: pd.DataFrame, types: Sequence[TypeRow], findings: Findings) -> Verdict:
    """Count cells by status, and say in three sentences what a reader can rely on.

    Parameters
    ----------
    frame
        A row per cell, as of :meth:`scvi_sctab.SCTAB.annotate`.
    types
        Rows of the table of types.
    findings
        Frames of the report.
    """
    n_cells = len(frame)
    largest = ", ".join(f"{row.label} ({percent(row.share)})" for row in types[:3])
    most = f"the largest {'type is' if len(types) == 1 else 'types are'} {largest}"
    if "status" not in frame:
        sentences = (
            f"{_cells(n_cells)} got one of {count(len(types))} labels; {most}.",
            "Which labels are certain, and which cells are of a type that the model does not know, "
            "is not stated.",
            "The model is not calibrated: probabilities are those of the network.",
        )
        return Verdict(sentences, n_cells, len(types))
    counts = {f"n_{name}": int((frame["status"] == name).sum()) for name in STATUS}
    rate = findings.rates.false_alarm_rate
    n_novel, n_expected = counts["n_novel"], round(rate * n_cells)
    low = counts["n_low_quality"]
    ambiguous = counts["n_ambiguous"]
    few = f" and {count(low)} have too few molecules" if low else ""
    first = (
        f"{count(counts['n_confident'])} of {_cells(n_cells)} "
        f"({percent(counts['n_confident'] / n_cells)}) have one confident label, "
        f"{count(ambiguous) if ambiguous else 'none'} {'is' if ambiguous < 2 else 'are'} ambiguous"
        f"{few}; {most}."
    )
    second = (
        f"{count(n_novel)} ({percent(n_novel / n_cells)}) look like no type of the model, where "
        f"about {count(n_expected)} are expected by chance at a false-alarm rate of "
        f"{percent(rate)}."
    )
    tested = findings.shift is not None and n_cells >= MIN_CELLS_TO_COMPARE
    third = _third(findings, tested)
    return Verdict(
        (first, second, third),
        n_cells,
        len(types),
        **counts,
        n_novel_expected=n_expected,
        shifted=bool(findings.difference) if tested else None,
        n_trained=findings.n_trained,
    )


def _third(findings: Findings, tested: bool) -> str:
    difference, n_trained = findings.difference, findings.n_trained
    if n_trained:
        return (
            f"The model was trained on {count(n_trained)} of these cells, so that their "
            "probabilities are too high and no rate holds."
        )
    if not tested:
        return (
            "These are too few cells to test whether they are like those that the model was "
            "calibrated on, so that rates are stated without that test."
        )
    if difference:
        return (
            f"The cells differ from those that the model was calibrated on, by {difference}: "
            "check labels with markers, since rates may not hold."
        )
    return (
        "The cells are like those that the model was calibrated on, so that the stated rates can "
        "be expected to hold."
    )


def _cells(n: int) -> str:
    return f"{count(n)} cell" + ("" if n == 1 else "s")
