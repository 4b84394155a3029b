"""Tables and the plot of the pretraining benchmark."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _report import as_markdown
from _table import Table

KEYS = ["method", "task", "seed"]
OURS = ("MAE", "SCTAB", "Barlow", "BYOL", "autoencoder")


def table_of(part: str, args: Namespace) -> Table:
    """Rows of a part."""
    return Table(args.out / f"pretraining_{part}.csv", KEYS, args.merge or args.report_only)


def choose(methods: dict[str, Any], only: list[str] | None) -> dict[str, Any]:
    """Methods to run; one that cannot run is named in a loud line.

    Raises
    ------
    SystemExit
        If none of `only` is known.
    """
    chosen = {key: method for key, method in methods.items() if not only or key in only}
    if not chosen:
        raise SystemExit(f"unknown method {', '.join(only)}; choose from {', '.join(methods)}.")
    for key, method in chosen.items():
        if method.missing:
            print(f"!!! SKIPPED: {key}: {method.missing}", flush=True)
    return {key: method for key, method in chosen.items() if not method.missing}


def _text(values: pd.Series, form: str = "{:.3f}") -> str:
    """``mean ± sd``; no sd for one run."""
    text = form.format(values.mean())
    return text if len(values) < 2 else f"{text} ± {values.std():.3f}"


def tasks_table(runs: pd.DataFrame, metric: str = "macro_f1") -> str:
    """Methods in rows, the best first; tasks in columns, ``mean ± sd`` over seeds; and seconds.

    Parameters
    ----------
    runs
        One row per method, task and seed.
    metric
        Column to show.
    """
    tasks = list(dict.fromkeys(runs["task"]))
    rows = {}
    best = runs.groupby("method")[metric].mean().sort_values(ascending=False)
    for method in best.index:
        part = runs[runs["method"] == method]
        cells = {task: part.loc[part["task"] == task, metric] for task in tasks}
        rows[method] = {task: _text(v) if len(v) else "-" for task, v in cells.items()}
        rows[method]["seconds"] = f"{part['seconds'].median():.0f}"
    return as_markdown(pd.DataFrame(rows).T.rename_axis(index=metric))


def _by_seed(part: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, set[str]]:
    """Seeds in rows, methods in columns; and those that stand in every row, being deterministic."""
    wide = part.pivot_table(index="seed", columns="method", values=metric, sort=False)
    fixed = part.loc[part.get("deterministic", pd.Series(False, part.index)).eq(True), "method"]
    for method in fixed.unique():
        wide[method] = wide[method].dropna().iloc[0]
    return wide.sort_index(), set(fixed)


def paired_table(runs: pd.DataFrame, baselines: list[str], metric: str = "macro_f1") -> str:
    """Differences to each baseline, paired by seed: ``mean ± sd (wins of pairs)``.

    Parameters
    ----------
    runs
        One row per method, task and seed; one that is ``deterministic`` pairs with every seed.
    baselines
        Methods to compare with; those that did not run are left out.
    metric
        Column to compare.
    """
    rows = {}
    for task, part in runs.groupby("task", sort=False):
        wide, fixed = _by_seed(part, metric)
        for method in wide.columns:
            for baseline in (b for b in baselines if b in wide and b != method):
                change = (wide[method] - wide[baseline]).dropna()
                change = change[:1] if {method, baseline} <= fixed else change
                if len(change):
                    wins = f"{(change > 0).sum()} of {len(change)}"
                    text = f"{_text(change, '{:+.3f}')} ({wins})"
                    rows.setdefault(f"{task}: {method}", {})[f"against {baseline}"] = text
    table = pd.DataFrame(rows).T.fillna("-")
    return as_markdown(table.rename_axis(index=f"{metric}, paired by seed"))


def draw_tasks(runs: pd.DataFrame, path: Path, metric: str = "macro_f1") -> None:
    """Dots per run and a bar at the mean, a panel per task, the best methods first.

    Parameters
    ----------
    runs
        One row per method, task and seed.
    path
        File to write.
    metric
        Column to show.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    tasks = list(dict.fromkeys(runs["task"]))
    panels = [runs[runs["task"] == task] for task in tasks]
    tallest = max(part["method"].nunique() for part in panels)
    size = (10, (1.2 + 0.2 * tallest) * -(-len(tasks) // 2) + 0.6)
    fig, axes = plt.subplots(-(-len(tasks) // 2), 2, figsize=size, layout="constrained")
    for ax in axes.ravel()[len(tasks) :]:
        ax.remove()
    for ax, task, part in zip(axes.ravel(), tasks, panels, strict=False):
        order = part.groupby("method")[metric].mean().sort_values(ascending=False).index
        for height, method in enumerate(order):
            values = part.loc[part["method"] == method, metric]
            colour = "tab:orange" if method.startswith(OURS) else "tab:blue"
            ax.plot(values, np.full(len(values), height), "o", markersize=3.5, color=colour)
            ax.plot(values.mean(), height, "|", markersize=13, color=colour, markeredgewidth=2)
        names = [name.replace("logistic regression", "LR") for name in order]
        ax.set_yticks(range(len(order)), names, fontsize=8)
        ax.set_ylim(len(order) - 0.5, -0.5)
        ax.set_title(task, fontsize=9)
        ax.grid(axis="x", color="0.9")
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    title = metric.replace("_f1", " F1").replace("_", " ")
    fig.supxlabel(f"{title} of the query (dots: seeds; LR: logistic regression)", fontsize=10)
    part_path = path.with_name(f"{path.name}.part")
    fig.savefig(part_path, dpi=150, format="png")
    plt.close(fig)
    part_path.replace(path)
