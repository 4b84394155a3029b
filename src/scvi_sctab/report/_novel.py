"""Novel cells by nearest label, and populations."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from scvi_sctab.report._report import NovelGroup, Population
from scvi_sctab.report._types import best_genes

_N_GENES = 8


def summarize_novel(frame: pd.DataFrame, markers: pd.DataFrame | None) -> tuple[NovelGroup, ...]:
    """Summarise novel cells by the label that they are nearest to, the largest group first.

    Parameters
    ----------
    frame
        A row per cell: ``label``, and ``status`` if the model is calibrated.
    markers
        Genes of novel cells; ``group`` is the label.
    """
    if "status" not in frame:
        return ()
    sizes = frame["label"].value_counts()
    counts = frame.loc[frame["status"] == "novel", "label"].value_counts()
    return tuple(
        NovelGroup(
            str(name), int(n), float(n / sizes[name]), best_genes(markers, str(name), _N_GENES)
        )
        for name, n in counts.items()
        if n
    )


def list_populations(frame: pd.DataFrame | None) -> tuple[Population, ...]:
    """Return the populations, the highest score first; those without a score as they are given.

    Parameters
    ----------
    frame
        A row per population: ``population``, as a column or the index, ``nearest_label``,
        ``n_cells``; and if known ``p_value``, ``q_value``, ``markers``, names or one text,
        ``novel``, ``score`` and ``possible_cause``.

    Raises
    ------
    ValueError
        If one of the first three columns is missing.
    """
    if frame is None:
        return ()
    if frame.index.name == "population":
        frame = frame.reset_index()
    needed = ("population", "nearest_label", "n_cells")
    if lacking := [name for name in needed if name not in frame]:
        raise ValueError(
            f"populations lack {', '.join(map(repr, lacking))}: pass a row per population with "
            f"{', '.join(needed)}."
        )
    rows = [
        Population(
            population=str(row["population"]),
            nearest_label=str(row["nearest_label"]),
            n_cells=int(row["n_cells"]),
            p_value=_number(row.get("p_value")),
            q_value=_number(row.get("q_value")),
            genes=_names(row.get("markers")),
            novel=_flag(row.get("novel")),
            score=_number(row.get("score")),
            possible_cause=_text(row.get("possible_cause")),
        )
        for row in frame.to_dict(orient="records")
    ]
    return tuple(sorted(rows, key=lambda row: math.inf if row.score is None else -row.score))


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _flag(value: Any) -> bool | None:
    return None if pd.isna(value) else bool(value)


def _text(value: Any) -> str:
    return "" if pd.isna(value) else str(value)


def _names(value: Any) -> tuple[str, ...]:
    if value is None or isinstance(value, float):
        return ()
    names = value.replace(",", " ").split() if isinstance(value, str) else value
    return tuple(str(name) for name in names)[:_N_GENES]
