"""Effect of pretraining without labels: on labels, proteins and joint latents, and its speed.

Prints tables per part and writes ``results/pretraining_<part>.csv``, a row per run, after each
run. See README.md in this folder.
"""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path

import _speed_threads
from _arguments import add_data

HERE = Path(__file__).resolve().parent
PARTS = ("labels", "protein", "integration", "speed")


def parse_args() -> argparse.Namespace:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data(parser)
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder to write to")
    parser.add_argument("--cache", type=Path, help="folder of latents (default: OUT/cache)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="run these only")
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="run these methods only")
    parser.add_argument("--threads", type=int, default=1, help="of every library")
    parser.add_argument(
        "--joint-embedding-python",
        default=os.environ.get("JOINT_EMBEDDING_PYTHON", ""),
        help="interpreter with JointEmbeddingSCVI (default: $JOINT_EMBEDDING_PYTHON)",
    )
    parser.add_argument(
        "--merge", action="store_true", help="keep rows that this run does not replace"
    )
    parser.add_argument(
        "--report-only", action="store_true", help="print and draw the rows of earlier runs"
    )
    args = parser.parse_args()
    args.cache = args.cache or args.out / "cache"
    return args


def main() -> None:
    """Run the benchmark."""
    args = parse_args()
    # Before numpy, torch and numba are imported: they read these variables once.
    _speed_threads.limit(args.threads)
    _speed_threads.limit_torch()
    from mapping import quiet

    quiet()
    args.out.mkdir(parents=True, exist_ok=True)
    for part in args.parts:
        importlib.import_module(f"_pretraining_{part}").run(args)
    print(f"\nno ± : a single run (deterministic method, or one seed)\nwrote to {args.out}")


if __name__ == "__main__":
    main()
