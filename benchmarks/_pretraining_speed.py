"""Part `speed`: cells per second and peak memory of pretraining, compared with SCVI."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import scvi
from _pretraining_ours import ENCODERS, QUIET, missing
from _report import as_markdown
from _speed_clock import Row, Run, alternate, rows, skipped
from _speed_data import load_counts, repeat_cells
from _speed_memory import measure
from _table import Table
from _tasks import KANG
from anndata import AnnData, read_h5ad

CASES = {"Kang, 12,261 cells x 1,287 genes": 0, "PBMC, 5,000 cells x 19,331 genes": 5000}
"""Cases, and the cells that a thousand are repeated to; 0 takes the file of Kang et al."""
EPOCHS, REPEATS = 2, 3
SCVI_BATCH = 128
KEYS = ["case", "method", "quantity"]


def load(folder: str | Path, n_cells: int) -> AnnData:
    """Raw counts, float32."""
    if n_cells:
        return AnnData(repeat_cells(load_counts(folder), n_cells))
    return AnnData(read_h5ad(Path(folder) / KANG).X.astype(np.float32))


def build_model(key: str, adata: AnnData) -> object:
    """A model that is not trained: SCVI, or a key of `ENCODERS`."""
    if key == "scvi":
        scvi.model.SCVI.setup_anndata(adata)
        return scvi.model.SCVI(adata)
    import scvi_sctab.pretrain

    kind = getattr(scvi_sctab.pretrain, ENCODERS[key].model)
    kind.setup_anndata(adata)
    return kind(adata, **ENCODERS[key].options)


def train(key: str, model: object, epochs: int, batch_size: int | None) -> None:
    """Train for some epochs on all cells, nothing held out."""
    options = {} if batch_size is None else {"batch_size": batch_size}
    options |= {"early_stopping": False, "limit_val_batches": 0}
    model.train(max_epochs=epochs, train_size=1.0, **options, **QUIET)


METHODS = {
    "MAE": ("mae", None),
    "SCVI": ("scvi", None),
    "SCVI, the same batch size": ("scvi", 512),
    "Barlow Twins": ("barlow", None),
    "BYOL": ("byol", None),
}


def available(only: list[str] | None) -> dict[str, tuple[str, int | None]]:
    """Methods that can run, ours first."""
    chosen = {}
    for name, (key, batch) in METHODS.items():
        reason = "" if key == "scvi" else missing(ENCODERS[key].model)
        if reason:
            skipped(name, reason)
        elif not only or key in only:
            chosen[name] = (key, batch)
    return chosen


def time_epochs(case: str, adata: AnnData, only: list[str] | None) -> list[Row]:
    """Cells per second of training; the models take turns in one process."""
    runs = []
    for name, (key, batch) in available(only).items():
        runs.append(
            Run(
                name,
                lambda model, key=key, batch=batch: train(key, model, EPOCHS, batch),
                lambda key=key: build_model(key, adata.copy()),
            )
        )
    seconds = alternate(runs, REPEATS)
    rates = {name: [EPOCHS * adata.n_obs / s for s in taken] for name, taken in seconds.items()}
    return rows(case, "training", "cells/s", rates)


def train_once(data: str, n_cells: int, key: str, batch: int | None) -> dict[str, float]:
    """Train an epoch; runs in a process of its own."""
    train(key, build_model(key, load(data, n_cells)), 1, batch)
    return {}


def measure_memory(case: str, data: Path, n_cells: int, only: list[str] | None) -> list[Row]:
    """Peak of a process that loads the cells and trains an epoch, above that of its imports."""
    peaks = {}
    for name, (key, batch) in available(only).items():
        imports = ["scvi", "_pretraining_speed"] + ["scvi_sctab.pretrain"] * (key != "scvi")
        found = measure(
            "_pretraining_speed",
            "train_once",
            imports,
            data=str(data),
            n_cells=n_cells,
            key=key,
            batch=batch,
        )
        peaks[name] = [found["above"]]
    return rows(case, "peak memory", "MiB", peaks)


def run(args: Namespace) -> None:
    """Run both measurements on every case, and report all rows."""
    table = Table(args.out / "pretraining_speed.csv", KEYS, args.merge or args.report_only)
    for case, n_cells in {} if args.report_only else CASES.items():
        if args.tasks and case not in args.tasks:
            continue
        table.add(time_epochs(case, load(args.data, n_cells), args.only))
        table.add(measure_memory(case, args.data, n_cells, args.only))
    found = table.rows
    if len(found):
        print(f"\n{report(found)}")


def report(found: pd.DataFrame) -> str:
    """Cases and quantities in rows, methods in columns: the median and its ratio to the first."""
    text = found["median"].map("{:,.0f}".format) + " " + found["unit"]
    text += found["ratio"].map(lambda ratio: "" if np.isnan(ratio) else f" ({ratio:.2f}x)")
    found = found.assign(row=found["case"] + ": " + found["quantity"], text=text)
    wide = found.pivot(index="row", columns="method", values="text").fillna("-")
    order = [name for name in METHODS if name in wide]
    return as_markdown(wide[order].rename_axis(index="median of runs (against MAE)"))
