"""Reference -> query mapping: labels of query cells from unseen batches, and joint latents.

Prints one table per metric. Labels go to ``results/mapping.csv`` (one row per method, task and
seed) and ``results/mapping.png``, scores of the joint latents to
``results/mapping_integration.csv``; with ``--tuning`` all three names hold ``_tuning``. See
README.md in this folder.
"""

from __future__ import annotations

import argparse
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from _mapping_integration import TOTALS, build_embeddings, embed_task
from _mapping_peers import build_methods
from _mapping_tasks import FORWARD, INTEGRATION, TUNING, MappingTask, iter_mapping_tasks
from _report import format_table, plot
from accuracy import CELLTYPIST_PYTHON, HERE, KEYS, run_task, write_csv

if TYPE_CHECKING:
    from _peers import Method

PARTS = ("labels", "integration")


def parse_args() -> argparse.Namespace:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("SCVI_SCTAB_DATA", HERE.parent.parent / "shared" / "data"),
        help="folder of the .h5ad files (default: $SCVI_SCTAB_DATA, else ../shared/data)",
    )
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder to write to")
    parser.add_argument(
        "--cache", type=Path, help="folder of trained peers' latents (default: OUT/cache)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="run these methods only")
    parser.add_argument("--tuning", action="store_true", help="the reversed tasks instead")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="run these only")
    parser.add_argument(
        "--celltypist-python",
        default=os.environ.get("CELLTYPIST_PYTHON", CELLTYPIST_PYTHON),
        help="interpreter with CellTypist 1.7.1 (default: $CELLTYPIST_PYTHON, else what "
        "celltypist_env.sh makes)",
    )
    parser.add_argument(
        "--merge",
        action="store_true",
        help="keep the rows of an earlier run that this one does not replace",
    )
    args = parser.parse_args()
    known = TUNING if args.tuning else FORWARD
    unknown = sorted(set(args.tasks or []) - set(known))
    if unknown:
        parser.error(f"unknown task {', '.join(unknown)}; choose from {'; '.join(known)}.")
    return args


def select(methods: list[Method], only: list[str] | None) -> list[Method]:
    """Methods to run; one that cannot run is named in a loud line."""
    methods = [method for method in methods if only is None or method.key in only]
    for method in methods:
        if method.missing:
            print(f"!!! SKIPPED: {method.key}: {method.missing}", flush=True)
    return [method for method in methods if not method.missing]


def run_part(
    tasks: list[str],
    args: argparse.Namespace,
    path: Path,
    run: Callable[[MappingTask], list[dict[str, object]]],
) -> pd.DataFrame:
    """Run every task, and write the file after each.

    Parameters
    ----------
    tasks
        Names of the tasks.
    args
        The command line.
    path
        CSV to write. With ``--merge`` its rows of other methods and tasks are kept.
    run
        Function of a task that gives its rows.
    """
    order = TUNING if args.tuning else FORWARD
    keep = args.merge
    for task in iter_mapping_tasks(Path(args.data), tasks, tuning=args.tuning):
        fresh = pd.DataFrame(run(task))
        if fresh.empty:
            continue
        runs = merge(read(path) if keep else read(None), fresh)
        runs = runs.sort_values("task", key=lambda names: names.map(order.index), kind="stable")
        write_csv(runs, path)
        keep = True
    return read(path) if keep else read(None)


def read(path: Path | None) -> pd.DataFrame:
    """Rows of an earlier run, read anew each time: another run may write to the same file."""
    if path is None or not path.exists():
        return pd.DataFrame(columns=KEYS)
    return pd.read_csv(path)


def merge(earlier: pd.DataFrame, fresh: pd.DataFrame) -> pd.DataFrame:
    """The rows of `earlier` whose method and task are not in `fresh`, and `fresh`."""
    replaced = earlier.set_index(KEYS[:2]).index.isin(fresh.set_index(KEYS[:2]).index)
    kept = earlier[~replaced]
    return fresh if kept.empty else pd.concat([kept, fresh], ignore_index=True)


def quiet() -> None:
    """Silence what scvi-tools and lightning say about every training."""
    import scvi

    warnings.filterwarnings("ignore")
    scvi.settings.verbosity = logging.ERROR
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)


def main() -> None:
    """Run the benchmark."""
    args = parse_args()
    quiet()
    args.out.mkdir(parents=True, exist_ok=True)
    cache = args.cache or args.out / "cache"
    stem = "mapping_tuning" if args.tuning else "mapping"
    methods, embeddings = build_methods(args.celltypist_python, cache), build_embeddings(cache)
    known = {method.key for method in [*methods, *embeddings]}
    unknown = sorted(set(args.only or []) - known)
    if unknown:
        raise SystemExit(f"unknown method {', '.join(unknown)}; choose from {sorted(known)}.")
    names = TUNING if args.tuning else FORWARD
    if "labels" in args.parts:
        chosen = select(methods, args.only)
        path = args.out / f"{stem}.csv"
        runs = run_part(
            args.tasks or names, args, path, lambda task: run_task(task, chosen, args.seeds)
        )
        report(runs, ("macro_f1", "accuracy"))
        if len(runs):
            plot(runs, path.with_suffix(".png"))
    if "integration" in args.parts:
        chosen = select(embeddings, args.only)
        path = args.out / f"{stem}_integration.csv"
        runs = run_part(
            args.tasks or names[:INTEGRATION],
            args,
            path,
            lambda task: embed_task(task, chosen, args.seeds),
        )
        report(runs, TOTALS)
    print(f"\nno ± : a single run (deterministic method, or one seed)\nwrote to {args.out}")


def report(runs: pd.DataFrame, metrics: tuple[str, ...]) -> None:
    """Print one table per metric."""
    for metric in metrics if len(runs) else ():
        print(f"\n{format_table(runs, metric)}")


if __name__ == "__main__":
    main()
