"""Paired timing: ways to do a job take turns, and what needs a process of its own has one."""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "2")  # before numpy and torch, which read it once

import numpy as np
import pandas as pd

from scvi_sctab.benchmark import describe_machine, describe_versions

RESULTS = Path(__file__).resolve().parent / "results"
KEYS = ["part", "case", "method", "quantity"]
MIB = 2**20
Row = dict[str, object]


class Run(NamedTuple):
    """One way to do a job: what is timed, and what is called before it and passed on to it."""

    method: str
    call: Callable[..., object]
    prepare: Callable[[], object] | None = None


def time_once(run: Run) -> float:
    """Seconds of wall-clock time of one run."""
    given = () if run.prepare is None else (run.prepare(),)
    gc.collect()
    start = time.perf_counter()
    run.call(*given)
    return time.perf_counter() - start


def alternate(runs: list[Run], turns: int, *, warm_up: bool = True) -> dict[str, list[float]]:
    """Seconds of each method; they take turns, ours first, so that a busy minute hits all.

    The first turn is not counted with ``warm_up``: it compiles kernels and fills caches.
    """
    seconds: dict[str, list[float]] = {run.method: [] for run in runs}
    for turn in range(turns + warm_up):
        for run in runs:
            elapsed = time_once(run)
            if turn >= warm_up:
                seconds[run.method].append(elapsed)
    return seconds


def rows(case: str, quantity: str, unit: str, samples: dict[str, list[float]],
         notes: dict[str, str] | None = None) -> list[Row]:  # fmt: skip
    """A row per method; ``ratio`` is its median over that of the first one."""
    made: list[Row] = []
    medians = {method: float(np.median(values)) for method, values in samples.items()}
    for method, values in samples.items():
        ratio = medians[method] / next(iter(medians.values())) if len(medians) > 1 else np.nan
        row = {"case": case, "method": method, "quantity": quantity, "unit": unit}
        row |= {"median": medians[method], "low": min(values), "high": max(values)}
        made.append(row | {"runs": len(values), "ratio": ratio, "note": (notes or {}).get(method)})
        print(f"  {case} | {method} | {quantity}: {medians[method]:.4g} {unit}", flush=True)
    return made


def save(part: str, found: list[Row], path: Path) -> pd.DataFrame:
    """Write the rows of a part in place of its earlier ones, beside the file and then renamed."""
    machine = f"{describe_machine()}, load {os.getloadavg()[0]:.1f}; {describe_versions()}"
    fresh = pd.DataFrame(found).assign(machine=f"{machine}; {time.strftime('%Y-%m-%d')}")
    fresh.insert(0, "part", part)
    if path.exists():
        earlier = pd.read_csv(path)
        fresh = pd.concat([earlier[earlier["part"] != part], fresh], ignore_index=True)
    beside = path.with_suffix(".part")
    fresh.to_csv(beside, index=False, float_format="%.6g")
    beside.replace(path)
    return fresh


def run_command(command: list[str | Path], **environment: str) -> dict[str, float]:
    """Run a command to its end.

    Returns
    -------
    ``time`` and ``CPU time`` in seconds, and ``peak memory`` in MiB, which is missing where it is
    not above that of this process, since Linux counts that as the command's, too.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        [str(part) for part in command], env=os.environ | environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    said = process.stderr.read() if process.stderr else ""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} failed:\n{said[-3000:]}")
    largest = usage.ru_maxrss / 2**10
    return {
        "time": time.perf_counter() - start,
        "CPU time": usage.ru_utime + usage.ru_stime,
        "peak memory": largest if largest > 1.1 * peak() else float("nan"),
    }


def peak() -> float:
    """Largest resident size of this process so far, MiB.

    ``VmHWM`` belongs to the program that runs now; ``ru_maxrss`` starts at the parent's peak.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB  # bytes on macOS


def measure(function: Callable[..., object], imports: list[str], **arguments: object) -> dict:
    """Call a function in a fresh process, after imports.

    Returns
    -------
    ``imports`` and ``above`` (the peak above it), both MiB, and the numbers that it returned.
    """
    task = [Path(function.__code__.co_filename).stem, function.__name__]
    command = [sys.executable, __file__, json.dumps([*task, imports, arguments], default=str)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{task}({arguments}) failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    import warnings

    warnings.filterwarnings("ignore")
    name, called, needed, given = json.loads(sys.argv[1])
    for needs in [name, *needed]:
        importlib.import_module(needs)
    before = peak()
    numbers = getattr(sys.modules[name], called)(**given) or {}
    print(json.dumps({"imports": before, "above": peak() - before, **numbers}))
