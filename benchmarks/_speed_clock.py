"""Timing of methods in alternating runs, and the rows of the resulting table."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Row = dict[str, object]


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Settings:
    """What the command line asked for."""

    data: Path
    out: Path
    quick: bool
    repeats: int
    cells: int
    threads: int


@dataclass(frozen=True)
class Run:
    """One way to do a job.

    Parameters
    ----------
    method
        Name in the table.
    call
        What is timed; what `prepare` returned is its argument.
    prepare
        Called before each `call`, not timed.
    """

    method: str
    call: Callable[..., object]
    prepare: Callable[[], object] = _nothing


def time_once(run: Run) -> float:
    """Seconds of wall-clock time of one run."""
    given = run.prepare()
    arguments = () if given is None else (given,)
    gc.collect()
    start = time.perf_counter()
    run.call(*arguments)
    return time.perf_counter() - start


def alternate(runs: list[Run], repeats: int, *, warm_up: bool = True) -> dict[str, list[float]]:
    """Seconds of each method; methods take turns, so that a busy minute hits all of them.

    Parameters
    ----------
    runs
        Methods, ours first.
    repeats
        Turns.
    warm_up
        Whether each method first runs once untimed (compilation, caches).
    """
    seconds: dict[str, list[float]] = {run.method: [] for run in runs}
    for turn in range(repeats + warm_up):
        for run in runs:
            elapsed = time_once(run)
            if turn >= warm_up:
                seconds[run.method].append(elapsed)
    return seconds


def rows(
    case: str,
    quantity: str,
    unit: str,
    samples: dict[str, list[float]],
    notes: dict[str, str] | None = None,
) -> list[Row]:
    """One row per method, printed as they are made.

    Parameters
    ----------
    case
        What was run.
    quantity
        What was measured.
    unit
        Its unit, such as ``"s"``.
    samples
        Values per method, ours first: ``ratio`` is a method's median over that of the first.
    notes
        What to know about a method.
    """
    made: list[Row] = []
    ours = float(np.median(next(iter(samples.values())))) if samples else np.nan
    for method, values in samples.items():
        median = float(np.median(values))
        row: Row = {
            "case": case,
            "method": method,
            "quantity": quantity,
            "unit": unit,
            "median": median,
            "low": min(values),
            "high": max(values),
            "runs": len(values),
            "ratio": median / ours if ours and len(samples) > 1 else np.nan,
            "note": (notes or {}).get(method, ""),
        }
        made.append(row)
        print(f"  {case} | {method} | {quantity}: {median:.4g} {unit}", flush=True)
    return made


def one(case: str, method: str, quantity: str, unit: str, value: float, note: str = "") -> Row:
    """A row of a single value that is compared with nothing."""
    return rows(case, quantity, unit, {method: [value]}, {method: note})[0]


def skipped(method: str, reason: object) -> None:
    """Say loudly that a method does not run."""
    print(f"!!! SKIPPED: {method}: {reason}", flush=True)
