"""The methods of the mapping benchmark, each a function of a task and a seed.

A new arm is one more function ``(task, seed) -> list[Prediction]`` and one more line in
`build_methods`; the method's name in the tables is that of its predictions.
"""

from __future__ import annotations

import hashlib
import os
import time
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from _peers import Method, Prediction, celltypist, logistic_regression, map_scanvi, sctab

if TYPE_CHECKING:
    from _mapping_tasks import MappingTask

SCANVI = "scANVI + surgery"


class ScanviRun(NamedTuple):
    """What one reference-trained and query-mapped scANVI gave."""

    labels: np.ndarray  # (n_query,), strings
    latent: np.ndarray  # (n_reference + n_query, 30), the reference first
    seconds: float  # training and prediction


def cache_file(cache: Path, task: MappingTask, seed: int, method: str) -> Path:
    """File of one run; its name changes with the cells, the labels and the scvi-tools version."""
    digest = hashlib.sha256(f"{task.name} {version('scvi-tools')}".encode())
    for part in (task.reference, task.query):
        digest.update(repr((part.shape, int(part.X.sum()))).encode())
        digest.update("\n".join([*part.obs_names, *part.var_names]).encode())
    for part in (task.train_labels, task.reference.obs[task.batch_key].to_numpy().astype(str)):
        digest.update("\n".join(part).encode())
    name = "".join(letter if letter.isalnum() else "_" for letter in task.name)
    return cache / f"{name}-{method}-{seed}-{digest.hexdigest()[:12]}.npz"


def write_cache(path: Path, **arrays: np.ndarray) -> None:
    """Write beside, then rename, so that an interrupted run leaves no half file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"part-{path.name}")
    np.savez_compressed(part, **arrays)
    part.replace(path)


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


def sctab_zero_shot(task: MappingTask, seed: int) -> list[Prediction]:
    """SCTAB with its defaults: no batch is declared, and nothing is fitted to the query."""
    (prediction,) = sctab(task, seed)
    return [prediction._replace(method="SCTAB zero-shot, no batch_key")]


def build_methods(celltypist_python: str, cache: Path) -> list[Method]:
    """Every method in the order of the table.

    Parameters
    ----------
    celltypist_python
        Interpreter of the environment that ``celltypist_env.sh`` makes.
    cache
        Folder of finished scANVI runs.
    """
    absent = "" if find_spec("scvi_sctab") else "scvi_sctab is not installed"
    no_scvi = "" if find_spec("scvi") else "scvi-tools is not installed"
    no_python = ""
    if not os.access(celltypist_python, os.X_OK):
        no_python = f"no interpreter at {celltypist_python!r} (see benchmarks/celltypist_env.sh)"
    methods = [
        Method("sctab-zero-shot", sctab_zero_shot, True, absent),
        Method("logreg", logistic_regression, False),
    ]
    for key, two_pass in (("celltypist", False), ("celltypist-2pass", True)):
        run = partial(celltypist, python=celltypist_python, two_pass=two_pass)
        methods.append(Method(key, run, two_pass, no_python))
    methods.append(Method("scanvi", partial(scanvi, cache=cache), True, no_scvi))
    return methods
