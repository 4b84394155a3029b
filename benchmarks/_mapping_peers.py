"""Other methods of the mapping benchmark, each a function of a task and a seed.

To add a method, write a function ``(task, seed) -> list[Prediction]`` and add a line to
`build_methods`; the method's name in the tables is that of its predictions.
"""

from __future__ import annotations

import os
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from _mapping_cache import cache_file, write_cache
from _peers import Method, Prediction, celltypist, logistic_regression, map_scanvi

if TYPE_CHECKING:
    from _mapping_tasks import MappingTask

SCANVI = "scANVI + surgery"


class ScanviRun(NamedTuple):
    """What one reference-trained and query-mapped scANVI gave."""

    labels: np.ndarray  # (n_query,), strings
    latent: np.ndarray  # (n_reference + n_query, 30), the reference first
    seconds: float  # training and prediction


def run_scanvi(task: MappingTask, seed: int, cache: Path) -> ScanviRun:
    """Labels and latents of one scANVI with surgery, the samples as batches.

    Both sides' latents are those of the query's model. Read from `cache` where the same run is
    there, written there otherwise; the seconds are those of the training in either case.
    """
    import scvi

    path = cache_file(cache, task, seed, "scanvi")
    if path.exists():
        with np.load(path) as stored:
            print(f"  (scANVI of seed {seed} is read from {path.name})", flush=True)
            return ScanviRun(stored["labels"], stored["latent"], float(stored["seconds"]))
    scvi.settings.seed = seed
    reference, query = task.labelled_reference(), task.unlabelled_query()
    start = time.perf_counter()
    model, reference = map_scanvi(reference, query, task.label_key, task.batch_key)
    labels = np.asarray(model.predict()).astype(str)
    seconds = time.perf_counter() - start
    sides = [model.get_latent_representation(side) for side in (reference, query)]
    run = ScanviRun(labels, np.concatenate(sides).astype(np.float32), seconds)
    write_cache(path, labels=run.labels, latent=run.latent, seconds=np.array(seconds))
    return run


def scanvi(task: MappingTask, seed: int, *, cache: Path) -> list[Prediction]:
    """The labels of `run_scanvi`."""
    run = run_scanvi(task, seed, cache)
    return [Prediction(SCANVI, run.labels, run.seconds)]


def build_methods(celltypist_python: str, cache: Path) -> list[Method]:
    """Every peer in the order of the table.

    Parameters
    ----------
    celltypist_python
        Interpreter of the environment that ``celltypist_env.sh`` makes.
    cache
        Folder of finished scANVI runs.
    """
    no_scvi = "" if find_spec("scvi") else "scvi-tools is not installed"
    no_python = ""
    if not os.access(celltypist_python, os.X_OK):
        no_python = f"no interpreter at {celltypist_python!r} (see benchmarks/celltypist_env.sh)"
    methods = [Method("logreg", logistic_regression, False)]
    for key, two_pass in (("celltypist", False), ("celltypist-2pass", True)):
        run = partial(celltypist, python=celltypist_python, two_pass=two_pass)
        methods.append(Method(key, run, two_pass, no_python))
    methods.append(Method("scanvi", partial(scanvi, cache=cache), True, no_scvi))
    return methods
