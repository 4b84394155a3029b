"""Ablation of the small preset: macro F1 without each of its parts.

    .venv/bin/python benchmarks/ablation.py --data ../shared/data

Prints a table, mean and sd over seeds, and writes ``results/ablation.csv``.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scvi
from _arguments import add_data
from _tasks import FAMILIES, Task, iter_tasks

from scvi_sctab import SCTAB
from scvi_sctab.metrics import f1_macro

HERE = Path(__file__).resolve().parent
# Arguments of the model, of the training plan and of `train`.
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "small preset": ({}, {}, {}),
    "linear path alone": ({"encoder_weight": 0.0}, {}, {}),
    "TabNet alone": ({"linear_skip": False}, {}, {}),
    "TabNet alone, weight decay of scTab": ({"linear_skip": False}, {"weight_decay": 0.05}, {}),
    "weight decay of scTab": ({}, {"weight_decay": 0.05}, {}),
    "learning rate by epochs, as scTab": ({}, {"schedule": "step"}, {}),
    "no donors held out": ({}, {}, {"train_size": 1.0}),
    "with augmentation": ({}, {}, {"augment": True}),
    "TabNet alone, with augmentation": ({"linear_skip": False}, {}, {"augment": True}),
}


def run(task: Task, variant: str, seed: int) -> float:
    """Train a variant and score it on the query."""
    scvi.settings.seed = seed
    network, plan, training = VARIANTS[variant]
    reference, query = task.labelled_reference(), task.unlabelled_query()
    SCTAB.setup_anndata(reference, labels_key=task.label_key, donor_key=task.donor_key)
    model = SCTAB(reference, preset="small", **network)
    model.train(enable_progress_bar=False, plan_kwargs=plan, **training)
    return f1_macro(task.truth[task.scored], model.predict(query)[task.scored])


def main() -> None:
    """Run all variants on all tasks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", choices=list(FAMILIES))
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "ablation.csv")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows = []
    for task in iter_tasks(arguments.data, arguments.tasks):
        for variant in arguments.variants:
            scores = [run(task, variant, seed) for seed in arguments.seeds]
            rows.append((variant, task.name, np.mean(scores), np.std(scores, ddof=1)))
            print(
                f"{task.name:<28} {variant:<38} {rows[-1][2]:.3f} ± {rows[-1][3]:.3f}", flush=True
            )
    table = pd.DataFrame(rows, columns=["variant", "task", "f1_macro", "sd"])
    table.to_csv(arguments.out, index=False, float_format="%.4f")
    wide = table.pivot(index="variant", columns="task", values="f1_macro").loc[arguments.variants]
    print(wide.assign(mean=wide.mean(axis=1)).round(3).to_string())


if __name__ == "__main__":
    main()
