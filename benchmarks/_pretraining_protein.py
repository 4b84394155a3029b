"""Part `protein`: surface proteins of cells with RNA only."""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
from _pretraining_protein_ours import build_protein_arms
from _pretraining_protein_peers import ProteinArm, build_peers
from _pretraining_protein_tasks import ProteinTask, build_protein_tasks
from _pretraining_report import choose, paired_table, table_of, tasks_table

METRICS = ("by_protein", "by_cell")


def correlate(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean Pearson correlation over columns; a constant prediction counts as zero.

    Columns whose truth is constant have no correlation and are left out.

    Parameters
    ----------
    truth, predicted
        ``(n, n_columns)``.
    """
    known = truth.std(axis=0) > 0
    truth, predicted = truth[:, known], predicted[:, known]
    truth, predicted = truth - truth.mean(axis=0), predicted - predicted.mean(axis=0)
    spread = np.linalg.norm(predicted, axis=0)
    norms = np.linalg.norm(truth, axis=0) * np.where(spread > 1e-9, spread, np.inf)
    return float(((truth * predicted).sum(axis=0) / norms).mean())


def score(task: ProteinTask, seed: int, predicted: np.ndarray) -> dict[str, float]:
    """Correlations of predicted ``log1p`` counts of proteins with the measured ones."""
    truth = task.split(seed).truth
    if predicted.shape != truth.shape or not np.isfinite(predicted).all():
        raise ValueError(f"{task.name}: {predicted.shape} for {truth.shape}, or not finite.")
    return {
        "by_protein": correlate(truth, predicted),
        "by_cell": correlate(truth.T, predicted.T),
        "n_query": len(truth),
        "n_proteins": truth.shape[1],
    }


def run_arm(task: ProteinTask, key: str, arm: ProteinArm, seed: int) -> dict[str, object]:
    """One row."""
    start = time.process_time()
    predicted = arm.run(task.split(seed), seed)
    seconds = time.process_time() - start
    row = {"method": arm.name, "task": task.name, "family": task.name, "seed": seed}
    row |= score(task, seed, predicted) | {"seconds": seconds}
    row["deterministic"] = not (arm.seeded or task.folds)
    print(
        f"{key:<12} {task.name:<24} seed {seed}  by protein {row['by_protein']:.3f}  "
        f"by cell {row['by_cell']:.3f}  {seconds:.1f} s",
        flush=True,
    )
    return row


def run(args: Namespace) -> None:
    """Run what the command line asks for, and report all rows."""
    table = table_of("protein", args)
    known = {**build_peers(), **build_protein_arms()}
    arms = {} if args.report_only else choose(known, args.only)
    for task in build_protein_tasks(Path(args.data), args.tasks) if arms else ():
        for key, arm in arms.items():
            for seed in args.seeds if arm.seeded or task.folds else args.seeds[:1]:
                table.add([run_arm(task, key, arm, seed)])
    rows: pd.DataFrame = table.rows
    for metric in METRICS if len(rows) else ():
        print(f"\n{tasks_table(rows, metric)}")
    if len(rows):
        print(f"\n{paired_table(rows, ['ridge on PCA', 'totalVI'], 'by_protein')}")
