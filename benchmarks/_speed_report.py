"""Tables and the plot of the speed benchmark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from _report import as_markdown
from _speed_scaling import ABOVE, DATA, EPOCH, PREDICT, TIME, TRAIN, slope

TITLES = {
    "network": "The full-size network, one batch",
    "predict": "Cells to labels",
    "train": "Training",
    "scaling": "Growth with cells and counts",
    "profile": "Where our time goes",
    "floor": "The floor",
}
# Okabe and Ito's blue, vermilion and green, told apart by all eyes.
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"


def number(value: float) -> str:
    """Three significant digits, no exponent."""
    if not np.isfinite(value):
        return ""
    if value == 0 or abs(value) < 1e-4:
        return f"{value:.1e}" if value else "0"
    digits = max(0, 2 - int(np.floor(np.log10(abs(value)))))
    return f"{value:,.{digits}f}"


def table(runs: pd.DataFrame) -> str:
    """Markdown table of one part."""
    spread = [
        f"{number(low)}..{number(high)}" if n > 1 else ""
        for low, high, n in zip(runs["low"], runs["high"], runs["runs"], strict=True)
    ]
    columns = {
        "method": runs["method"],
        "quantity": runs["quantity"] + " (" + runs["unit"] + ")",
        "median": runs["median"].map(number),
        "min..max": spread,
        "runs": runs["runs"].astype(str),
        "ratio": runs["ratio"].map(number),
        "note": runs["note"].fillna(""),
    }
    shown = pd.DataFrame(columns)
    shown["quantity"] = shown["quantity"].str.replace(" (1)", "", regex=False)
    shown = shown.replace("|", r"\|", regex=False)
    return as_markdown(shown.set_index(runs["case"].rename("case")))


def report(runs: pd.DataFrame) -> str:
    """All parts that were run, as Markdown."""
    lines = [
        "Medians and min..max of runs that take turns in one process; `ratio` is the median over "
        "that of the first method of the group; above 1 is slower or larger, but for cells per "
        "second. Memory is the peak above the imports, in a "
        "process of its own.",
    ]
    for part in [part for part in TITLES if part in set(runs["part"])]:
        chosen = runs[runs["part"] == part]
        lines += ["", f"## {TITLES[part]}", "", chosen["machine"].iloc[0] + ".", ""]
        lines.append(table(chosen))
    return "\n".join(lines) + "\n"


def _points(runs: pd.DataFrame, method: str, quantity: str) -> tuple[list[float], list[float]]:
    """Cells and values of one curve of the part ``scaling``."""
    chosen = runs["case"].str.fullmatch(r"[\d,]+ cells")
    chosen &= (runs["method"] == method) & (runs["quantity"] == quantity)
    points = runs[chosen]
    cells = points["case"].str.removesuffix(" cells").str.replace(",", "").astype(float)
    return list(cells), list(points["median"])


def plot(runs: pd.DataFrame, path: Path) -> None:
    """Time and memory against the number of cells, with the exponent of each curve."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    runs = runs[runs["part"] == "scaling"]
    panels = (
        ("seconds", ((PREDICT, TIME, BLUE, "o"), (TRAIN, EPOCH, VERMILION, "s"))),
        ("MiB", ((TRAIN, ABOVE, VERMILION, "s"), (TRAIN, DATA, GREEN, "^"))),
    )
    fig, axes = plt.subplots(1, 2, figsize=(9.5, 4.2), layout="constrained")
    for ax, (unit, curves) in zip(axes, panels, strict=True):
        for method, quantity, colour, marker in curves:
            cells, values = _points(runs, method, quantity)
            if len(cells) < 2 or min(values) <= 0:
                continue
            name = {
                TIME: "predict, published network",
                EPOCH: "an epoch, small preset",
                ABOVE: "training beyond the data",
                DATA: "the data itself (CSR)",
            }[quantity]
            label = f"{name}: slope {slope(cells, values):.2f}"
            ax.loglog(cells, values, color=colour, marker=marker, markersize=5, label=label)
        ax.set_xlabel("cells")
        ax.set_ylabel(unit)
        ax.grid(color="0.92")
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, loc="upper left", fontsize=9)
        ticks = sorted({x for line in ax.lines for x in line.get_xdata()})
        ax.set_xticks(ticks, [f"{x:,.0f}" for x in ticks])
        ax.xaxis.set_minor_formatter("")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("")
    axes[0].set_title("Time", loc="left")
    axes[1].set_title("Peak memory of an epoch, small preset", loc="left")
    # Room for the legend above the curves.
    for ax in axes:
        low, high = ax.get_ylim()
        ax.set_ylim(low, high * (high / low) ** 0.25)
    part = path.with_name(f"{path.name}.part")
    fig.savefig(part, dpi=150, format="png")
    plt.close(fig)
    part.replace(path)
