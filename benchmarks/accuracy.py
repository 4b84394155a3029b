"""Labels and probabilities of SCTAB and other methods for unseen donors and other studies.

Prints the table of the README and a table per score, task by task, and writes
``results/accuracy.csv`` (a row per method, task and seed), ``accuracy.md`` and a plot of either score.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from _arguments import measured, new_parser, report
from _sctab import FALSE_ALARM_RATE, set_scores
from _tasks import accuracy_tasks

from scvi_sctab import baselines
from scvi_sctab.benchmark import Method, Split, Task, classify, method_table, task_table
from scvi_sctab.plotting import plot_benchmark

SUMMARY = {
    "macro_f1": "macro F1",
    "ece": "calibration error",
    "auroc_of_errors": "AUROC, right against wrong",
}
OF_SCTAB = ("coverage", "set_size", "false_alarms", "largest_shift", "shifted")


def peers(celltypist: str) -> list[Method]:
    """Methods of other packages, each by the recipe of its documentation."""
    two_pass = partial(baselines.CellTypist, python=celltypist, two_pass=True)
    return [
        Method("logistic regression", baselines.LogisticRegression, is_seeded=False),
        Method("CellTypist", partial(baselines.CellTypist, python=celltypist), is_seeded=False),
        Method("CellTypist two-pass", two_pass),
        Method("XGBoost", baselines.XGBoost),
        Method("MLP", baselines.MLP),
        Method("scANVI", baselines.ScANVI),
    ]


def measure(task: Task, split: Split, predictor: baselines.Baseline) -> dict[str, float]:
    """Scores of labels and probabilities; of SCTAB also those of sets, novelty and shift."""
    row = classify(task, split, predictor)
    if not type(predictor).__name__.startswith("SCTAB"):
        return row
    model = predictor.model
    known, shift = np.isin(split.truth, model.labels), model.get_shift(split.query)
    alarms = model.get_novelty(split.query) <= FALSE_ALARM_RATE
    return row | {
        **set_scores(model, split.query, split.truth, known),
        "false_alarms": float(alarms[known].mean()),
        "shifted": float(shift["shifted"].any()),
        "largest_shift": float(shift["distance"].max()),
    }


def main() -> None:
    """Run the benchmark."""
    args = new_parser(__doc__).parse_args()
    ours = [
        Method("SCTABEnsemble (5)", baselines.SCTABEnsemblePredictor),
        Method("SCTAB", baselines.SCTABPredictor),
    ]
    tasks, methods = accuracy_tasks(args.data), [*ours, *peers(args.celltypist_python)]
    rows = measured("accuracy", args, tasks, methods, measure)
    tables = [method_table(rows, SUMMARY), *(task_table(rows, metric) for metric in SUMMARY)]
    tables += [task_table(rows.dropna(subset=[metric]), metric) for metric in OF_SCTAB]
    report("accuracy", args, *tables)
    for metric in ("macro_f1", "ece"):
        figure = plot_benchmark(rows, metric).figure
        figure.savefig(args.out / f"accuracy_{metric}.png", dpi=120)


if __name__ == "__main__":
    main()
