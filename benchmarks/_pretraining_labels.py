"""Part `labels`: types of the cells of unseen donors, from few labels, all labels or neighbours."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from _pretraining_methods import build_arms
from _pretraining_report import choose, draw_tasks, paired_table, table_of, tasks_table
from _pretraining_tasks import TASKS, build_tasks
from accuracy import score

BASELINES = [
    "SCTAB",
    "PCA64 + logistic regression",
    "PCA64 + 5-NN",
    "network from scratch",
    "autoencoder + logistic regression",
    "autoencoder + 5-NN",
]


def run(args: Namespace) -> None:
    """Run what the command line asks for, and report all rows."""
    table = table_of("labels", args)
    arms = (
        {}
        if args.report_only
        else choose(build_arms(args.cache, args.joint_embedding_python), args.only)
    )
    tasks = build_tasks(Path(args.data), args.tasks) if arms else []
    for key, arm in arms.items():
        for seed in args.seeds:
            for task in tasks:
                fixed = not arm.depends_on_seed(task)
                if task.name not in arm.tasks or (fixed and seed != args.seeds[0]):
                    continue
                row = score(task, arm.run(task, seed), seed)
                row |= {"n_labelled": int(task.labelled(seed).sum()), "deterministic": fixed}
                table.add([row])
                print(
                    f"{key:<24} {task.name:<24} seed {seed}  macro F1 {row['macro_f1']:.3f}  "
                    f"accuracy {row['accuracy']:.3f}  {row['seconds']:.1f} s",
                    flush=True,
                )
    rows = table.rows
    if len(rows):
        rows = rows.sort_values("task", key=lambda names: names.map(TASKS.index), kind="stable")
        print(f"\n{tasks_table(rows)}\n\n{paired_table(rows, BASELINES)}")
        draw_tasks(rows, table.path.with_suffix(".png"))
