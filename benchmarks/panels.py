"""Models of the genes of a panel: restricted, filled with zeros, trained anew; and choice of genes.

    .venv/bin/python benchmarks/panels.py --data ../shared/data

Writes ``results/panels_restrict.csv`` and ``results/panels_select.csv``, a row per run and after
each run, and ``results/panels.md`` with the tables. A run that is in the file is not repeated.

*Zeros*: the model of all genes, genes that the panel lacks count as 0. *Restricted*:
``model.restrict(panel)``. *Anew*: a model trained on the panel's genes. All are asked about the
same cells, those with a molecule of the panel.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scvi
from _arguments import add_data
from _panel_tasks import Draw, draws, marker_genes, random_genes, variable_genes
from _table import Table

from scvi_sctab import SCTAB
from scvi_sctab.metrics import expected_calibration_error, f1_macro

if TYPE_CHECKING:
    from anndata import AnnData

RESULTS = Path(__file__).resolve().parent / "results"
SIZES = (100, 300, 500)
SMALL_SIZES = (50, 100, 200)
ERROR_RATE = 0.1
HALVES = {"choosing": False, "opened once": True}
KEYS = {
    "restrict": ["task", "draw", "size", "panel", "method"],
    "select": ["task", "draw", "size", "method"],
}

Row = dict[str, Any]


def trained(task: Any, seed: int, genes: np.ndarray | None = None) -> SCTAB:
    """Train a model on the reference of a task, or on its counts of some genes."""
    reference = task.labelled_reference()
    if genes is not None:
        reference = reference[:, genes]
        reference = reference[np.asarray(reference.X.sum(axis=1)).ravel() > 0].copy()
    donors = task.donor_key if reference.obs[task.donor_key].nunique() > 1 else None
    scvi.settings.seed = seed
    SCTAB.setup_anndata(reference, labels_key=task.label_key, donor_key=donors)
    model = SCTAB(reference)
    model.train(enable_progress_bar=False)
    return model


def score(model: SCTAB, query: AnnData, truth: np.ndarray) -> Row:
    """Compare what a model states about the cells of a panel with the truth."""
    soft = model.predict(query, soft=True, min_gene_overlap=0)
    labels = soft.columns.to_numpy(str)[soft.to_numpy().argmax(axis=1)]
    row = {
        "n_cells": len(truth),
        "macro_f1": f1_macro(truth, labels),
        "ece": expected_calibration_error(soft.to_numpy().max(axis=1), labels == truth),
    }
    if model.calibration is not None:  # small references hold out too few cells
        sets = model.get_prediction_sets(query, error_rate=ERROR_RATE, min_gene_overlap=0)
        places = np.arange(len(truth)), pd.Index(sets.columns).get_indexer(truth)
        row["coverage"] = float(sets.to_numpy()[places].mean())
        row["set_size"] = float(sets.to_numpy().sum(axis=1).mean())
    return row


def seen_through(task: Any, genes: np.ndarray) -> tuple[AnnData, np.ndarray]:
    """Return the scored cells of the query with a molecule of a panel, and their labels."""
    query = task.query[task.scored, task.query.var_names.isin(genes)]
    query = query[np.asarray(query.X.sum(axis=1)).ravel() > 0].copy()
    return query, query.obs[task.label_key].to_numpy(str)


def panels_of(draw: Draw) -> Iterator[tuple[int, str, np.ndarray]]:
    """Yield size, kind and genes of the panels of a draw; the query has measured all of them."""
    task = draw.task
    shared = task.reference.var_names.isin(task.query.var_names)
    reference = task.reference[:, shared].copy()
    for size in (*SIZES[1:2], *SIZES[:1], *SIZES[2:]):
        if draw.has_split or draw.number == 0:
            yield size, "variable", variable_genes(reference, size)
        yield size, "random", random_genes(reference, size, draw.number)


def run_restrict(draw: Draw, table: Table, models: dict[Any, SCTAB]) -> None:
    """Compare the three models of each panel."""
    for size, kind, genes in panels_of(draw):
        row = {"task": draw.task.name, "draw": draw.number, "size": size, "panel": kind}
        if is_done(table, row):
            continue
        model = full_model(draw, models)
        query, truth = seen_through(draw.task, genes)
        methods: dict[str, Callable[[], SCTAB]] = {
            "zeros": lambda model=model: model,
            "restricted": lambda model=model, genes=genes: model.restrict(genes),
            "anew": lambda genes=genes: trained(draw.task, draw.number, genes),
        }
        rows = []
        for method, make in methods.items():
            start, processor = time.perf_counter(), time.process_time()
            made = make()
            seconds = time.perf_counter() - start
            processor = time.process_time() - processor
            timed = {"seconds": seconds, "processor_seconds": processor}
            scores = score(made, query, truth)
            half = {"opened_once": draw.is_opened_once, "method": method}
            rows.append(row | half | scores | timed)
        table.add(rows)
        shown = ", ".join(f"{r['method']} {r['macro_f1']:.3f}" for r in rows)
        print(f"{draw.task.name}, draw {draw.number}, {size} {kind}: {shown}", flush=True)


def run_select(draw: Draw, table: Table, models: dict[Any, SCTAB]) -> None:
    """Compare panels of equal size that are chosen on the reference, by the model restricted."""
    if not (draw.has_split or draw.number == 0):
        return
    task = draw.task
    shared = task.reference.var_names.isin(task.query.var_names)
    reference = task.reference[:, shared].copy()
    candidates = reference.var_names.to_numpy()
    for size in SMALL_SIZES:
        row = {"task": task.name, "draw": draw.number, "size": size}
        if is_done(table, row):
            continue
        model = full_model(draw, models)
        # The reference of scanpy's choices is the cells that the model was trained on, too.
        seen = reference[np.sort(model.train_indices)].copy()
        methods = {
            "select_panel": lambda size=size, model=model: model.select_panel(
                size, candidates=candidates
            )["gene"].to_numpy(),
            "rank_genes_groups": lambda size=size, seen=seen: marker_genes(seen, size),
            "highly variable": lambda size=size, seen=seen: variable_genes(seen, size),
            "random": lambda size=size: random_genes(reference, size, draw.number),
        }
        rows = []
        for method, choose in methods.items():
            start, processor = time.perf_counter(), time.process_time()
            genes = choose()
            timed = {
                "seconds": time.perf_counter() - start,
                "processor_seconds": time.process_time() - processor,
            }
            query, truth = seen_through(task, genes)
            scores = score(model.restrict(genes), query, truth)
            half = {"opened_once": draw.is_opened_once, "method": method}
            rows.append(row | half | scores | timed)
        table.add(rows)
        shown = ", ".join(f"{r['method']} {r['macro_f1']:.3f}" for r in rows)
        print(f"{task.name}, draw {draw.number}, {size}: {shown}", flush=True)


def is_done(table: Table, row: Row) -> bool:
    """Whether the rows of a draw and panel are in the table."""
    rows = table.rows
    return len(rows) > 0 and bool((rows[list(row)] == list(row.values())).all(axis=1).any())


def full_model(draw: Draw, models: dict[Any, SCTAB]) -> SCTAB:
    """Return the model of all genes of a task, trained once for each split."""
    key = draw.task.name, draw.number if draw.has_split else 0
    if key not in models:
        for other in [other for other in models if draw.has_split and other[1] != key[1]]:
            del models[other]
        models[key] = trained(draw.task, key[1])
    return models[key]


def report(tables: dict[str, Table]) -> str:
    """Format the tables: means over draws, then over tasks, and sample sd over draws."""
    parts = []
    for part, table in tables.items():
        rows = table.rows
        if not len(rows):
            continue
        groups = ["size", "panel", "method"] if part == "restrict" else ["size", "method"]
        for name, opened in HALVES.items():
            half = rows[rows["opened_once"].astype(bool) == opened]
            if len(half):
                parts += [f"## {part}: {name}", "", markdown(half, groups), ""]
                parts += [markdown(half, ["task", *groups]), ""]
    return "\n".join(parts)


SHOWN = {
    "macro_f1": "macro F1",
    "ece": "ECE",
    "coverage": "coverage of 90 % sets",
    "set_size": "labels per set",
    "seconds": "seconds",
    "processor_seconds": "processor seconds",
}


def markdown(rows: pd.DataFrame, groups: list[str]) -> str:
    """Format a table with a line per group; tasks count alike."""
    lines = ["| " + " | ".join([*groups, *SHOWN.values()]) + " |"]
    lines.append("|---" * (len(groups) + len(SHOWN)) + "|")
    for key, block in rows.groupby(groups, sort=False):
        by_draw = block.groupby("draw")[list(SHOWN)].mean()
        means = block.groupby("task")[list(SHOWN)].mean().mean()
        cells = [
            f"{means[name]:.3f}" + (f" ± {by_draw[name].std():.3f}" if len(by_draw) > 1 else "")
            for name in SHOWN
        ]
        lines.append("| " + " | ".join([*map(str, key), *cells]) + " |")
    return "\n".join(lines)


PARTS = {"restrict": run_restrict, "select": run_select}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data(parser)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--halves", nargs="+", choices=list(HALVES), default=list(HALVES))
    parser.add_argument("--report-only", action="store_true")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("scvi.sctab").setLevel(logging.ERROR)
    tables = {
        part: Table(RESULTS / f"panels_{part}.csv", keys, merge=True)
        for part, keys in KEYS.items()
    }
    for half in args.halves if not args.report_only else ():
        for part in args.parts:
            models: dict[Any, SCTAB] = {}
            for draw in draws(Path(args.data), opened_once=HALVES[half]):
                PARTS[part](draw, tables[part], models)
    text = report(tables)
    (RESULTS / "panels.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
