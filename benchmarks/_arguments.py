"""Command line of the benchmarks, their rows on disk, and their reports."""

from __future__ import annotations

import logging
import os
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from scvi_sctab.benchmark import Method, Task

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data"
CELLTYPIST = HERE.parent / ".venv-celltypist" / "bin" / "python"


def add_data(parser: ArgumentParser) -> None:
    """Add ``--data``, the folder of the data sets."""
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("SCVI_SCTAB_DATA", DATA)),
        help="folder of the .h5ad files (default: $SCVI_SCTAB_DATA, else ../shared/data)",
    )


def new_parser(
    description: str | None, parts: Sequence[str] = (), seeds: Sequence[int] = (0, 1, 2)
) -> ArgumentParser:
    """Parser with the options that all benchmarks have; `parts` are offered where there are any."""
    parser = ArgumentParser(description=(description or "").splitlines()[0])
    add_data(parser)
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder to write to")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="run these methods only")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="tasks or families to run")
    parser.add_argument("--report-only", action="store_true", help="print rows of earlier runs")
    default = os.environ.get("CELLTYPIST_PYTHON", str(CELLTYPIST))
    parser.add_argument("--celltypist-python", default=default, help="see `make bench`")
    if parts:
        parser.add_argument("--parts", nargs="+", choices=list(parts), default=list(parts))
    return parser


def measured(
    name: str,
    args: Namespace,
    tasks: Iterable[Task],
    methods: Iterable[Method],
    measure: Callable[..., Any] | None = None,
) -> pd.DataFrame:
    """Run what the command line asks for; rows of ``OUT/NAME.csv`` of these methods, in their order.

    Runs that failed are left out.
    """
    from scvi_sctab.benchmark import Runs, classify, run

    methods, path = list(methods), args.out / f"{name}.csv"
    if not args.report_only:
        _quiet()
        args.out.mkdir(parents=True, exist_ok=True)
        wanted = [task for task in tasks if _asked(args.tasks, task.name, task.family)]
        chosen = [method for method in methods if _asked(args.only, method.name)]
        run(wanted, chosen, args.seeds, path, measure=measure or classify)
    rows = Runs(path).table
    order = [method.name for method in methods]
    known = rows["method"].isin(order) & (rows["error"] == "")
    places = rows["method"].map({method: number for number, method in enumerate(order)})
    return rows[known].iloc[places[known].argsort(kind="stable")].reset_index(drop=True)


def report(name: str, args: Namespace, *blocks: str | pd.DataFrame) -> None:
    """Print blocks of text and tables, and write them to ``OUT/NAME.md``."""
    from scvi_sctab.benchmark import markdown

    texts = [block if isinstance(block, str) else markdown(block) for block in blocks]
    text = "\n\n".join(text for text in texts if text) + "\n"
    print(text)
    beside = args.out / f"{name}.md.part"
    beside.write_text(text, encoding="utf-8")
    beside.replace(args.out / f"{name}.md")


def _asked(names: list[str] | None, *own: str) -> bool:
    return not names or any(name in names for name in own)


def _quiet() -> None:
    """Silence what scvi-tools, lightning and the package say about every training."""
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "scvi.sctab"):
        logging.getLogger(name).setLevel(logging.ERROR)
