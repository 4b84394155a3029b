"""Figures of the trust benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from _trust_novelty import DEFAULT

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

_SCORES = {
    "macro_f1": "macro F1 (more is better)",
    "ece": "expected calibration error (less is better)",
}


def draw_accuracy(rows: pd.DataFrame, path: Path) -> None:
    """Draw macro F1 and calibration error of every method on every task."""
    # Of the ensembles only the one of all members; the network of the paper is in the table.
    rows = rows[
        ~rows["method"].str.fullmatch(r"SCTABEnsemble \([1-4]\)|TabNet alone.*|.*weight.*")
    ]
    tasks, methods = rows["task"].unique(), rows["method"].unique()
    figure, axes = plt.subplots(1, 2, figsize=(11, 0.5 * len(tasks) + 1.8), layout="constrained")
    for ax, (score, title) in zip(axes, _SCORES.items(), strict=True):
        for number, method in enumerate(methods):
            own = rows[rows["method"] == method].groupby("task")[score]
            mean, sd = own.mean().reindex(tasks), own.std().reindex(tasks).fillna(0)
            height = np.arange(len(tasks)) + 0.7 * (number / max(len(methods) - 1, 1) - 0.5)
            ax.errorbar(mean, height, xerr=sd, fmt="o", markersize=5, label=method)
        ax.set(yticks=range(len(tasks)), ylim=(len(tasks) - 0.5, -0.5), xlabel=title)
        ax.hlines(np.arange(len(tasks) - 1) + 0.5, *ax.get_xlim(), color="0.9", zorder=0)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticklabels(tasks)
    axes[1].set_yticklabels([])
    axes[1].axvline(0.03, color="0.6", linestyle="--", linewidth=1, zorder=0)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_novelty(rows: pd.DataFrame, path: Path) -> None:
    """Draw how well cells of each type that was left out are told from the others."""
    table = rows.pivot_table(index=["task", "type"], columns="method", values="auroc")
    table = table.sort_values(["task", DEFAULT], ascending=[True, False])
    figure, ax = plt.subplots(figsize=(9, 0.3 * len(table) + 1.4), layout="constrained")
    height = np.arange(len(table))
    # Dark colours first, then the light ones: there are more scores than dark ones.
    colors = plt.get_cmap("tab20").colors[::2] + plt.get_cmap("tab20").colors[1::2]
    for method, color in zip(table, colors, strict=False):
        strong = method == DEFAULT
        ax.plot(
            table[method],
            height,
            "o" if "SCTAB" in method else "s",
            color=color,
            markersize=8 if strong else 5,
            label=method,
            zorder=3 if strong else 2,
        )
    ax.set_yticks(height, [f"{kind}  ({task})" for task, kind in table.index])
    ax.set(ylim=(len(table) - 0.5, -0.5), xlabel="AUROC of the cells of the type left out")
    ax.axvline(0.5, color="0.6", linestyle="--", linewidth=1, zorder=0)
    ax.grid(axis="y", color="0.92")
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)
