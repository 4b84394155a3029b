"""Reliability of annotations: calibration, prediction sets, novelty, ensembles and other methods.

    .venv/bin/python benchmarks/trust.py --data ../shared/data

Prints a table per part and writes ``results/trust_*.csv``, a row per run.
"""

from __future__ import annotations

import argparse
import logging
import os
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from _arguments import add_data
from _table import Table
from _tasks import FAMILIES, iter_tasks
from _trust_coarse import compare
from _trust_ensemble import ENSEMBLE, TABNET, run_ensemble
from _trust_ensemble import run_peer as run_accuracy_peer
from _trust_novelty import run_peer, run_sctab, without_each_type
from _trust_report import draw_accuracy, draw_novelty
from _trust_sets import cover

from scvi_sctab import baselines

HERE = Path(__file__).resolve().parent
CELLTYPIST_PYTHON = str(HERE.parent / ".venv-celltypist" / "bin" / "python")
SCORES = (
    "macro_f1",
    "ece",
    "auroc_of_errors",
    "held_out_nll",
    "coverage",
    "set_size",
    "false_alarms",
    "largest_shift",
    "shifted",
)
PARTS = ("accuracy", "sets", "novelty", "coarse")
KEYS = {
    "accuracy": ["method", "task", "seed"],
    "sets": ["data", "seed", "by_label", "error_rate"],
    "novelty": ["method", "task", "type", "seed"],
    "coarse": ["arm", "coarse_share", "task", "seed"],
}


def parse_args() -> argparse.Namespace:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data(parser)
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder to write to")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--tasks", nargs="+", choices=list(FAMILIES), help="of the part accuracy")
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="run these methods only")
    parser.add_argument(
        "--celltypist-python",
        default=os.environ.get("CELLTYPIST_PYTHON", CELLTYPIST_PYTHON),
        help="interpreter with CellTypist (see celltypist_env.sh)",
    )
    parser.add_argument(
        "--merge", action="store_true", help="keep rows that this run does not replace"
    )
    parser.add_argument(
        "--report-only", action="store_true", help="print and draw the rows of earlier runs"
    )
    return parser.parse_args()


def table_of(part: str, args: argparse.Namespace) -> Table:
    """Rows of a part."""
    return Table(args.out / f"trust_{part}.csv", KEYS[part], args.merge)


def peers(args: argparse.Namespace) -> dict[str, Any]:
    """Factories of the peers by key."""
    known = {
        "logreg": baselines.LogisticRegression,
        "celltypist": partial(baselines.CellTypist, python=args.celltypist_python),
        "xgboost": baselines.XGBoost,
        "linear": baselines.Linear,
        "mlp": baselines.MLP,
        "scanvi": baselines.ScANVI,
    }
    return {key: build for key, build in known.items() if not args.only or key in args.only}


def run_accuracy(args: argparse.Namespace) -> pd.DataFrame:
    """Ensembles and peers on every task."""
    table = table_of("accuracy", args)
    for task in iter_tasks(Path(args.data), args.tasks):
        runs = {key: partial(run_accuracy_peer, build=b) for key, b in peers(args).items()}
        ensembles = {
            "sctab": run_ensemble,
            "tabnet": partial(run_ensemble, name=TABNET, linear_skip=False),
        }
        wanted = {key: run for key, run in ensembles.items() if key in (args.only or ["sctab"])}
        for key, run in {**wanted, **runs}.items():
            seeded = key in ensembles or getattr(
                peers(args)[key], "is_seeded", key != "celltypist"
            )
            for seed in args.seeds if seeded else args.seeds[:1]:
                rows = run(task, seed)
                table.add(rows)
                row = next((row for row in rows if row["method"] == ENSEMBLE), rows[-1])
                print(
                    f"{task.name:<24} {row['method']:<22} seed {seed}  macro F1 "
                    f"{row['macro_f1']:.3f}  ECE {row['ece']:.3f}  {row['seconds']:.0f} s",
                    flush=True,
                )
    return table.rows


def run_novelty(args: argparse.Namespace) -> pd.DataFrame:
    """Each type left out in turn."""
    table = table_of("novelty", args)
    wanted = {"logreg", "celltypist", "scanvi"} & peers(args).keys()
    for seed in args.seeds:
        for new, task in without_each_type(Path(args.data)):
            if not args.only or "sctab" in args.only:
                table.add(run_sctab(task, new, seed))
            for key in sorted(wanted) if seed == args.seeds[0] else ():
                table.add(run_peer(task, new, seed, peers(args)[key]))
            print(f"{task.name} without {new}, seed {seed}", flush=True)
    return table.rows


def run_sets(args: argparse.Namespace) -> pd.DataFrame:
    """Prediction sets of the same donors."""
    table = table_of("sets", args)
    table.add(cover(Path(args.data), args.seeds))
    return table.rows


def run_coarse(args: argparse.Namespace) -> pd.DataFrame:
    """Labels of mixed depth."""
    table = table_of("coarse", args)
    for row in compare(Path(args.data), args.seeds):
        table.add([row])
    return table.rows


RUN = {
    "accuracy": run_accuracy,
    "sets": run_sets,
    "novelty": run_novelty,
    "coarse": run_coarse,
}

DRAW = {"accuracy": draw_accuracy, "novelty": draw_novelty}


def report(part: str, rows: pd.DataFrame) -> None:
    """Print mean ± sd over seeds."""
    if part == "accuracy":
        for metric in SCORES:
            # Peers state neither sets nor novelty.
            known = rows.dropna(subset=[metric]) if metric in rows else rows[:0]
            if len(known):
                print(f"\n{metric}\n{_by_seed(known, 'method', 'task', metric, across=True)}")
    elif part == "sets":
        for metric in ("coverage", "standard_error", "set_size", "false_alarms"):
            flat = rows.assign(
                row=rows["data"] + rows["by_label"].map({True: ", by label", False: ""}),
                column=(1 - rows["error_rate"]).map("{:.0%}".format),
            )
            print(f"\n{metric}\n{_by_seed(flat, 'row', 'column', metric)}")
    elif part == "coarse":
        for metric in ("f1_t_cells", "macro_f1"):
            flat = rows.groupby(["arm", "coarse_share", "family", "seed"], as_index=False)[
                metric
            ].mean()
            flat["column"] = flat["family"] + ", " + flat["coarse_share"].map("{:.0%}".format)
            print(f"\n{metric}\n{_by_seed(flat, 'arm', 'column', metric)}")
    else:
        means = rows.groupby(["method", "task", "seed"], as_index=False)[
            ["auroc", "false_alarms", "found"]
        ].mean()
        for metric in ("auroc", "false_alarms", "found"):
            known = means.dropna(subset=[metric])
            print(f"\n{metric}\n{_by_seed(known, 'method', 'task', metric)}")


def _by_seed(
    rows: pd.DataFrame, index: str, column: str, metric: str, *, across: bool = False
) -> str:
    """Table of mean ± sd over seeds; ``across`` adds the mean of rows that have all columns."""
    cells = rows.pivot_table(metric, [index, column], "seed", sort=False).stack().dropna()
    text = _mean_and_spread(cells.groupby([index, column], sort=False))
    table = text.unstack(column, fill_value="")
    if not across:
        return table.to_string()
    # What is not run for all seeds on all tasks: the last run stands for those that are missing.
    full = cells.unstack(column).groupby(level=index, sort=False).ffill().dropna()
    mean = _mean_and_spread(full.mean(axis=1).groupby(level=index, sort=False))
    return table.assign(mean=mean.reindex(table.index, fill_value="")).to_string()


def _mean_and_spread(groups: Any) -> pd.Series:
    mean, sd, n = groups.mean(), groups.std(), groups.count()
    text = [
        f"{m:.3f} ± {s:.3f}" if k > 1 else f"{m:.3f}" for m, s, k in zip(mean, sd, n, strict=True)
    ]
    return pd.Series(text, mean.index, dtype=object)


def main() -> None:
    """Run the benchmark."""
    args = parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    args.out.mkdir(parents=True, exist_ok=True)
    for part in args.parts:
        if args.report_only:
            rows = pd.read_csv(args.out / f"trust_{part}.csv")
        else:
            rows = RUN[part](args)
        report(part, rows)
        if part in DRAW:
            DRAW[part](rows, args.out / f"trust_{part}.png")


if __name__ == "__main__":
    main()
