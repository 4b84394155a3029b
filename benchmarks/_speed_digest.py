"""Main results of the speed benchmark, as Markdown tables for the documentation."""

from __future__ import annotations

import pandas as pd
from _report import as_markdown
from _speed_floor import FLOOR
from _speed_network import BATCH, OURS
from _speed_report import number

TRAINED = "after"
"""How the cases begin whose networks have trained for some steps."""


def _median(runs: pd.DataFrame, case: str, method: str, quantity: str) -> float:
    """Median of the one row whose case holds `case`; NaN where there is none."""
    chosen = runs["case"].str.contains(case, regex=False)
    chosen &= (runs["method"] == method) & (runs["quantity"] == quantity)
    values = runs.loc[chosen, "median"]
    return float(values.iloc[0]) if len(values) else float("nan")


def _network(runs: pd.DataFrame) -> pd.DataFrame:
    trained = runs[runs["case"].str.startswith(TRAINED)]
    timed = trained[trained["quantity"] == "time per batch"]
    table = {}
    for case, method, seconds in zip(timed["case"], timed["method"], timed["median"], strict=True):
        job = case.rpartition(", ")[2]
        table[f"{job}, {method}"] = {
            "cells/s": BATCH / seconds,
            "times as long": seconds / _median(timed, job, OURS, "time per batch"),
            "peak memory, MiB": _median(runs, f"batch of {BATCH:,}, {job}", method, "peak memory"),
        }
    return pd.DataFrame(table).T.rename_axis("")


def _by_method(runs: pd.DataFrame, quantities: dict[str, str]) -> pd.DataFrame:
    """A row per method, a column per quantity; ratios go by the first quantity."""
    table = runs.pivot_table(
        index="method", columns="quantity", values="median", sort=False, dropna=False
    )
    table = table[list(quantities)].rename(columns=quantities)
    first = next(iter(quantities))
    ratios = runs[runs["quantity"] == first].set_index("method")["ratio"]
    table.insert(1, "times as long", ratios)
    return table.rename_axis(index="")


def _floor(runs: pd.DataFrame) -> pd.DataFrame:
    timed = runs[runs["quantity"] == "time per batch"]
    table = timed.pivot_table(index="case", columns="method", values="median", sort=False) * 1e3
    table["times the floor"] = table[OURS] / table[FLOOR]
    columns = {FLOOR: "floor, ms", OURS: "SCTAB, ms"}
    return table.rename(columns=columns)[[*columns.values(), "times the floor"]].rename_axis("")


def digest(runs: pd.DataFrame) -> str:
    """The tables of the parts that were run."""
    makers = {
        "network": ("The published network, batches of 2,048 cells, 19,331 genes", _network),
        "predict": (
            "Cells to labels, 164 types",
            lambda part: _by_method(
                part,
                {"time": "seconds", "cells per second": "cells/s", "peak memory": "memory, MiB"},
            ),
        ),
        "train": (
            "Training on the bundled eight donors",
            lambda part: _by_method(part, {"time of training": "seconds"}),
        ),
        "floor": ("The floor, batches of 2,048 cells", _floor),
    }
    lines = []
    for name, (title, make) in makers.items():
        part = runs[runs["part"] == name]
        if len(part):
            body = make(part).map(number)
            lines += [f"**{title}**", "", as_markdown(body), ""]
    return "\n".join(lines)
