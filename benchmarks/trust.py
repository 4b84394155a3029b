"""Prediction sets of exchangeable cells, and detection of types that the reference lacks.

Part `sets`: without donors at set-up, the cells that are held out and those that are tested are
exchangeable, which is what the stated rate is for. Part `novelty`: each type of two pairs of donors
is left out of the reference in turn. Writes ``results/trust_sets.csv`` and ``trust_novelty.csv``, a
row per run, and ``.md``. Statements about unseen donors and other studies are in ``accuracy.py``.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from _arguments import measured, new_parser, report
from _sctab import FALSE_ALARM_RATE, train
from _tasks import BUNDLED, DONOR_KEY, KANG, LABEL_KEY, accuracy_tasks, read, split
from accuracy import peers
from sklearn.metrics import roc_auc_score

from scvi_sctab import SCTAB, baselines
from scvi_sctab.benchmark import Method, Split, Task, method_table

DATA_SETS = {"Kang, control": KANG, "Kang, bundled": BUNDLED}
ERROR_RATES = (0.05, 0.1, 0.2)
TESTED = 0.25
# One pair of donors of each set; two thirds of their types are not easy.
LEFT_OUT_OF = ("kang donors 1256+107", "bundled donors")
MIN_CELLS = 5
PEERS = ("logistic regression", "CellTypist", "scANVI")


def set_tasks(folder: Path) -> list[Task]:
    """A quarter of the cells of all donors is tested, at each rate."""

    @cache
    def load(name: str, seed: int) -> Split:
        adata = read(folder, name)
        adata.obs[DONOR_KEY] = "all"  # so that no donor is held out as a whole
        tested = np.random.default_rng(seed).random(adata.n_obs) < TESTED
        return split(adata[~tested].copy(), adata[tested].copy())

    return [
        Task(
            data,
            lambda seed, name=name: load(name, seed),
            labels_key=LABEL_KEY,
            donor_key=DONOR_KEY,
            is_seeded=True,
            columns={"by_label": by_label, "error_rate": rate},
        )
        for data, name in DATA_SETS.items()
        for by_label in (False, True)
        for rate in ERROR_RATES
    ]


def cover(task: Task, cells: Split, models: dict[tuple[str, int], SCTAB], seed: int) -> dict:
    """Share of the tested cells whose set holds the true label."""
    if (task.name, seed) not in models:
        models[task.name, seed] = train(task, cells.reference, seed)
    model, rate = models[task.name, seed], task.columns["error_rate"]
    sets = model.get_prediction_sets(
        cells.query, error_rate=rate, by_label=task.columns["by_label"]
    )
    sizes, places = sets.to_numpy().sum(axis=1), sets.columns.get_indexer(cells.truth)
    n, m = len(sets), len(model.calibration.truth)
    return {
        "coverage": sets.to_numpy()[np.arange(n), places].mean(),
        # Of the tested cells and of those that the threshold is taken from.
        "standard_error": np.sqrt(rate * (1 - rate) * (1 / n + 1 / m)),
        "set_size": sizes.mean(),
        "empty": (sizes == 0).mean(),
        "false_alarms": (model.get_novelty(cells.query) <= rate).mean(),
        "n_tested": n,
        "n_held_out": m,
    }


def sets(args: Namespace) -> None:
    """Coverage at each stated rate."""
    models: dict[tuple[str, int], SCTAB] = {}
    methods = [Method("SCTAB", lambda seed: seed)]
    rows = measured(
        "trust_sets",
        args,
        set_tasks(args.data),
        methods,
        lambda *run: cover(*run[:2], models, run[2]),
    )
    shown = ["coverage", "standard_error", "set_size", "false_alarms"]
    report("trust_sets", args, method_table(rows, shown, ("task", "by_label", "error_rate"), ()))


def novelty_tasks(folder: Path) -> Iterator[Task]:
    """References without one of the types of the query."""
    for task in accuracy_tasks(folder):
        if task.name not in LEFT_OUT_OF:
            continue
        cells = task.load(0)
        names, counts = np.unique(cells.truth, return_counts=True)
        for name in names[counts >= MIN_CELLS]:
            known = (cells.reference.obs[LABEL_KEY] != name).to_numpy()
            own = cells._replace(reference=cells.reference[known].copy())
            yield replace(task, load=lambda seed, own=own: own, columns={"type": str(name)})


def detect(task: Task, cells: Split, predictor: baselines.Baseline) -> dict[str, float]:
    """AUROC of the cells of the type left out, and what is called novel at 5 % false alarms.

    A peer's score is one minus its largest probability.
    """
    predictor.fit(cells.reference, task.labels_key, task.donor_key)
    new = cells.truth == task.columns["type"]
    if not isinstance(predictor, baselines.SCTABPredictor):
        sure = predictor.predict_proba(cells.query).to_numpy().max(axis=1)
        return {"auroc": roc_auc_score(new, -sure)}
    p = predictor.model.get_novelty(cells.query)
    found = p <= FALSE_ALARM_RATE
    return {
        "auroc": roc_auc_score(new, -p),
        "false_alarms": found[~new].mean(),
        "found": found[new].mean(),
    }


def novelty(args: Namespace) -> None:
    """Mean over the types that are left out."""
    methods = [Method("SCTAB", baselines.SCTABPredictor)]
    # Once each: scANVI takes a quarter of an hour for each type.
    own = [method for method in peers(args.celltypist_python) if method.name in PEERS]
    methods += [replace(method, is_seeded=False) for method in own]
    rows = measured("trust_novelty", args, novelty_tasks(args.data), methods, detect)
    blocks = []
    for task, block in rows.groupby("task"):
        shown = ["auroc", "false_alarms", "found"]
        blocks += [f"## {task}", method_table(block, shown, levels=("type",))]
    by_type = method_table(rows, ["auroc"], ("task", "type", "method"), ())
    report("trust_novelty", args, *blocks, "## By type", by_type)


PARTS = {"sets": sets, "novelty": novelty}


def main() -> None:
    """Run the benchmark."""
    args = new_parser(__doc__, list(PARTS)).parse_args()
    for part in args.parts:
        PARTS[part](args)


if __name__ == "__main__":
    main()
