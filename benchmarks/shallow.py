"""Cells of few molecules: training with and without thinned cells, and logistic regression.

    .venv/bin/python benchmarks/shallow.py --data ../shared/data

The query of each task is thinned to an expected 50, 100 and 200 molecules per cell, with binomial
counts, and asked about by models of full-depth references. Writes ``results/shallow.csv``, a row
per run and after each run, and ``results/shallow.md``. A run that is in the file is not repeated.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scvi
from _arguments import add_data
from _mapping_tasks import iter_mapping_tasks
from _panel_tasks import OPENED_ONCE, draws
from _peers import align_genes, log_normalise
from _table import Table
from sklearn.linear_model import LogisticRegression

from scvi_sctab import SCTAB
from scvi_sctab.metrics import expected_calibration_error, f1_macro, thin_counts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _tasks import Task
    from anndata import AnnData

RESULTS = Path(__file__).resolve().parent / "results"
DEPTHS = (50, 100, 200, 0)
KEYS = ["task", "seed", "depth", "method"]

Row = dict[str, Any]
# Probabilities (n_cells, n_labels) with columns, and prediction sets if there are any.
Statement = tuple[pd.DataFrame, pd.DataFrame | None]


def sctab(task: Task, seed: int, *, thinned: bool) -> Callable[[AnnData], Statement]:
    """Train SCTAB; ``thinned``: with depth augmentation."""
    reference = task.labelled_reference()
    donors = task.donor_key if reference.obs[task.donor_key].nunique() > 1 else None
    scvi.settings.seed = seed
    SCTAB.setup_anndata(reference, labels_key=task.label_key, donor_key=donors)
    model = SCTAB(reference)
    model.train(depth_augmentation=thinned, enable_progress_bar=False)
    if model.calibration is None:  # small references hold out too few cells
        return lambda query: (model.predict(query, soft=True), None)
    return lambda query: (model.predict(query, soft=True), model.get_prediction_sets(query))


def logistic_regression(task: Task) -> Callable[[AnnData], Statement]:
    """Class-balanced logistic regression, as in the benchmark of accuracy."""
    genes = task.reference.var_names
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    model.fit(log_normalise(align_genes(task.reference, genes)), task.train_labels)

    def state(query: AnnData) -> Statement:
        soft = model.predict_proba(log_normalise(align_genes(query, genes)))
        return pd.DataFrame(soft, columns=model.classes_.astype(str)), None

    return state


def thin(query: AnnData, depth: int, seed: int) -> AnnData:
    """Thin cells to an expected number of molecules; 0 leaves them as they are."""
    query = query.copy()
    if depth:
        totals = np.asarray(query.X.sum(axis=1)).ravel()
        query.X = thin_counts(query.X, np.minimum(depth / totals, 1), seed=seed)
    return query


def score(statement: Statement, truth: np.ndarray) -> Row:
    """Compare statements with the truth."""
    soft, sets = statement
    labels = soft.columns.to_numpy(str)[soft.to_numpy().argmax(axis=1)]
    row = {
        "n_cells": len(truth),
        "macro_f1": f1_macro(truth, labels),
        "ece": expected_calibration_error(soft.to_numpy().max(axis=1), labels == truth),
    }
    if sets is not None:
        places = np.arange(len(truth)), pd.Index(sets.columns).get_indexer(truth)
        row["coverage"] = float(sets.to_numpy()[places].mean())
        row["set_size"] = float(sets.to_numpy().sum(axis=1).mean())
    return row


def tasks(folder: Path) -> Iterator[tuple[bool, Task]]:
    """Yield the first draw of the tasks for choosing, and tasks that were opened once."""
    yield from ((False, d.task) for d in draws(folder, opened_once=False) if d.number == 0)
    yield from ((True, task) for task in iter_mapping_tasks(folder, list(OPENED_ONCE)[:2]))


def run(task: Task, opened_once: bool, seed: int, table: Table) -> None:
    """Train the models of a task, and ask them about cells of each depth."""
    methods: dict[str, Callable[[], Callable[[AnnData], Statement]]] = {
        "SCTAB": lambda: sctab(task, seed, thinned=False),
        "SCTAB, depth augmentation": lambda: sctab(task, seed, thinned=True),
        "logistic regression": lambda: logistic_regression(task),
    }
    whole = task.query[task.scored]
    for method, make in methods.items():
        rows = table.rows
        keys = ["task", "seed", "method"]
        if len(rows) and (rows[keys] == [task.name, seed, method]).all(axis=1).any():
            continue
        state, rows = make(), []
        for depth in DEPTHS:
            query = thin(whole, depth, seed)
            query = query[np.asarray(query.X.sum(axis=1)).ravel() > 0].copy()
            truth = query.obs[task.label_key].to_numpy(str)
            row = {"task": task.name, "opened_once": opened_once, "seed": seed}
            row |= {"depth": depth, "method": method}
            rows.append(row | score(state(query), truth))
        table.add(rows)
        print(task.name, seed, method, [round(row["macro_f1"], 3) for row in rows], flush=True)


SHOWN = {
    "macro_f1": "macro F1",
    "ece": "ECE",
    "coverage": "coverage of 90 % sets",
    "set_size": "labels per set",
}


def markdown(rows: pd.DataFrame) -> str:
    """Format a table for each half: means over tasks, and sample sd over seeds of these means."""
    parts = []
    for opened, half in rows.groupby("opened_once"):
        names = ", ".join(dict.fromkeys(half["task"]))
        parts += [f"## {'Opened once' if opened else 'For choosing'}: {names}", ""]
        parts += ["| molecules | method | " + " | ".join(SHOWN.values()) + " |", "|---" * 6 + "|"]
        for (depth, method), block in half.groupby(["depth", "method"], sort=False):
            by_seed = block.groupby("seed")[list(SHOWN)].mean()
            cells = [
                "-"
                if by_seed[name].isna().all()
                else f"{by_seed[name].mean():.3f}"
                + (f" ± {by_seed[name].std():.3f}" if len(by_seed) > 1 else "")
                for name in SHOWN
            ]
            shown = str(depth) if depth else "all"
            parts.append(f"| {shown} | {method} | " + " | ".join(cells) + " |")
        parts.append("")
    return "\n".join(parts)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--report-only", action="store_true")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "scvi.sctab"):
        logging.getLogger(name).setLevel(logging.ERROR)
    table = Table(RESULTS / "shallow.csv", KEYS, merge=True)
    for seed in args.seeds if not args.report_only else ():
        for opened_once, task in tasks(Path(args.data)):
            run(task, opened_once, seed, table)
    text = markdown(table.rows)
    (RESULTS / "shallow.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
