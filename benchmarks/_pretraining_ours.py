"""Self-supervised encoders of `scvi_sctab.pretrain`: as representations, and trained on labels.

Trained models are kept in the cache and trained again when the package has changed. To add an
encoder, add a line to `ENCODERS`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from functools import cache as once
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from _mapping_cache import cache_file
from _peers import Prediction
from _pretraining_latents import Latents, Representation
from _pretraining_programmes import programmes_of

if TYPE_CHECKING:
    from _mapping_tasks import MappingTask
    from _pretraining_tasks import PretrainingTask
    from anndata import AnnData


class Encoder(NamedTuple):
    """A class of `scvi_sctab.pretrain` and what it is built with."""

    name: str  # in the tables
    model: str = "MaskedAutoencoder"
    options: dict[str, Any] = {}
    programmes: bool = False  # whether it is given gene programmes


ENCODERS = {
    "mae": Encoder("MAE"),
    "autoencoder": Encoder("autoencoder", options={"mask": "none"}),
    "mae-8": Encoder("MAE, 80 % hidden", options={"mask_rate": 0.8}),
    "mae-counts": Encoder("MAE of counts", options={"likelihood": "nb"}),
    "mae-programmes": Encoder(
        "MAE, programmes hidden", options={"mask": "gene_programme"}, programmes=True
    ),
    "mae-to-programme": Encoder(
        "MAE, programme to programme", options={"mask": "programme_to_programme"}, programmes=True
    ),
    "barlow": Encoder("Barlow Twins", "BarlowTwins"),
    "byol": Encoder("BYOL", "BYOL"),
}
TUNED = ("mae", "autoencoder", "barlow", "byol")
"""Encoders that are trained on labels, too."""
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


PARTS = ("pretrain", "base", "module", "train", "nn", "data", "_config.py")
"""Where in the package a change makes another encoder."""


class Trained(NamedTuple):
    """A trained encoder."""

    model: Any
    seconds: float


def missing(name: str = "", package: str = "pretrain") -> str:
    """Why a class of `scvi_sctab.pretrain`, or of another package, cannot run here, or nothing."""
    if find_spec("scvi_sctab") is None:
        return "scvi_sctab is not installed"
    place = f"scvi_sctab.{package}"
    if find_spec(place) is None:
        return f"this scvi_sctab has no `{package}`"
    known = not name or hasattr(import_module(place), name)
    return "" if known else f"this {place} has no `{name}`"


@once
def digest() -> str:
    """Digest of the sources that encoders are trained by."""
    import scvi_sctab

    found = hashlib.sha256()
    for part in PARTS:
        path = Path(scvi_sctab.__file__).parent / part
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            found.update(file.read_bytes())
    return found.hexdigest()[:8]


def pretrain(reference: AnnData, encoder: Encoder, seed: int) -> Any:
    """Train an encoder on cells, by default and without labels."""
    import scvi

    import scvi_sctab.pretrain

    scvi.settings.seed = seed
    cells = reference.copy()
    cells.obs = cells.obs[[]]
    options = dict(encoder.options)
    if encoder.programmes:
        options["programmes"] = programmes_of(cells)
    kind = getattr(scvi_sctab.pretrain, encoder.model)
    kind.setup_anndata(cells)
    model = kind(cells, **options)
    model.train(**QUIET)
    return model


def train_or_load(task: MappingTask, seed: int, key: str, cache: Path) -> Trained:
    """Encoder of the reference's cells; its seconds are those of the training in either case."""
    import scvi_sctab.pretrain

    encoder = ENCODERS[key]
    name = f"pretrain_{key}_{digest()}"
    folder = cache_file(cache, task, seed, name).with_suffix("")
    if not folder.exists():
        start = time.process_time()
        model = pretrain(task.labelled_reference(), encoder, seed)
        seconds = time.process_time() - start
        part = folder.with_name(f"part-{folder.name}")
        shutil.rmtree(part, ignore_errors=True)
        model.save(part, save_anndata=False)
        (part / "seconds.json").write_text(json.dumps(seconds))
        part.replace(folder)
    kind = getattr(scvi_sctab.pretrain, encoder.model)
    seconds = json.loads((folder / "seconds.json").read_text())
    return Trained(kind.load(folder, adata=False, accelerator="cpu"), seconds)


def latents(task: MappingTask, seed: int, *, key: str, cache: Path) -> Latents:
    """Both sides in the encoder of the reference."""
    trained = train_or_load(task, seed, key, cache)
    sides = (task.labelled_reference(), task.unlabelled_query())
    start = time.process_time()
    embedded = [trained.model.get_latent_representation(side) for side in sides]
    return Latents(*embedded, trained.seconds + time.process_time() - start)


def from_encoder(
    task: PretrainingTask, seed: int, *, key: str, cache: Path, frozen: bool, linear_skip: bool
) -> Prediction:
    """SCTAB on an encoder, on the labelled and unlabelled cells of the reference."""
    import scvi

    from scvi_sctab import SCTAB

    trained = train_or_load(task.split(), seed, key, cache)
    scvi.settings.seed = seed
    start = time.process_time()
    options = {"freeze_encoder": frozen}
    if not linear_skip:
        options["linear_skip"] = False
    model = SCTAB.from_pretrained(
        trained.model, task.label_key, adata=task.partly_labelled(seed), **options
    )
    model.train(**QUIET)
    labels = np.asarray(model.predict(task.unlabelled_query())).astype(str)
    seconds = trained.seconds + time.process_time() - start
    name = ENCODERS[key].name
    name = f"SCTAB on {name}" if linear_skip else name
    return Prediction(f"{name}, {'frozen' if frozen else 'fine-tuned'}", labels, seconds)


def build_ours(cache: Path) -> list[Representation]:
    """Representations of ours."""
    return [
        Representation(
            key,
            encoder.name,
            partial(latents, key=key, cache=cache),
            True,
            missing(encoder.model),
            kept=False,
        )
        for key, encoder in ENCODERS.items()
    ]


def build_predictors(
    cache: Path,
) -> dict[str, tuple[Callable[[PretrainingTask, int], Prediction], str]]:
    """Models of ours that are trained on labels, by key: the function, and why it cannot run."""
    arms = {}
    for key in TUNED:
        reason = missing(ENCODERS[key].model)
        for frozen, skip in ((False, False), (True, True), (False, True)):
            run = partial(from_encoder, key=key, cache=cache, frozen=frozen, linear_skip=skip)
            arm = f"{'sctab-' * skip}{key}-{'frozen' if frozen else 'tuned'}"
            arms[arm] = (run, reason)
    return arms
