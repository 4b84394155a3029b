"""Benchmark of atlases on disk: memory, speed and accuracy at growing numbers of cells.

    .venv-latest/bin/python benchmarks/atlas.py --folder /tmp/atlas

Writes made files of scTab's size (19,331 genes, 164 types) to ``--folder``, some 5 GB for a million
cells, and runs every step in a process of its own, whose peak memory above imports is noted. Needs
Python 3.12 and the extra ``atlas``. Writes ``results/atlas.csv``, a row per step and after each,
``results/atlas.md`` and ``results/atlas.png``. Steps that have a row are not repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import _speed_threads
import matplotlib.pyplot as plt
import pandas as pd
from _speed_memory import measure
from _table import Table

RESULTS = Path(__file__).resolve().parent / "results"
STEPS = ("generate", "prepare", "load", "train", "annotate", "beside_memory", "real")
IMPORTS = ["_atlas_steps", "annbatch", "dask.array", "zarr", "lightning.pytorch"]
SHOWN = ("prepare", "train", "annotate")
LIMIT = 2048


def report(rows: pd.DataFrame) -> str:
    """Table of all steps, and a plot of memory."""
    names = {"cells_per_s": "cells/s", "peer": "annbatch alone, cells/s", "above": "peak, MiB",
             "macro_f1": "macro F1", "train_ratio": "training, store ÷ memory",
             "predict_ratio": "prediction, store ÷ memory"}  # fmt: skip
    table = rows.sort_values(["n_cells", "step"]).rename(columns=names)
    lines = []
    for n_cells, part in table.groupby("n_cells"):
        part = part.drop(columns=["n_cells", "imports"]).dropna(axis=1, how="all")
        lines += [f"## {n_cells:,} cells", "", "| " + " | ".join(part) + " |"]
        lines.append("| " + " | ".join("-" for _ in part) + " |")
        for row in part.itertuples(index=False):
            cells = [v if isinstance(v, str) else "" if pd.isna(v) else f"{v:,.4g}" for v in row]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def plot(rows: pd.DataFrame, path: Path) -> None:
    """Draw peak memory of each step over the number of cells."""
    figure, axes = plt.subplots(figsize=(4.5, 3.2), layout="constrained")
    for step in SHOWN:
        part = rows[rows["step"] == step].sort_values("n_cells")
        axes.plot(part["n_cells"], part["above"], marker="o", label=step)
    axes.axhline(LIMIT, color="0.6", linestyle=":")
    axes.set(xscale="log", xlabel="Cells", ylabel="Peak memory above imports, MiB", ylim=(0, None))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="for files, corpora and models")
    parser.add_argument("--cells", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--threads", type=int, default=2, help="of every library")
    parser.add_argument("--again", action="store_true", help="repeat steps that have a row")
    parser.add_argument("--report-only", action="store_true")
    args = parser.parse_args()
    _speed_threads.limit(args.threads)  # of the processes that run the steps
    args.folder.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(exist_ok=True)
    table = Table(RESULTS / "atlas.csv", ["step", "n_cells"], merge=True)
    for n_cells in () if args.report_only else args.cells:
        for step in args.steps:
            known = table.rows
            if step == "real" and n_cells != args.cells[0]:
                continue  # of other cells, once
            done = ((known["step"] == step) & (known["n_cells"] == n_cells)).any()
            if done and not args.again and step != "generate":
                continue
            found = measure(
                "_atlas_steps", step, IMPORTS, folder=str(args.folder), n_cells=n_cells
            )
            if step != "generate":
                table.add([{"step": step, "n_cells": n_cells, **found}])
            print(step, f"{n_cells:,}", {k: round(v, 3) for k, v in found.items()}, flush=True)
    rows = table.rows
    (RESULTS / "atlas.md").write_text(report(rows))
    plot(rows, RESULTS / "atlas.png")
    print(report(rows))


if __name__ == "__main__":
    main()
