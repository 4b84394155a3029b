"""Part `scaling`: time and memory by the number of cells and of counts."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
from _speed_clock import Row, Run, Settings, alternate, one, rows
from _speed_data import as_anndata, load_counts, load_gates, n_bytes, repeat_cells, thin
from _speed_memory import MIB, measure
from _speed_network import TRAINED_STEPS, settle
from _speed_predict import sctab_model

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)
SHARES = (0.25, 0.5, 1.0)
PREDICT, TRAIN = "SCTAB, published network", "SCTAB, small preset"
TIME, EPOCH, ABOVE, DATA = "predict", "an epoch", "peak memory above the data", "size of the data"


def slope(x: list[float], y: list[float]) -> float:
    """Exponent of the power law through the points: 1 is linear."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def _predict(settings: Settings, sizes: list[int]) -> list[Row]:
    """Seconds of `predict` by the number of cells."""
    counts = load_counts(settings.data)
    model = sctab_model("paper", counts.shape[1])
    settle(model.module, counts, 2 if settings.quick else TRAINED_STEPS)
    found = []
    for size in sizes:
        adata = as_anndata(repeat_cells(counts, size))
        job = Run(PREDICT, partial(model.predict, adata))
        repeats = max(1, settings.repeats if size <= 10_000 else settings.repeats // 2)
        seconds = alternate([job], repeats, warm_up=size <= 10_000)
        found += rows(f"{size:,} cells", TIME, "s", seconds)
    exponent = slope(list(map(float, sizes)), [row["median"] for row in found])
    return [*found, one("all sizes", PREDICT, f"slope of {TIME}", "1", exponent)]


def _thinned(settings: Settings, n_cells: int) -> list[Row]:
    """Seconds of `predict` by the share of the nonzeros that are left."""
    counts = repeat_cells(load_counts(settings.data), n_cells)
    model = sctab_model("paper", counts.shape[1])
    settle(model.module, counts, 2 if settings.quick else TRAINED_STEPS)
    parts = [thin(counts, share) for share in SHARES]
    jobs = [
        Run(f"{share:.0%}", partial(model.predict, as_anndata(part)))
        for share, part in zip(SHARES, parts, strict=True)
    ]
    seconds = alternate(jobs, settings.repeats)
    found = []
    for share, part in zip(SHARES, parts, strict=True):
        values = seconds[f"{share:.0%}"]
        case = f"{n_cells:,} cells, {share:.0%} of the nonzeros"
        found += rows(case, TIME, "s", {PREDICT: values})
        per = [1e9 * s / part.nnz for s in values]
        found += rows(case, "time per nonzero", "ns", {PREDICT: per})
    return found


def memory_task(data: str, n_cells: int) -> dict[str, float]:
    """Train for an epoch; called in a fresh process."""
    from scvi_sctab import SCTAB

    adata = as_anndata(repeat_cells(load_counts(data), n_cells))
    # On labels without any meaning masks widen, the longer the training the more.
    gates = load_gates(data)
    adata.obs["cell_type"] = gates[np.arange(n_cells) % len(gates)]
    size = n_bytes(adata.X) / MIB
    SCTAB.setup_anndata(adata, labels_key="cell_type")
    model = SCTAB(adata, preset="small")
    start = time.perf_counter()
    model.train(max_epochs=1, enable_progress_bar=False)
    return {"data": size, "seconds": time.perf_counter() - start}


def _train(settings: Settings, sizes: list[int]) -> list[Row]:
    """Peak memory and seconds of an epoch by the number of cells, a process for each."""
    found: list[Row] = []
    seconds = []
    for size in sizes:
        needs = ["scvi_sctab.model"]
        done = measure(
            "_speed_scaling", "memory_task", needs, data=str(settings.data), n_cells=size
        )
        case, above = f"{size:,} cells", done["above"] - done["data"]
        note = "peak less imports less the cells' CSR buffers"
        found.append(one(case, TRAIN, ABOVE, "MiB", above, note))
        found.append(one(case, TRAIN, DATA, "MiB", done["data"], "CSR buffers"))
        found.append(one(case, TRAIN, EPOCH, "s", done["seconds"], "validation included"))
        seconds.append(done["seconds"])
    exponent = slope(list(map(float, sizes)), seconds)
    return [*found, one("all sizes", TRAIN, f"slope of {EPOCH}", "1", exponent)]


def run(settings: Settings) -> list[Row]:
    """The part ``scaling``."""
    sizes = [500, 1_000, 2_000] if settings.quick else list(SIZES)
    found = _predict(settings, sizes)
    found += _thinned(settings, 500 if settings.quick else min(settings.cells, 10_000))
    return found + _train(settings, sizes)
