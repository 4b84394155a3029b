"""Mapping of queries onto references: labels of cells from unseen batches, and joint latents.

Prints a table per part and metric, and writes one CSV per part to ``results`` (one row per
method, task and seed): ``mapping.csv``, ``mapping_objectives.csv``, and so on; with ``--tuning``
the names start with ``mapping_tuning``. See README.md in this folder.
"""

from __future__ import annotations

import argparse
import logging
import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import _mapping_sctab
import pandas as pd
from _arguments import add_data
from _mapping_guarantees import COLUMNS as GUARANTEES
from _mapping_guarantees import check_task
from _mapping_integration import SCTAB_KINDS, TOTALS, build_embeddings, embed_task
from _mapping_new_labels import COLUMNS as NEW_LABELS
from _mapping_new_labels import run_new_labels
from _mapping_objectives import NOTHING, build_objectives
from _mapping_peers import build_methods
from _mapping_report import columns_table, differences, plot_integration
from _mapping_sctab import SLOW
from _mapping_tasks import FORWARD, INTEGRATION, TUNING, MappingTask, iter_mapping_tasks
from _report import format_table, plot
from accuracy import CELLTYPIST_PYTHON, HERE, KEYS, run_task, write_csv

if TYPE_CHECKING:
    from _peers import Method


def parse_args() -> argparse.Namespace:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data(parser)
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder to write to")
    parser.add_argument(
        "--cache", type=Path, help="folder of trained peers' latents (default: OUT/cache)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
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
    methods = [m for m in methods if (m.key in only if only else m.key not in SLOW)]
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


def report(runs: pd.DataFrame, metrics: tuple[str, ...]) -> None:
    """Print one table per metric."""
    for metric in metrics if len(runs) else ():
        print(f"\n{format_table(runs, metric)}")


class Setting(NamedTuple):
    """What a part runs on."""

    args: argparse.Namespace
    cache: Path
    path: Path  # CSV of the part
    tasks: list[str]


def run_labels(setting: Setting) -> None:
    """Labels of the query: SCTAB and its peers."""
    args = setting.args
    methods = select(label_methods(args, setting.cache), args.only)
    run = partial(run_task, methods=methods, seeds=args.seeds)
    runs = run_part(setting.tasks, args, setting.path, run)
    report(runs, ("macro_f1", "accuracy"))
    if len(runs):
        plot(runs, setting.path.with_suffix(".png"))


def run_objectives(setting: Setting) -> None:
    """Labels of the query by everything that can be fitted without labels."""
    methods = build_objectives(setting.cache)
    run = partial(run_task, methods=methods, seeds=setting.args.seeds)
    runs = run_part(setting.tasks, setting.args, setting.path, run)
    report(runs, ("macro_f1",))
    print(f"\n{differences(runs, NOTHING)}")


def run_guarantees(setting: Setting) -> None:
    """What surgery leaves as it was."""
    args = setting.args
    kinds = [kind for key, kind in SCTAB_KINDS.items() if key in (args.only or ["sctab-surgery"])]
    run = partial(check_task, kinds=kinds, seeds=args.seeds, cache=setting.cache)
    runs = run_part(setting.tasks, args, setting.path, run)
    print(f"\n{columns_table(runs, GUARANTEES)}")


def run_labels_of_query(setting: Setting) -> None:
    """A type that the reference lacks; the tasks are the left-out types."""
    runs = read(setting.path) if setting.args.merge else read(None)
    for rows in run_new_labels(Path(setting.args.data), setting.args.seeds):
        runs = merge(runs, pd.DataFrame(rows))
        write_csv(runs, setting.path)
    print(f"\n{columns_table(runs, NEW_LABELS)}")
    print(f"old logits before training are the reference's: {runs['logits_equal'].all()}")


def run_integration(setting: Setting) -> None:
    """Joint latents of both sides."""
    args = setting.args
    chosen = select(build_embeddings(setting.cache), args.only)
    tasks = args.tasks or setting.tasks[:INTEGRATION]
    run = partial(embed_task, embeddings=chosen, seeds=args.seeds)
    runs = run_part(tasks, args, setting.path, run)
    report(runs, TOTALS)
    if len(runs):
        plot_integration(runs, setting.path.with_suffix(".png"))


PARTS: dict[str, Callable[[Setting], None]] = {
    "labels": run_labels,
    "objectives": run_objectives,
    "guarantees": run_guarantees,
    "new-labels": run_labels_of_query,
    "integration": run_integration,
}


def label_methods(args: argparse.Namespace, cache: Path) -> list[Method]:
    """Methods of part `labels`, SCTAB's first."""
    return [*_mapping_sctab.build_methods(cache), *build_methods(args.celltypist_python, cache)]


def main() -> None:
    """Run the benchmark."""
    args = parse_args()
    quiet()
    args.out.mkdir(parents=True, exist_ok=True)
    cache = args.cache or args.out / "cache"
    known = {m.key for m in [*label_methods(args, cache), *build_embeddings(cache)]}
    unknown = sorted(set(args.only or []) - known)
    if unknown:
        raise SystemExit(f"unknown method {', '.join(unknown)}; choose from {sorted(known)}.")
    stem = "mapping_tuning" if args.tuning else "mapping"
    tasks = args.tasks or (TUNING if args.tuning else FORWARD)
    for part in args.parts:
        suffix = "" if part == "labels" else f"_{part.replace('-', '_')}"
        PARTS[part](Setting(args, cache, args.out / f"{stem}{suffix}.csv", tasks))
    print(f"\nno ± : a single run (deterministic method, or one seed)\nwrote to {args.out}")


if __name__ == "__main__":
    main()
