"""Tables of the imputation benchmark, beside the bars that it has to reach."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from _imputation_tasks import SETTINGS
from _report import as_markdown

# Smallest mean of matched - none and of matched - shuffled, in mnats; every seed must be above 0.
BARS = {
    "lines 30, 0.25": (25, 18),
    "lines 100, 0.25": (14, 12),
    "lines 300, 0.25": (6, 6),
    "lines 811, 0.25": (3, 3),
    "pbmc3k 30": (45, 22),
    "pbmc3k 100": (20, 12),
    "pbmc3k 300": (10, 9),
    "pbmc3k 1000": (5, 5),
    "kang 100": (25, 15),
}
# Gain of the model without bulk over the gene mean.
NONE_BARS = {"lines 30, 0.25": 34, "lines 300, 0.25": 74, "pbmc3k 300": 118}
N_SHOWN = 70_000


def mean_sd(values: Sequence[float] | pd.Series, digits: int = 1) -> str:
    """Mean and sample standard deviation."""
    values = np.asarray(values, dtype=float)
    text = f"{values.mean():.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {values.std(ddof=1):.{digits}f}"


def read(results: Path, part: str) -> pd.DataFrame:
    """Rows of a part, if it was run."""
    path = results / f"imputation_{part}.csv"
    return pd.read_csv(path, keep_default_na=False, na_values=[""]) if path.exists() else (
        pd.DataFrame()
    )  # fmt: skip


def paired(rows: pd.DataFrame, ours: tuple[str, str], other: tuple[str, str],
           column: str = "gain") -> pd.Series:  # fmt: skip
    """Differences of two methods by seed, each given by its name and its bulk."""
    first, second = (
        rows[(rows["method"] == m) & (rows["bulk"] == b)].set_index("seed")[column]
        for m, b in (ours, other)
    )
    return (first - second).dropna()


def verdict(passed: bool) -> str:
    """Mark of a bar."""
    return "reached" if passed else "**missed**"


def gains(grid: pd.DataFrame) -> list[str]:
    """Gain of each method over the gene mean."""
    text = []
    for setting, rows in grid.groupby("setting", sort=False):
        table = rows.groupby(["method", "bulk"], sort=False).agg(
            {
                "gain": mean_sd, "low": mean_sd, "mid": mean_sd, "high": mean_sd,
                "posterior": lambda v: "" if v.isna().all() else mean_sd(v),
            }
        )  # fmt: skip
        table.index = [f"{method}, {bulk}" for method, bulk in table.index]
        n_molecules = int(rows["molecules"].mean())
        table.index.name = f"{setting} ({n_molecules:,} molecules, {rows['seed'].nunique()} seeds)"
        text.append(as_markdown(table))
    return text


def bars_of_gain(grid: pd.DataFrame, method: str) -> str:
    """Bars A: matched bulk against none and against shuffled contrasts."""
    lines = {}
    for setting in map(str, SETTINGS):
        rows = grid[grid["setting"] == setting]
        cells = {}
        for name, kind, position in (("none", "none", 0), ("shuffled", "shuffled", 1)):
            d = paired(rows, (method, "matched"), (method, kind))
            bar = BARS.get(setting, (None, None))[position]
            cells[f"matched - {name}"] = f"{mean_sd(d)} [{d.min():.1f}]" if len(d) else "-"
            cells[f"bar ({name})"] = f"{bar or '-'}"
            if len(d) and bar is not None:
                passed = d.mean() >= bar and d.min() > 0
                cells[f"matched - {name}"] += "" if passed else " **missed**"
        lines[setting] = cells
    table = pd.DataFrame(lines).T
    table.index.name = f"A, {method}: mean ± sd [minimum]"
    return as_markdown(table)


def other_bars(grid: pd.DataFrame) -> list[str]:
    """Bars B, C and D of the factor model."""
    rows: list[tuple[str, str, str]] = []
    for setting in BARS:
        of = grid[grid["setting"] == setting]
        means = of.groupby(["method", "bulk"])["gain"].mean()
        without = {
            name: means[name, "none"]
            for name in ("kNN", "factor", "autoencoder")
            if (name, "none") in means.index
        }
        if ("factor", "matched") in means.index and without:
            best = max(without, key=lambda name: without[name])
            difference = means["factor", "matched"] - without[best]
            rows.append((f"B: {setting}, over the best without bulk ({best})",
                         f"{difference:+.1f}", verdict(difference >= 0)))  # fmt: skip
        if setting in NONE_BARS and ("factor", "none") in means.index:
            value = means["factor", "none"]
            rows.append((f"B: {setting}, none at least {NONE_BARS[setting]}",
                         f"{value:.1f}", verdict(value >= NONE_BARS[setting])))  # fmt: skip
        for kind, bar in (("shuffled", -3), ("gtex", -1)):
            d = paired(of, ("factor", kind), ("factor", "none"))
            if len(d) and (kind == "gtex" or of["molecules"].mean() >= N_SHOWN):
                rows.append((f"C: {setting}, {kind} - none at least {bar}", mean_sd(d),
                             verdict(d.mean() >= bar)))  # fmt: skip
        if setting in ("lines 300, 0.25", "pbmc3k 300"):
            low, high = (
                paired(of, ("factor", "matched"), ("factor", "none"), part)
                for part in ("low", "high")
            )
            if len(low):
                rows.append((f"D: {setting}, gain of low over high third",
                             f"{mean_sd(low)} over {mean_sd(high)}",
                             verdict(low.mean() > high.mean())))  # fmt: skip
    return [_frame(rows)]


def _frame(rows: list[tuple[str, str, str]]) -> str:
    table = pd.DataFrame(rows, columns=["bar", "value", ""]).set_index("bar")
    return as_markdown(table)


def over_peers(grid: pd.DataFrame) -> str:
    """Differences of factors with matched bulk to every other method, paired by seed."""
    rows: dict[str, dict[str, str]] = {}
    whole = grid[grid["setting"].isin(grid.loc[grid["method"] == "MAGIC-like", "setting"])]
    for setting, of in whole.groupby("setting", sort=False):
        for method, bulk in of[["method", "bulk"]].drop_duplicates().itertuples(index=False):
            if (method, bulk) != ("factor", "matched"):
                d = paired(of, ("factor", "matched"), (method, bulk))
                if len(d):
                    rows.setdefault(f"{method}, {bulk}", {})[str(setting)] = mean_sd(d)
    table = pd.DataFrame(rows).T.fillna("-")
    table.index.name = "factor, matched, minus"
    return as_markdown(table) if len(table) else ""


def told_gain(grid: pd.DataFrame) -> str:
    """Bar G: the gain that a user is told, against that on test molecules."""
    if not {"told", "chosen"} <= set(grid.columns):
        return ""
    factor = grid[grid["method"] == "factor"]
    none = factor[factor["bulk"] == "none"].set_index(["setting", "seed"])["gain"]
    rows = factor[factor["told"].notna()].set_index(["setting", "seed"])
    test = rows["gain"] - none.reindex(rows.index)
    told, kinds = rows["told"], rows["bulk"]
    large = test.abs() > 3
    shuffled = kinds == "shuffled"
    uses = rows["chosen"] == "full"
    r = float(np.corrcoef(told, test)[0, 1])
    right = int((np.sign(told) == np.sign(test))[large].sum())
    lines = [
        ("G: r of told and test gain, at least .95", f"{r:.3f} ({len(told)} fits)",
         verdict(r >= 0.95)),
        ("G: right sign where the test gain is above 3", f"{right} of {int(large.sum())}",
         verdict(right == large.sum())),
        ("C: shuffled contrasts are used by the rule of auto",
         f"{int(uses[shuffled].sum())} of {int(shuffled.sum())}",
         verdict(not uses[shuffled].any())),
    ]  # fmt: skip
    means = pd.DataFrame({"told": told, "test": test, "bulk": kinds}).groupby("bulk", sort=False)
    table = means.mean().round(1).astype(str)
    table.index.name = "gain over none, mean of the settings"
    return f"{_frame(lines)}\n\n{as_markdown(table)}"


def absent(rows: pd.DataFrame) -> list[str]:
    """Bars E: genes that cells lack."""
    columns = ["r", "r_top", "within_r", "conditional_gain", "assigned"]
    rows = rows.reindex(columns=["case", "seed", "method", "bulk", *columns, "n_genes"])
    shown = rows.groupby(["case", "method", "bulk"], sort=False)
    table = shown[columns].agg(lambda v: "" if v.isna().all() else mean_sd(v.dropna(), 3))
    table["n_genes"] = shown["n_genes"].mean().map("{:.0f}".format)
    table.index = [", ".join(names) for names in table.index]
    table.index.name = "absent genes"

    def of(case: str, kind: str, column: str) -> pd.Series:
        own = rows["case"].eq(case) & rows["bulk"].eq(kind) & rows["method"].eq("factor")
        return rows.loc[own, column]

    bars: list[tuple[str, pd.Series, Callable[[float], bool]]] = [
        ("E: panel 300, r at least .78", of("panel 300", "matched", "r"), lambda v: v >= 0.78),
        ("E: panel 300, assigned at least .97", of("panel 300", "matched", "assigned"),
         lambda v: v >= 0.97),
        ("E: panel 300, shuffled at most .1", of("panel 300", "shuffled", "r"),
         lambda v: v <= 0.1),
        ("E: panel 300, GTEx below .35", of("panel 300", "gtex", "r"), lambda v: v < 0.35),
        ("E: lines 300 hidden, r at least .77", of("hidden, lines 300", "matched", "r"),
         lambda v: v >= 0.77),
        ("E: lines 300 hidden, gain at least 50",
         of("hidden, lines 300", "matched", "conditional_gain"), lambda v: v >= 50),
        ("E: pbmc3k 300 hidden, r at least .25", of("hidden, pbmc3k 300", "matched", "r"),
         lambda v: v >= 0.25),
        ("E: pbmc3k 300 hidden, gain at least 50",
         of("hidden, pbmc3k 300", "matched", "conditional_gain"), lambda v: v >= 50),
    ]  # fmt: skip
    lines = [(name, mean_sd(v, 3), verdict(test(v.mean()))) for name, v, test in bars if len(v)]
    return [as_markdown(table), _frame(lines)]


def markers(rows: pd.DataFrame) -> list[str]:
    """Bars F: log ratios between lines."""
    columns = [c for c in rows.columns if c.endswith((": r", ": r_low"))]
    table = rows.groupby("setting", sort=False)[columns].agg(lambda v: mean_sd(v, 3)).T
    table.index.name = "r with 10x"
    lines = []
    for setting, bar in (("lines 30, 0.25", 0.83), ("lines 100, 0.25", None)):
        of = rows[rows["setting"] == setting]
        if of.empty:
            continue
        value = of["factor, matched: r"].mean()
        limit = of["bulk alone: r"].mean() if bar is None else bar
        lines.append((f"F: {setting}, matched at least {limit:.3f}", f"{value:.3f}",
                      verdict(value >= limit)))  # fmt: skip
    return [as_markdown(table), _frame(lines)]


def means_by(rows: pd.DataFrame, keys: list[str], columns: list[str], name: str) -> str:
    """Mean and sd of some columns."""
    grouped = rows.groupby(keys, sort=False)[columns].agg(lambda v: mean_sd(v, 3))
    grouped.index = [i if isinstance(i, str) else ", ".join(i) for i in grouped.index]
    grouped.index.name = name
    return as_markdown(grouped)


def write_report(results: Path) -> None:
    """Write ``imputation.md`` of all parts that were run."""
    parts = ["# Imputation with bulk", "Written by `benchmarks/imputation.py`."]
    grid = read(results, "grid")
    if len(grid):
        parts += ["## Held-out molecules", "Gain over the gene mean, in mnats per molecule."]
        parts += [bars_of_gain(grid, method) for method in ("factor", "autoencoder")]
        parts += [*other_bars(grid), told_gain(grid), over_peers(grid), *gains(grid)]
    for part, function in (("absent", absent), ("markers", markers)):
        rows = read(results, part)
        if len(rows):
            parts += [f"## {part.capitalize()}", *function(rows)]
    rows = read(results, "dropout")
    if len(rows):
        columns = ["rmse", "pcc", "rmse_matrix", "pcc_matrix"]
        parts += ["## Hidden non-zeros, the measure of scDTL",
                  means_by(rows, ["method", "bulk"], columns, "method")]  # fmt: skip
    rows = read(results, "panel_annotation")
    if len(rows):
        parts += ["## Annotation of a panel",
                  means_by(rows, ["way"], ["macro_f1", "accuracy"], "genes of the query")]  # fmt: skip
    rows = read(results, "cost")
    if len(rows):
        columns = ["seconds", "megabytes"]
        parts += ["## Cost", means_by(rows, ["method"], columns, "method")]
    (results / "imputation.md").write_text("\n\n".join(filter(None, parts)) + "\n")
