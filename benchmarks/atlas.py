"""Benchmark of atlases on disk: memory, speed and accuracy at growing numbers of cells.

    .venv-latest/bin/python benchmarks/atlas.py --folder made_atlas

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


def value(rows: pd.DataFrame, step: str, n_cells: int, column: str, form: str = ",.0f") -> str:
    """Return a number of a step as text; ``-`` where it was not measured."""
    part = rows[(rows["step"] == step) & (rows["n_cells"] == n_cells)]
    if column not in part or not len(part) or pd.isna(part[column].iloc[0]):
        return "-"
    return format(part[column].iloc[0], form)


def markdown(head: list[str], body: list[list[str]]) -> str:
    """Format a table."""
    lines = [head, ["-" * len(cell) for cell in head], *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def report(rows: pd.DataFrame) -> str:
    """Tables of speed and memory, of ratios, and of real studies."""
    sizes = sorted(rows.loc[rows["step"] != "real", "n_cells"].unique())
    head = ["step"]
    for n_cells in sizes:
        head += [f"{n_cells:,} cells: cells/s", "peak memory, MiB"]
    body = []
    for step in ("prepare", "load", "train", "annotate"):
        line = [step]
        for n_cells in sizes:
            line += [value(rows, step, n_cells, name) for name in ("cells_per_s", "above")]
        body.append(line)
    text = markdown(head, body) + "\n"
    head = ["cells", "loader ÷ annbatch alone", "training ÷ memory", "prediction ÷ memory",
            "macro F1, held-out donors", "accuracy, all files"]  # fmt: skip
    body = []
    for n_cells in sizes:
        part = rows[(rows["step"] == "load") & (rows["n_cells"] == n_cells)]
        ratio = f"{(part['cells_per_s'] / part['peer']).iloc[0]:.2f}" if len(part) else "-"
        body.append([
            f"{n_cells:,}", ratio,
            value(rows, "beside_memory", n_cells, "train_ratio", ".2f"),
            value(rows, "beside_memory", n_cells, "predict_ratio", ".2f"),
            value(rows, "train", n_cells, "macro_f1", ".3f"),
            value(rows, "annotate", n_cells, "accuracy", ".3f"),
        ])  # fmt: skip
    text += "Speeds relative to the other way, in one process:\n\n" + markdown(head, body)
    for row in rows[rows["step"] == "real"].itertuples():
        text += (
            f"\nThree real studies, {row.cells:,.0f} cells, {row.unlabelled:,.0f} of them without a "
            "label; macro F1 of the test donors, mean ± sd over three seeds: "
            f"{row.store_f1:.3f} ± {row.store_sd:.3f} from the corpus, "
            f"{row.memory_f1:.3f} ± {row.memory_sd:.3f} from memory.\n"
        )
    return text


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
