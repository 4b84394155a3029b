"""Macro F1 and accuracy of SCTAB and other methods on held-out donors and on other studies.

Prints one table per metric and writes ``results/accuracy.csv`` (one row per method, task and
seed) and ``results/accuracy.png``. See README.md in this folder.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path

import pandas as pd
from _arguments import add_data
from _peers import Method, Prediction, build_methods
from _report import format_table, plot
from _tasks import FAMILIES, Task, iter_tasks
from sklearn.metrics import accuracy_score, f1_score

HERE = Path(__file__).resolve().parent
CELLTYPIST_PYTHON = str(HERE.parent / ".venv-celltypist" / "bin" / "python")
KEYS = ["method", "task", "seed"]


def parse_args() -> argparse.Namespace:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data(parser)
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder to write to")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="run these methods only")
    parser.add_argument("--tasks", nargs="+", choices=list(FAMILIES), help="run these only")
    parser.add_argument("--preset", nargs="+", default=[], help="further presets of SCTAB")
    parser.add_argument(
        "--celltypist-python",
        default=os.environ.get("CELLTYPIST_PYTHON", CELLTYPIST_PYTHON),
        help="interpreter with CellTypist 1.7.1 (default: $CELLTYPIST_PYTHON, else what "
        "celltypist_env.sh makes)",
    )
    parser.add_argument(
        "--celltypist-shared",
        action="store_true",
        help="add CellTypist on the genes shared by reference and query (not its recipe)",
    )
    parser.add_argument("--scanvi", action="store_true", help="add scANVI with surgery (slow)")
    parser.add_argument(
        "--merge",
        action="store_true",
        help="keep the rows of an earlier accuracy.csv that this run does not replace",
    )
    return parser.parse_args()


def select_methods(args: argparse.Namespace) -> list[Method]:
    """Methods to run; what is asked for and cannot run is named in a loud line."""
    methods = build_methods(args.celltypist_python, args.preset, args.celltypist_shared)
    known = [method.key for method in methods]
    unknown = sorted(set(args.only or []) - set(known))
    if unknown:
        raise SystemExit(f"unknown method {', '.join(unknown)}; choose from {', '.join(known)}.")
    wanted = set(args.only or known)
    if not args.only and not args.scanvi:
        wanted.discard("scanvi")
    methods = [method for method in methods if method.key in wanted]
    for method in methods:
        if method.missing:
            print(f"!!! SKIPPED: {method.key}: {method.missing}", flush=True)
    return [method for method in methods if not method.missing]


def score(task: Task, prediction: Prediction, seed: int) -> dict[str, object]:
    """One row of the results: macro F1 over the classes of the truth, and accuracy."""
    if len(prediction.labels) != task.query.n_obs:
        raise ValueError(
            f"{prediction.method} gave {len(prediction.labels)} labels for "
            f"{task.query.n_obs} cells of {task.name}."
        )
    truth, labels = task.truth[task.scored], prediction.labels[task.scored]
    classes = sorted(set(truth))
    macro_f1 = f1_score(truth, labels, labels=classes, average="macro", zero_division=0)
    return {
        "method": prediction.method,
        "task": task.name,
        "family": task.family,
        "seed": seed,
        "macro_f1": macro_f1,
        "accuracy": accuracy_score(truth, labels),
        "seconds": prediction.seconds,
        "n_reference": task.reference.n_obs,
        "n_scored": len(truth),
        "n_left_out": task.query.n_obs - len(truth),
        "n_classes": len(classes),
    }


def run_task(task: Task, methods: list[Method], seeds: list[int]) -> list[dict[str, object]]:
    """Every method on one task; deterministic ones once, with the first seed's number."""
    rows = []
    print(
        f"{task.name}: {task.reference.n_obs} -> {task.query.n_obs} cells, "
        f"{task.reference.n_vars} genes, {(~task.scored).sum()} query cells left out",
        flush=True,
    )
    for method in methods:
        for seed in seeds if method.seeded else seeds[:1]:
            start = time.perf_counter()
            for prediction in method.run(task, seed):
                row = score(task, prediction, seed)
                rows.append(row)
                print(
                    f"  {row['method']:<32} seed {seed if method.seeded else '-'}  "
                    f"macro F1 {row['macro_f1']:.3f}  accuracy {row['accuracy']:.3f}  "
                    f"{row['seconds']:.1f} s",
                    flush=True,
                )
            wall = time.perf_counter() - start
            print(f"    {method.key}: {wall:.1f} s of wall time", flush=True)
    return rows


def write_csv(runs: pd.DataFrame, path: Path) -> None:
    """Write beside, then rename, so that an interrupted run leaves a whole file."""
    part = path.with_suffix(".csv.part")
    runs.to_csv(part, index=False, float_format="%.6f")
    part.replace(path)


def main() -> None:
    """Run the benchmark."""
    args = parse_args()
    warnings.filterwarnings("ignore")
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "accuracy.csv"
    earlier = pd.read_csv(path) if args.merge and path.exists() else pd.DataFrame(columns=KEYS)
    methods = select_methods(args)
    rows: list[dict[str, object]] = []
    runs = earlier
    for task in iter_tasks(Path(args.data), args.tasks):
        rows += run_task(task, methods, args.seeds)
        fresh = pd.DataFrame(rows)
        if fresh.empty:
            continue
        replaced = earlier.set_index(["method", "task"]).index.isin(
            fresh.set_index(["method", "task"]).index
        )
        kept = earlier[~replaced]
        runs = fresh if kept.empty else pd.concat([kept, fresh], ignore_index=True)
        write_csv(runs, path)
    if runs.empty:
        raise SystemExit("no method could run.")
    for metric in ("macro_f1", "accuracy"):
        print(f"\n{format_table(runs, metric)}")
    plot(runs, args.out / "accuracy.png")
    print("\nno ± : a single run (deterministic method, or one seed)")
    print(f"wrote accuracy.csv and accuracy.png to {args.out}")


if __name__ == "__main__":
    main()
