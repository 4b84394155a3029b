"""Benchmark of sparse shifts of perturbations: recovery, prediction and speed.

    .venv/bin/python benchmarks/svae.py --data ../shared/data

Prints a table per part, writes ``results/svae_<part>.csv``, a row per run, after each run, and all
tables to ``results/svae.md``. Runs whose rows are there are not repeated, unless with ``--again``.
See README.md in this folder.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import _speed_threads
from _arguments import add_data

HERE = Path(__file__).resolve().parent
# Several parts may have one module, whose `run` takes the part.
MODULES = {
    "simulator": "_svae_recovery",
    "realistic": "_svae_recovery",
    "hard": "_svae_recovery",
    "unseen": "_svae_prediction",
    "combinations": "_svae_prediction",
    "real": "_svae_real",
    "speed": "_svae_real",
}


def parse_args() -> argparse.Namespace:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data(parser)
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder to write to")
    parser.add_argument("--parts", nargs="+", choices=MODULES, default=list(MODULES))
    parser.add_argument("--seeds", type=int, nargs="+", help="default: those of the part")
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="run these methods only")
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="run these cases only")
    parser.add_argument("--threads", type=int, default=1, help="of every library")
    parser.add_argument("--again", action="store_true", help="repeat runs that have a row")
    parser.add_argument("--report-only", action="store_true", help="print rows of earlier runs")
    return parser.parse_args()


def main() -> None:
    """Run the benchmark."""
    args = parse_args()
    # Before numpy, torch and numba are imported: they read these variables once.
    _speed_threads.limit(args.threads)
    _speed_threads.limit_torch()
    from mapping import quiet

    quiet()
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.report_only:
        for part in args.parts:
            importlib.import_module(MODULES[part]).run(part, args)
    report = "\n".join(
        importlib.import_module(module).report(args) for module in dict.fromkeys(MODULES.values())
    )
    (args.out / "svae.md").write_text(report)
    print(report)


if __name__ == "__main__":
    main()
