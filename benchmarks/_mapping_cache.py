"""Cache of finished trainings for later runs of the mapping benchmark."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from _mapping_tasks import MappingTask


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
