"""Tables and plots of the mapping benchmark, in addition to those of `_report`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from _report import as_markdown, method_order


def _text(values: pd.Series, form: str) -> str:
    """``mean ± sd``; no sd for one run."""
    text = form.format(values.mean())
    return text if len(values) < 2 else f"{text} ± {form.format(values.std())}"


def differences(runs: pd.DataFrame, baseline: str, metric: str = "macro_f1") -> str:
    """Mean over tasks, difference to `baseline` paired by seed, and the worst task, per method.

    Parameters
    ----------
    runs
        One row per method, task and seed.
    baseline
        The method to compare with.
    metric
        Column to compare.

    Returns
    -------
    Markdown. The sd is over seeds, of the mean over the tasks that both ran.
    """
    wide = runs.pivot_table(index=["task", "seed"], columns="method", values=metric, sort=False)
    rows = {}
    for method in method_order(runs):
        both = wide[[method]].assign(base=wide[baseline]).dropna()
        change = both[method] - both["base"]
        by_task = change.groupby("task", sort=False).mean()
        rows[method] = {
            f"mean {metric}": _text(both[method].groupby("seed").mean(), "{:.4f}"),
            f"against {baseline}": _text(change.groupby("seed").mean(), "{:+.4f}"),
            "worst task": f"{by_task.min():+.4f} ({by_task.idxmin()})",
            "tasks": str(len(by_task)),
        }
    return as_markdown(pd.DataFrame(rows).T.rename_axis(index="method"))


def columns_table(runs: pd.DataFrame, columns: Mapping[str, str]) -> str:
    """Method and task in rows, one column each, ``mean ± sd`` over seeds in the cells.

    Parameters
    ----------
    runs
        One row per method, task and seed.
    columns
        Columns of `runs`, and either a format or a title, by which three digits are shown.
    """
    rows = {}
    for (method, task), part in runs.groupby(["method", "task"], sort=False):
        rows[f"{method}: {task}"] = {
            (column if "{" in form else form): _text(
                part[column], form if "{" in form else "{:.3f}"
            )
            for column, form in columns.items()
        }
    return as_markdown(pd.DataFrame(rows).T.rename_axis(index="mean ± sd over seeds"))


def plot_integration(runs: pd.DataFrame, path: Path) -> None:
    """Batch correction against bio conservation, a panel per task, bars are one sd over seeds.

    Parameters
    ----------
    runs
        One row per method, task and seed.
    path
        File to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    tasks, methods = list(dict.fromkeys(runs["task"])), method_order(runs)
    fig, axes = plt.subplots(
        1, len(tasks), figsize=(4.2 * len(tasks), 4.2), layout="constrained", squeeze=False
    )
    axis_names = ("Batch correction", "Bio conservation")
    for ax, task in zip(axes[0], tasks, strict=True):
        for number, method in enumerate(methods):
            part = runs[(runs["task"] == task) & (runs["method"] == method)]
            if part.empty:
                continue
            (x, y), (dx, dy) = part[[*axis_names]].mean(), part[[*axis_names]].std().fillna(0.0)
            marker = "D" if method.startswith("SCTAB") else "o"
            ax.errorbar(x, y, dy, dx, fmt=marker, color=f"C{number}", elinewidth=1, markersize=7)
        ax.set_title(task, fontsize=10)
        ax.set_xlabel("batch correction")
        ax.grid(color="0.9")
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("bio conservation")
    marks = [
        plt.Line2D([], [], linestyle="none", color=f"C{number}", label=method, markersize=7)
        for number, method in enumerate(methods)
    ]
    for mark, method in zip(marks, methods, strict=True):
        mark.set_marker("D" if method.startswith("SCTAB") else "o")
    fig.legend(
        handles=marks, loc="outside lower center", ncols=min(3, 2 * len(tasks)), frameon=False
    )
    fig.savefig(path, dpi=150)
    plt.close(fig)
