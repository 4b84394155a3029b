"""Joint latents of reference and query, and their scores by scib-metrics.

To add a method, write a function ``(task, seed) -> (n_reference + n_query, d)`` array, the reference
first, and add a line to `build_embeddings`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anndata
import numpy as np
from _mapping_cache import cache_file, write_cache
from _mapping_peers import SCANVI, run_scanvi
from _mapping_sctab import SURGERY, surgery_latent
from _peers import variable_genes

if TYPE_CHECKING:
    from _mapping_tasks import MappingTask
    from anndata import AnnData

TOTALS = ("Bio conservation", "Batch correction", "Total")
"""Means of scib-metrics over its two kinds of scores, and 0.6 of the first + 0.4 of the second."""


SCTAB_KINDS = {
    "sctab-surgery": "genes",
    "sctab-reconstruction": "reconstruction",
    "sctab-scvi": "scvi",
}
"""Kind of reference by key on the command line."""


class Timed(NamedTuple):
    """A latent that may come from the cache, and the seconds that its training took."""

    latent: np.ndarray  # (n_reference + n_query, d)
    seconds: float


@dataclass(frozen=True)
class Embedding:
    """One selectable method that gives a joint latent.

    Parameters
    ----------
    key
        Name on the command line.
    name
        Name in the tables.
    run
        Function of a task and a seed that gives ``(n_reference + n_query, d)``, or with `Timed`
        its own account of the time.
    seeded
        Whether the result depends on the seed. A deterministic method runs once per task.
    missing
        Why the method cannot run here; empty where it can.
    """

    key: str
    name: str
    run: Callable[[MappingTask, int], np.ndarray | Timed]
    seeded: bool
    missing: str = ""


def joint_counts(task: MappingTask) -> AnnData:
    """Reference and query, in this order, over the variable ones of the genes that both hold.

    ``obs`` holds donor and batch; no label.
    """
    reference, query = task.labelled_reference(), task.unlabelled_query()
    del reference.obs[task.label_key]
    sides = {"reference": reference, "query": query}
    joint = anndata.concat(sides, join="inner", index_unique="-")
    return joint[:, variable_genes(joint, task.batch_key)].copy()


def pca(task: MappingTask, seed: int = 0) -> np.ndarray:
    """50 principal components of the log-normalised variable genes: nothing is integrated."""
    import scanpy as sc

    del seed
    joint = joint_counts(task)
    sc.pp.normalize_total(joint, target_sum=1e4)
    sc.pp.log1p(joint)
    return sc.pp.pca(joint.X, n_comps=50, svd_solver="arpack", random_state=0)


def scvi_joint(task: MappingTask, seed: int, *, cache: Path) -> Timed:
    """SCVI trained on both sides without labels, as in the integration tutorial of scvi-tools."""
    import scvi

    path = cache_file(cache, task, seed, "scvi")
    if path.exists():
        with np.load(path) as stored:
            print(f"  (SCVI of seed {seed} is read from {path.name})", flush=True)
            return Timed(stored["latent"], float(stored["seconds"]))
    scvi.settings.seed = seed
    start = time.perf_counter()
    joint = joint_counts(task)
    scvi.model.SCVI.setup_anndata(joint, batch_key=task.batch_key)
    model = scvi.model.SCVI(joint, n_layers=2, n_latent=30, gene_likelihood="nb")
    model.train(enable_progress_bar=False)
    latent = model.get_latent_representation().astype(np.float32)
    seconds = time.perf_counter() - start
    write_cache(path, latent=latent, seconds=np.array(seconds))
    return Timed(latent, seconds)


def scanvi_latent(task: MappingTask, seed: int, *, cache: Path) -> Timed:
    """Both sides in scANVI that was trained on the reference and mapped to the query."""
    run = run_scanvi(task, seed, cache)
    return Timed(run.latent, run.seconds)


def sctab_latent(task: MappingTask, seed: int, *, kind: str, cache: Path) -> Timed:
    """Both sides in SCTAB that was trained on the reference and mapped to the query."""
    return Timed(*surgery_latent(task, seed, kind=kind, cache=cache))


def build_embeddings(cache: Path) -> list[Embedding]:
    """Every method in the order of the table.

    Parameters
    ----------
    cache
        Folder of finished runs of scANVI and SCVI.
    """
    no_scib = "" if find_spec("scib_metrics") else "scib-metrics is not installed"
    scvi_run, scanvi_run = partial(scvi_joint, cache=cache), partial(scanvi_latent, cache=cache)
    return [
        Embedding("pca", "PCA", pca, False, no_scib),
        Embedding("scvi", "SCVI on both", scvi_run, True, no_scib),
        Embedding("scanvi", SCANVI, scanvi_run, True, no_scib),
        *(
            Embedding(
                key, SURGERY[kind], partial(sctab_latent, kind=kind, cache=cache), True, no_scib
            )
            for key, kind in SCTAB_KINDS.items()
        ),
    ]


def score_latent(task: MappingTask, latent: np.ndarray, unintegrated: np.ndarray) -> dict:
    """Scores of scib-metrics, unscaled, by name; all cells of both sides count.

    Parameters
    ----------
    task
        The task; its labels on both sides are the cell types.
    latent
        What is scored, ``(n_reference + n_query, d)``.
    unintegrated
        Principal components of the same cells, which PCR comparison compares with.
    """
    from scib_metrics.benchmark import Benchmarker

    keys = [task.label_key, task.batch_key]
    sides = {"reference": task.reference, "query": task.query}
    cells = {side: anndata.AnnData(obs=adata.obs[keys]) for side, adata in sides.items()}
    joint = anndata.concat(cells, index_unique="-")
    if latent.shape[0] != joint.n_obs or not np.isfinite(latent).all():
        raise ValueError(f"latent of {task.name}: {latent.shape}, or values that are not finite.")
    joint.obsm["latent"] = np.asarray(latent, dtype=np.float32)
    joint.obsm["unintegrated"] = np.asarray(unintegrated, dtype=np.float32)
    benchmark = Benchmarker(
        joint,
        batch_key=task.batch_key,
        label_key=task.label_key,
        embedding_obsm_keys=["latent"],
        pre_integrated_embedding_obsm_key="unintegrated",
        progress_bar=False,
    )
    benchmark.benchmark()
    scores = benchmark.get_results(min_max_scale=False).loc["latent"]
    return {str(name): float(value) for name, value in scores.items()}


def embed_task(
    task: MappingTask, embeddings: list[Embedding], seeds: list[int]
) -> list[dict[str, object]]:
    """Every method on one task; deterministic ones once, with the first seed's number."""
    rows: list[dict[str, object]] = []
    if not embeddings:
        return rows
    print(f"{task.name}: {task.reference.n_obs} + {task.query.n_obs} cells", flush=True)
    unintegrated = pca(task)
    for method in embeddings:
        for seed in seeds if method.seeded else seeds[:1]:
            start = time.perf_counter()
            latent = method.run(task, seed)
            embedded = time.perf_counter()
            latent, seconds = latent if isinstance(latent, Timed) else (latent, embedded - start)
            scores = score_latent(task, latent, unintegrated)
            keys = {"method": method.name, "task": task.name, "family": task.family, "seed": seed}
            rows.append(keys | scores | {"seconds": seconds})
            text = "  ".join(f"{name} {scores[name]:.3f}" for name in TOTALS)
            print(
                f"  {method.name:<20} seed {seed if method.seeded else '-'}  {text}  "
                f"{seconds:.1f} s + {time.perf_counter() - embedded:.1f} s of scoring",
                flush=True,
            )
    return rows
