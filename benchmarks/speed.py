"""Speed and memory of SCTAB and other methods, in one run on the same cells and threads.

Prints a table per part and writes ``results/speed.csv`` (one row per method and quantity),
``results/speed.md``, of which ``results/speed_digest.md`` has the main numbers, and
``results/speed_scaling.png``. See README.md in this folder.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import _speed_threads
from _arguments import add_data

if TYPE_CHECKING:
    import pandas as pd

HERE = Path(__file__).resolve().parent
PARTS = ("network", "predict", "train", "scaling", "profile", "floor")


def parse_args() -> argparse.Namespace:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    add_data(parser)
    parser.add_argument(
        "--out", type=Path, help="folder to write to (default: results; --quick: a temporary one)"
    )
    parser.add_argument("--repeats", type=int, help="turns (default: 5, train: 1)")
    parser.add_argument("--cells", type=int, default=10_000, help="cells of the part predict")
    parser.add_argument("--threads", type=int, default=2, help="of every library")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    args = parser.parse_args()
    if args.out is None:
        quick = Path(tempfile.gettempdir()) / "scvi-sctab-speed"
        args.out = quick if args.quick else HERE / "results"
    return args


def describe_machine(args: argparse.Namespace) -> str:
    """What the numbers of a part were taken on."""
    from importlib.metadata import version

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        name = found[0].partition(":")[2].strip() if found else name
    load = f", load {os.getloadavg()[0]:.1f} before" if hasattr(os, "getloadavg") else ""
    versions = ", ".join(f"{p} {version(p)}" for p in ("torch", "scvi-tools", "scikit-learn"))
    quick = "QUICK, NOT A MEASUREMENT; " if args.quick else ""
    return (
        f"{quick}{name}, {os.cpu_count()} CPUs, {args.threads} threads{load}; "
        f"Python {platform.python_version()}, {versions}; {time.strftime('%Y-%m-%d')}"
    )


def run_part(part: str, args: argparse.Namespace) -> pd.DataFrame:
    """Rows of one part."""
    import pandas as pd
    from _speed_clock import Settings

    repeats = args.repeats or (1 if part == "train" else 2 if args.quick else 5)
    settings = Settings(args.data, args.out, args.quick, repeats, args.cells, args.threads)
    machine = describe_machine(args)
    print(f"\n{part}: {machine}", flush=True)
    found = pd.DataFrame(importlib.import_module(f"_speed_{part}").run(settings))
    found.insert(0, "part", part)
    return found.assign(machine=machine)


def merge(earlier: pd.DataFrame, fresh: pd.DataFrame) -> pd.DataFrame:
    """`earlier` without the parts of `fresh`, and `fresh`, in the order of the parts."""
    import pandas as pd

    kept = earlier[~earlier["part"].isin(fresh["part"])]
    merged = fresh if kept.empty else pd.concat([kept, fresh], ignore_index=True)
    order = merged["part"].map(PARTS.index)
    return merged.iloc[order.argsort(kind="stable")].reset_index(drop=True)


def write_text(text: str, path: Path) -> None:
    """Write beside, then rename, so that an interrupted run leaves a whole file."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def main() -> None:
    """Run the benchmark."""
    args = parse_args()
    # Before numpy, torch and numba are imported: they read these variables once.
    _speed_threads.limit(args.threads)
    _speed_threads.limit_torch()
    import pandas as pd
    from _speed_digest import digest
    from _speed_report import plot, report, table

    warnings.filterwarnings("ignore")
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "speed.csv"
    runs = pd.read_csv(path) if path.exists() else pd.DataFrame({"part": []})
    for part in [part for part in PARTS if part in args.parts]:
        fresh = run_part(part, args)
        runs = merge(runs, fresh)
        write_text(runs.to_csv(index=False, float_format="%.6g"), path)
        write_text(report(runs), path.with_suffix(".md"))
        write_text(digest(runs), path.with_name("speed_digest.md"))
        print(f"\n{table(fresh)}", flush=True)
    if (runs["part"] == "scaling").any():
        plot(runs, args.out / "speed_scaling.png")
    print(f"\nwrote to {args.out}")


if __name__ == "__main__":
    sys.exit(main())
