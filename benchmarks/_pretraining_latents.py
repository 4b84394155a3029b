"""Representations that are fitted to the reference without labels, each kept in a cache.

To add one, write a function ``(task, seed) -> Latents`` and add a line to `build_latents`.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from _mapping_cache import cache_file, write_cache
from _peers import align_genes, log_normalise
from _pretraining_network import UNITS, build_encoder, embed

if TYPE_CHECKING:
    from _mapping_tasks import MappingTask

HERE = Path(__file__).resolve().parent


class Latents(NamedTuple):
    """Both sides in one space."""

    reference: np.ndarray  # (n_reference, d)
    query: np.ndarray  # (n_query, d)
    seconds: float  # of the processor: training and embedding


class Representation(NamedTuple):
    """One selectable representation."""

    key: str  # on the command line
    name: str  # in the tables
    fit: Callable[[MappingTask, int], Latents]
    seeded: bool = True
    missing: str = ""  # why it cannot run here
    kept: bool = True  # in the cache; ours keep their models instead


def read_or_fit(
    task: MappingTask, seed: int, representation: Representation, cache: Path
) -> Latents:
    """Latents of one representation, from `cache` where the same run is there.

    The seconds are those of the training in either case.
    """
    if not representation.kept:
        return representation.fit(task, seed)
    seed = seed if representation.seeded else 0
    path = cache_file(cache, task, seed, representation.key)
    if not path.exists():
        latents = representation.fit(task, seed)
        write_cache(path, **{k: np.asarray(v) for k, v in latents._asdict().items()})
    with np.load(path) as stored:
        return Latents(stored["reference"], stored["query"], float(stored["seconds"]))


def log_expression(task: MappingTask) -> tuple:
    """Log-normalised counts of both sides over the reference's genes, CSR."""
    genes = task.reference.var_names
    return tuple(log_normalise(align_genes(side, genes)) for side in (task.reference, task.query))


def pca(task: MappingTask, seed: int) -> Latents:
    """64 principal components of the reference's centred cells; the query is projected.

    The paper's own comparison fitted components to reference and query apart, so that the axes of
    the two differ; here they are fitted once.
    """
    from sklearn.decomposition import PCA

    start = time.process_time()
    reference, query = (side.toarray() for side in log_expression(task))
    model = PCA(UNITS[-1], svd_solver="covariance_eigh", random_state=seed).fit(reference)
    sides = [model.transform(side).astype(np.float32) for side in (reference, query)]
    return Latents(*sides, time.process_time() - start)


def random_encoder(task: MappingTask, seed: int) -> Latents:
    """The published network with random weights."""
    start = time.process_time()
    sides = log_expression(task)
    encoder = build_encoder(sides[0].shape[1], seed)
    return Latents(*(embed(encoder, side) for side in sides), time.process_time() - start)


def scvi_latents(task: MappingTask, seed: int) -> Latents:
    """SCVI by default, trained on the reference without batches; the query is encoded.

    A model that knows the reference's donors as batches could not encode donors it has not seen.
    """
    import scvi

    scvi.settings.seed = seed
    reference, query = task.labelled_reference(), task.unlabelled_query()
    start = time.process_time()
    scvi.model.SCVI.setup_anndata(reference)
    model = scvi.model.SCVI(reference)
    model.train(accelerator="cpu", enable_progress_bar=False)
    scvi.model.SCVI.prepare_query_anndata(query, model)
    sides = [model.get_latent_representation(side) for side in (reference, query)]
    return Latents(*sides, time.process_time() - start)


def joint_embedding(task: MappingTask, seed: int, *, python: str) -> Latents:
    """JointEmbeddingSCVI by default, in its own environment; otherwise as SCVI."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("reference.h5ad", "query.h5ad", "latents.npz")]
        reference, query = task.labelled_reference(), task.unlabelled_query()
        for side, path in zip((reference, query), paths[:2], strict=True):
            side = side[:, reference.var_names].copy()
            side.obs = side.obs[[]]
            side.write_h5ad(path)
        command = [python, str(HERE / "joint_embedding_peer.py"), *map(str, paths)]
        command += ["--seed", str(seed), "--threads", os.environ.get("OMP_NUM_THREADS", "1")]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, env=environment
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
        with np.load(paths[2]) as stored:
            return Latents(stored["reference"], stored["query"], float(stored["seconds"]))


def build_latents(joint_embedding_python: str) -> list[Representation]:
    """Every representation that is not ours, in the order of the table.

    Parameters
    ----------
    joint_embedding_python
        Interpreter of an environment with scvi-tools >= 1.5.
    """
    no_python = ""
    if not os.access(joint_embedding_python, os.X_OK):
        no_python = f"no interpreter at {joint_embedding_python!r} ($JOINT_EMBEDDING_PYTHON)"
    joint = partial(joint_embedding, python=joint_embedding_python)
    return [
        Representation("pca", "PCA64", pca, False),
        Representation("random", "random encoder", random_encoder),
        Representation("scvi", "SCVI", scvi_latents),
        Representation("joint-embedding", "JointEmbeddingSCVI", joint, True, no_python),
    ]
