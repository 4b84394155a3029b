"""Summary table and dot plot of the accuracy benchmark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

MEAN = "mean over tasks"
FAMILY_MEAN = "mean over families"


def method_order(runs: pd.DataFrame) -> list[str]:
    """Methods as they appear in `runs`, ours first."""
    return sorted(dict.fromkeys(runs["method"]), key=lambda name: not name.startswith("SCTAB"))


def has_folds(runs: pd.DataFrame) -> bool:
    """Whether a family has several tasks, so that the mean over families is another one."""
    return runs["family"].nunique() < runs["task"].nunique()


def summarise(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean and standard deviation over seeds, per method and task and over tasks.

    Parameters
    ----------
    runs
        One row per method, task and seed with columns ``method``, ``task``, ``family``, ``seed``
        and `metric`.
    metric
        Column to summarise.

    Returns
    -------
    Columns ``method``, ``task``, ``mean``, ``sd`` (sample standard deviation over seeds, NaN for
    a single run) and ``n``. The two means over tasks are taken per seed first, so their sd is
    that of the mean; a method that did not run every task has none. Where every family has one
    task there is one mean.
    """
    if runs.empty:
        return pd.DataFrame(columns=["method", "task", "mean", "sd", "n"])
    rows = [runs[["method", "task", "seed", metric]]]
    n_tasks = runs["task"].nunique()
    means = [(MEAN, []), (FAMILY_MEAN, ["family"])]
    for name, levels in means[: 1 + has_folds(runs)]:
        keys = ["method", "seed"]
        whole = runs.groupby(keys)["task"].transform("nunique") == n_tasks
        over = runs[whole]
        if levels:
            over = over.groupby(keys + levels, as_index=False)[metric].mean()
        over = over.groupby(keys, as_index=False)[metric].mean()
        rows.append(over.assign(task=name))
    grouped = pd.concat(rows).groupby(["method", "task"], sort=False)[metric]
    return grouped.agg(mean="mean", sd="std", n="count").reset_index()


def format_table(runs: pd.DataFrame, metric: str) -> str:
    """Tasks in rows, methods in columns, ``mean ± sd`` in the cells (no sd for one run)."""
    summary = summarise(runs, metric)
    text = summary["mean"].map("{:.3f}".format)
    text += summary["sd"].map(lambda sd: "" if np.isnan(sd) else f" ± {sd:.3f}")
    summary["text"] = text
    wide = summary.pivot(index="task", columns="method", values="text")
    tasks = [*dict.fromkeys(runs["task"]), *(MEAN, FAMILY_MEAN)[: 1 + has_folds(runs)]]
    wide = wide.reindex(index=tasks, columns=method_order(runs)).fillna("-")
    seconds = runs.groupby("method")["seconds"].sum() / runs.groupby("method")["seed"].nunique()
    wide.loc["seconds, all tasks"] = seconds.reindex(wide.columns).map("{:.0f}".format)
    return as_markdown(wide.rename_axis(index=metric))


def as_markdown(table: pd.DataFrame) -> str:
    """Markdown table with columns padded to one width each."""
    lines = [[str(table.index.name), *table.columns]]
    lines += [[str(index), *row] for index, row in zip(table.index, table.to_numpy(), strict=True)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(w) for cell, w in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def plot(runs: pd.DataFrame, path: Path) -> None:
    """Dot plot of macro F1: one line per task, one colour per method, bars are one sd."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    summary = summarise(runs, "macro_f1")
    tasks = [t for t in [*dict.fromkeys(runs["task"]), MEAN] if t in set(summary["task"])]
    methods = method_order(runs)
    offsets = np.linspace(-0.3, 0.3, len(methods)) if len(methods) > 1 else np.zeros(1)
    colours = plt.get_cmap("tab10" if len(methods) <= 10 else "tab20")
    fig, ax = plt.subplots(figsize=(9, 1.2 + 0.75 * len(tasks)), layout="constrained")
    for number, (method, offset) in enumerate(zip(methods, offsets, strict=True)):
        rows = summary[summary["method"] == method].set_index("task").reindex(tasks)
        style = {"marker": "D" if method.startswith("SCTAB") else "o", "markersize": 6}
        y = np.arange(len(tasks)) + offset
        error = rows["sd"].fillna(0.0)
        ax.errorbar(
            rows["mean"], y, xerr=error, fmt="none", ecolor=colours(number), elinewidth=1.2
        )
        ax.plot(rows["mean"], y, linestyle="none", color=colours(number), label=method, **style)
    for line in np.arange(len(tasks) - 1) + 0.5:
        ax.axhline(line, color="0.9", linewidth=0.8, zorder=0)
    ax.set_yticks(range(len(tasks)), tasks)
    ax.invert_yaxis()
    ax.set_xlabel("macro F1 of the query (mean, bars: sd over seeds)")
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    fig.legend(loc="outside lower center", ncols=3, frameon=False)
    part = path.with_name(f"{path.name}.part")
    fig.savefig(part, dpi=150, format="png")
    plt.close(fig)
    part.replace(path)
