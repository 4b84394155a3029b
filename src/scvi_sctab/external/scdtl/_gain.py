"""Gain of bulk, measured on held-out molecules of the user's own cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from scvi_sctab.metrics import HeldOutScores

_COMPARED = (
    ("none", "gene mean"),
    ("level", "none"),
    ("full", "none"),
    ("full", "level"),
    ("full", "shuffled"),
    ("shuffled", "none"),
)
# Standard errors by which bulk has to be better than none.
_N_ERRORS = 2.0


def gain_table(scores: Mapping[str, HeldOutScores]) -> pd.DataFrame:
    """Compare uses of bulk by held-out molecules.

    Parameters
    ----------
    scores
        Scores of the same molecules by use of bulk, and of the ``"gene mean"``.

    Returns
    -------
    A row per pair of uses and per third of genes by expression: ``use``, ``over``, ``genes``,
    ``gain`` and ``se`` in thousandths of a nat per molecule (mnats), and ``n_molecules``.
    """
    frames = []
    for use, over in _COMPARED:
        if use in scores and over in scores:
            gain = scores[use].gain_over(scores[over]).reset_index()
            frames.append(gain.assign(use=use, over=over))
    table = pd.concat(frames, ignore_index=True)
    table[["gain", "se"]] *= 1000
    return table[["use", "over", "genes", "gain", "se", "n_molecules"]]


def describe_gain(table: pd.DataFrame) -> str:
    """Summarise a table of :func:`gain_table` in a line per pair of uses.

    Parameters
    ----------
    table
        The table.
    """
    lines = ["Gain on held-out molecules in mnats, with its standard error:"]
    for (use, over), rows in table.groupby(["use", "over"], sort=False):
        gains = rows.set_index("genes")
        total = gains.loc["all"]
        thirds = ", ".join(
            f"{name} {gain:.1f}" for name, gain in gains["gain"].drop("all").items()
        )
        lines.append(
            f"  {use} over {over}: {total['gain']:.1f} +- {total['se']:.1f}"
            f" (genes of expression {thirds})"
        )
    return "\n".join(lines)


def choose_use(scores: Mapping[str, HeldOutScores]) -> tuple[str, str]:
    """Choose the use of bulk with the best held-out likelihood.

    Parameters
    ----------
    scores
        Scores by use of bulk, ``"none"`` among them.

    Returns
    -------
    The use, and a text that says why contrasts of bulk are not used; empty if they are. They are
    not if their gain over no bulk, or over the level alone, is below two standard errors.
    """

    def gain(use: str, over: str) -> tuple[float, float]:
        row = scores[use].gain_over(scores[over]).loc["all"]
        return 1000 * float(row["gain"]), 1000 * float(np.nan_to_num(row["se"]))

    simple = "none"
    if "level" in scores and gain("level", "none")[0] > 0:
        simple = "level"
    if "full" not in scores:
        return simple, ""
    for over in dict.fromkeys(("none", simple)):
        value, error = gain("full", over)
        # A gain that is not a number is no reason to use bulk.
        if not (value > 0 and value >= _N_ERRORS * error):
            what = {"none": "no bulk", "level": "the level of genes alone"}[over]
            return simple, (
                f"The contrasts of bulk are not used: on held-out molecules they gain {value:.1f} "
                f"mnats over {what} (standard error {error:.1f})."
            )
    return "full", ""
