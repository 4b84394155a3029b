"""SCTAB in the mapping benchmark: trained references, and queries mapped onto them.

References are read from the cache if it has the same run; their seconds are those of the
training in either case. Mapped queries are kept in the memory of the process.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from functools import cache as once
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from _mapping_cache import cache_file
from _peers import Method, Prediction, sctab, variable_genes

if TYPE_CHECKING:
    from _mapping_tasks import MappingTask
    from anndata import AnnData

ZERO_SHOT = "SCTAB zero-shot, no batch_key"
MEAN_ROW = "SCTAB mean row"
SURGERY = {
    "genes": "SCTAB surgery",
    "reconstruction": "SCTAB surgery, reconstruction",
    "scvi": "SCTAB on SCVI, surgery",
}
"""Name of the mapped query by kind of reference."""
SLOW = ("sctab-scvi",)
"""Keys that only `--only` runs."""


class Reference(NamedTuple):
    """A trained reference."""

    model: Any  # SCTAB with the reference as its AnnData
    seconds: float  # training


class Mapped(NamedTuple):
    """A query on its reference."""

    reference: Reference
    model: Any  # SCTAB of the query, trained on it
    before: dict[str, Any]  # state dict of the reference's module before surgery
    untrained: np.ndarray  # (n_query,), labels before the query model was trained
    labels: np.ndarray  # (n_query,), labels after
    train_seconds: float  # of the query model
    seconds: float  # all, that of the reference included


@once
def source_digest() -> str:
    """Digest of the package's sources: another package trains anew."""
    import scvi_sctab

    digest = hashlib.sha256()
    for path in sorted(Path(scvi_sctab.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def _build_on_genes(task: MappingTask, reference: AnnData, **options: float) -> Any:
    """SCTAB on the genes of the reference, told the batches."""
    from scvi_sctab import SCTAB

    keys = {"batch_key": task.batch_key, "donor_key": task.donor_key}
    SCTAB.setup_anndata(reference, labels_key=task.label_key, **keys)
    return SCTAB(reference, **options)


def _build_on_scvi(task: MappingTask, reference: AnnData) -> Any:
    """SCTAB on SCVI that was trained by the recipe of `_peers.map_scanvi`."""
    import scvi

    from scvi_sctab import SCTAB

    reference = reference[:, variable_genes(reference, task.batch_key)].copy()
    surgery = {"use_layer_norm": "both", "use_batch_norm": "none", "encode_covariates": True}
    size = {"n_layers": 2, "n_latent": 30, "dropout_rate": 0.2, "gene_likelihood": "nb"}
    scvi.model.SCVI.setup_anndata(reference, batch_key=task.batch_key)
    base = scvi.model.SCVI(reference, **surgery, **size)
    base.train(enable_progress_bar=False)
    return SCTAB.from_pretrained(base, labels_key=task.label_key, donor_key=task.donor_key)


BUILDERS: dict[str, Callable[[MappingTask, AnnData], Any]] = {
    "genes": _build_on_genes,
    "reconstruction": partial(_build_on_genes, reconstruction_weight=1.0),
    "scvi": _build_on_scvi,
}


def train_reference(task: MappingTask, seed: int, kind: str, *, cache: Path) -> Reference:
    """Reference of a task, trained or read.

    Parameters
    ----------
    task, seed
        The task and the seed.
    kind
        Key of `BUILDERS`.
    cache
        Folder of finished runs.
    """
    import scvi

    from scvi_sctab import SCTAB

    name = f"sctab_{kind}_{source_digest()}"
    folder = cache_file(cache, task, seed, name).with_suffix("")
    scvi.settings.seed = seed
    if folder.exists():
        print(f"  (reference of seed {seed} is read from {folder.name})", flush=True)
        seconds = json.loads((folder / "seconds.json").read_text())
        return Reference(SCTAB.load(folder, accelerator="cpu"), seconds)
    start = time.perf_counter()
    model = BUILDERS[kind](task, task.labelled_reference())
    model.train(enable_progress_bar=False)
    seconds = time.perf_counter() - start
    part = folder.with_name(f"part-{folder.name}")
    shutil.rmtree(part, ignore_errors=True)
    model.save(part, save_anndata=True)
    (part / "seconds.json").write_text(json.dumps(seconds))
    part.replace(folder)
    return Reference(model, seconds)


_mapped: dict[tuple[str, int, str], Mapped] = {}


def map_query(task: MappingTask, seed: int, kind: str, *, cache: Path) -> Mapped:
    """Map the query onto its reference and train on it, once per process.

    Parameters
    ----------
    task, seed, kind, cache
        As of `train_reference`.
    """
    import scvi

    from scvi_sctab import SCTAB

    key = (task.name, seed, kind)
    if key in _mapped:
        return _mapped[key]
    reference = train_reference(task, seed, kind, cache=cache)
    scvi.settings.seed = seed
    state = {name: t.clone() for name, t in reference.model.module.state_dict().items()}
    start = time.perf_counter()
    model = SCTAB.load_query_data(task.unlabelled_query(), reference.model)
    untrained = model.predict().astype(str)
    ready = time.perf_counter()
    model.train(enable_progress_bar=False)
    trained = time.perf_counter()
    labels = model.predict().astype(str)
    seconds = reference.seconds + time.perf_counter() - start
    run = Mapped(reference, model, state, untrained, labels, trained - ready, seconds)
    return _mapped.setdefault(key, run)


def zero_shot(task: MappingTask, seed: int) -> list[Prediction]:
    """SCTAB with its defaults: no batch is declared, and nothing is fitted to the query."""
    (prediction,) = sctab(task, seed)
    return [prediction._replace(method=ZERO_SHOT)]


def mean_row(task: MappingTask, seed: int, *, cache: Path) -> list[Prediction]:
    """The reference, told its batches, predicts the query, whose batches it does not know."""
    reference = train_reference(task, seed, "genes", cache=cache)
    start = time.perf_counter()
    labels = reference.model.predict(task.unlabelled_query()).astype(str)
    return [Prediction(MEAN_ROW, labels, reference.seconds + time.perf_counter() - start)]


def surgery(task: MappingTask, seed: int, *, kind: str, cache: Path) -> list[Prediction]:
    """`SCTAB.load_query_data`, training on the query without labels, prediction."""
    run = map_query(task, seed, kind, cache=cache)
    return [Prediction(SURGERY[kind], run.labels, run.seconds)]


def surgery_latent(task: MappingTask, seed: int, *, kind: str, cache: Path) -> Mapped:
    """Both sides in the query's model, ``(n_reference + n_query, n_d)``, and the seconds."""
    run = map_query(task, seed, kind, cache=cache)
    sides = [run.reference.model.adata, run.model.adata]
    parts = [run.model.get_latent_representation(side) for side in sides]
    return np.concatenate(parts), run.seconds


def build_methods(cache: Path) -> list[Method]:
    """SCTAB's methods in the order of the table.

    Parameters
    ----------
    cache
        Folder of trained references.
    """
    absent = "" if find_spec("scvi_sctab") else "scvi_sctab is not installed"
    runs = {
        "sctab-zero-shot": zero_shot,
        "sctab-mean-row": partial(mean_row, cache=cache),
        "sctab-surgery": partial(surgery, kind="genes", cache=cache),
        "sctab-reconstruction": partial(surgery, kind="reconstruction", cache=cache),
        "sctab-scvi": partial(surgery, kind="scvi", cache=cache),
    }
    return [Method(key, run, True, absent) for key, run in runs.items()]
