"""Part `profile`: time of each stage, and cProfile within the stages.

``torch.profiler`` does not record compiled kernels that are not torch's. cProfile records every
Python function and every C function of torch that the main thread calls.
"""

from __future__ import annotations

import cProfile
import pstats
import time
from collections.abc import Callable
from pathlib import Path

from _speed_clock import Row, Settings, one
from _speed_data import as_anndata, load_counts, repeat_cells
from _speed_network import OURS, batch, our_inference, our_network, our_stages, whole
from _speed_predict import sctab_model

N_FUNCTIONS = 12


def stages(steps: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each stage of a training step; one untimed step goes first."""
    whole(steps)()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, stage in steps.items():
            start = time.perf_counter()
            stage()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def _name(function: tuple[str, int, str]) -> str:
    """``package/file.py:function``, or the name of a C function."""
    file, line, name = function
    if file == "~":
        return name.strip("<>").replace("built-in method ", "").replace("method ", "")
    parts = Path(file).parts
    # From the package down: no folder of this machine in the results.
    roots = [i for i, part in enumerate(parts) if part in ("site-packages", "src")]
    short = "/".join(parts[roots[-1] + 1 :] if roots else parts[-2:])
    return f"{short}:{line}:{name}"


def _is_ours(function: tuple[str, int, str]) -> bool:
    return "/scvi_sctab/" in function[0].replace("\\", "/")


def profile(call: Callable[[], object], repeats: int) -> tuple[float, list[tuple], list[tuple]]:
    """Profile a call.

    Returns
    -------
    Seconds per call; our functions as ``(name, seconds in it and below, calls)``, most first; and
    all functions as ``(name, seconds in it alone, calls)``, most first. All per call.
    """
    call()
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(repeats):
        call()
    profiler.disable()
    stats = pstats.Stats(profiler)
    timings = stats.stats
    below = [
        (_name(f), cumulative / repeats, calls / repeats)
        for f, (_, calls, _, cumulative, _) in timings.items()
        if _is_ours(f)
    ]
    alone = [
        (_name(f), own / repeats, calls / repeats) for f, (_, calls, own, _, _) in timings.items()
    ]
    largest = [sorted(part, key=lambda x: -x[1])[:N_FUNCTIONS] for part in (below, alone)]
    return stats.total_tt / repeats, *largest


def _table(case: str, call: Callable[[], object], repeats: int) -> list[Row]:
    total, below, alone = profile(call, repeats)
    found = [one(case, OURS, "profiled time", "ms", 1e3 * total)]
    for quantity, part in (("in and below", below), ("in itself", alone)):
        for name, seconds, calls in part:
            note = f"{seconds / total:.0%}, {calls:.4g} calls"
            found.append(one(case, name, quantity, "ms", 1e3 * seconds, note))
    return found


def run(settings: Settings) -> list[Row]:
    """The part ``profile``."""
    n_cells = 256 if settings.quick else 2048
    counts, labels = batch(str(settings.data), n_cells)
    network = our_network(counts.shape[1])
    steps = our_stages(network, counts, labels)
    found = []
    timings = stages(steps, settings.repeats)
    total = sum(map(sum, timings.values()))
    for name, seconds in timings.items():
        value = 1e3 * sum(seconds) / len(seconds)
        note = f"{sum(seconds) / total:.0%}"
        found.append(one("training step, stopwatch", name, "stage", "ms", value, note))
    # By now some steps have made masks those of a trained network.
    found += _table("training step", whole(steps), settings.repeats)
    found += _table("inference", our_inference(network, counts), settings.repeats)
    cells = as_anndata(repeat_cells(load_counts(settings.data), n_cells))
    model = sctab_model("paper", cells.n_vars)
    return found + _table("SCTAB.predict", lambda: model.predict(cells), settings.repeats)
