"""Steps of the benchmark of atlases, each run in a process of its own by ``atlas.py``."""

from __future__ import annotations

import itertools
import shutil
import time
from pathlib import Path

import numpy as np
import scvi
import torch
from _arguments import DATA
from _atlas_made import KEYS, files, write
from anndata import read_h5ad

from scvi_sctab import SCTAB
from scvi_sctab.data.stores import AtlasDataModule, Corpus, prepare_corpus

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}
BATCH = 2048
# Labels of three studies by common names; others are cells without a label.
COMMON = {
    "kang18_merged_2src": {
        "CD4 T cells": "CD4 T", "CD8 T cells": "CD8 T", "B cells": "B", "NK cells": "NK",
        "CD14+ Monocytes": "CD14 Mono", "FCGR3A+ Monocytes": "CD16 Mono",
        "Dendritic cells": "DC", "Megakaryocytes": "platelet",
    },
    "pbmc3k_labelled": {
        "Naive CD4 T": "CD4 T", "Memory CD4 T": "CD4 T", "CD8 T": "CD8 T", "B": "B", "NK": "NK",
        "CD14+ Mono": "CD14 Mono", "FCGR3A+ Mono": "CD16 Mono", "DC": "DC",
        "Platelet": "platelet",
    },
    "onek1k_18k_20donors_100genes": {
        "cd4nc": "CD4 T", "cd4et": "CD4 T", "cd4sox4": "CD4 T", "cd8et": "CD8 T",
        "cd8nc": "CD8 T", "cd8s100b": "CD8 T", "nk": "NK", "nkr": "NK", "bin": "B", "bmem": "B",
        "monoc": "CD14 Mono", "mononc": "CD16 Mono", "dc": "DC", "plasma": "plasma",
    },
}  # fmt: skip
# Cells on which training and prediction are timed beside memory.
N_TIMED = 40 * BATCH


def _corpus(folder: str, n_cells: int) -> Path:
    return Path(folder) / f"corpus-{n_cells}"


def _model(folder: str, n_cells: int) -> Path:
    return Path(folder) / f"model-{n_cells}"


def generate(folder: str, n_cells: int) -> dict[str, float]:
    """Write the files."""
    return write(folder, n_cells)


def prepare(folder: str, n_cells: int) -> dict[str, float]:
    """Join the files into a corpus."""
    start = time.perf_counter()
    shutil.rmtree(_corpus(folder, n_cells), ignore_errors=True)
    corpus = prepare_corpus(files(folder, n_cells), _corpus(folder, n_cells), **KEYS)
    assert len(corpus) == n_cells
    return {"cells_per_s": n_cells / (time.perf_counter() - start)}


def load(folder: str, n_cells: int, n_loaded: int = 200_000) -> dict[str, float]:
    """Read batches for training, by our loader and by that of annbatch alone, in turns."""
    from annbatch import Loader

    atlas = AtlasDataModule(_corpus(folder, n_cells))
    model = SCTAB(registry=atlas.registry, preset="paper")
    model._take_cells(atlas)
    splitter = model._training_cells(train_size=1.0, batch_size=BATCH)
    n_batches = min(n_loaded, n_cells) // BATCH

    def ours() -> float:
        batches = itertools.islice(splitter.train_dataloader(), n_batches)
        return sum(batch["X"].shape[0] for batch in batches)

    def theirs() -> float:
        loader = Loader(
            chunk_size=64, preload_nchunks=256, batch_size=BATCH, shuffle=True,
            preload_to_gpu=False, to="torch", rng=np.random.default_rng(0),
        )  # fmt: skip
        loader.add_datasets(Corpus.open(_corpus(folder, n_cells)).datasets())
        return sum(batch["X"].shape[0] for batch in itertools.islice(loader, n_batches))

    speeds = {"ours": [], "annbatch": []}
    for name, run in [("ours", ours), ("annbatch", theirs)] * 4:
        start = time.perf_counter()
        n = run()
        speeds[name].append(n / (time.perf_counter() - start))
    medians = {name: float(np.median(values[1:])) for name, values in speeds.items()}
    return {"cells_per_s": medians["ours"], "peer": medians["annbatch"]}


def train(folder: str, n_cells: int, n_steps: int | None = None) -> dict[str, float]:
    """Train one epoch with the paper preset, or some steps of it, and save."""
    scvi.settings.seed = 0
    atlas = AtlasDataModule(_corpus(folder, n_cells))
    model = SCTAB(registry=atlas.registry, preset="paper")
    limits = {} if n_steps is None else {"limit_train_batches": n_steps}
    start = time.perf_counter()
    model.train(max_epochs=1, datamodule=atlas, **limits, **QUIET)
    seconds = time.perf_counter() - start
    model.save(_model(folder, n_cells), overwrite=True)
    n_trained = len(model.train_indices) if n_steps is None else n_steps * BATCH
    scores = model.evaluate()
    return {
        "cells_per_s": n_trained / seconds,
        "macro_f1": float(scores.loc["macro average", "f1"]),
        "accuracy": float(scores.loc["accuracy", "f1"]),
    }


def annotate(folder: str, n_cells: int) -> dict[str, float]:
    """Annotate the files one after another, each on disk."""
    model = SCTAB.load(_model(folder, n_cells), adata=False)
    right = done = 0
    start = time.perf_counter()
    for path in files(folder, n_cells):
        cells = read_h5ad(path, backed="r")
        found = model.annotate(cells)
        right += int((found["label"].astype(str) == cells.obs["cell_type"].astype(str)).sum())
        done += cells.n_obs
        cells.file.close()
    return {"cells_per_s": done / (time.perf_counter() - start), "accuracy": right / done}


def beside_memory(folder: str, n_cells: int) -> dict[str, float]:
    """Train and predict from a store and from memory, in turns, in one process."""
    scvi.settings.seed = 0
    atlas = AtlasDataModule(_corpus(folder, n_cells))
    store = SCTAB(registry=atlas.registry, preset="paper")
    store._take_cells(atlas)
    cells = atlas.adata[:N_TIMED].to_memory()
    SCTAB.setup_anndata(cells, **KEYS)
    memory = SCTAB(cells, preset="paper")
    splitters = {
        "store": store._training_cells(train_size=1.0, batch_size=BATCH),
        "memory": memory._training_cells(train_size=1.0, batch_size=BATCH),
    }
    module = memory.module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)

    def train(name: str, n_steps: int) -> None:
        for batch in itertools.islice(splitters[name].train_dataloader(), n_steps):
            optimizer.zero_grad()
            _, _, output = module(batch)
            output.loss.backward()
            optimizer.step()

    def predict(name: str, n_steps: int) -> None:
        of = {"store": atlas.adata, "memory": cells}[name]
        memory._stack(memory._embed, memory.module.encoder.n_output,
                      memory._select(of, np.arange(n_steps * BATCH)), None)  # fmt: skip

    memory.is_trained_ = True
    found = {}
    for task, run, n_steps in (("train", train, 6), ("predict", predict, 12)):
        seconds = {"store": [], "memory": []}
        for name in ["store", "memory"] * 5:
            start = time.perf_counter()
            run(name, n_steps)
            seconds[name].append(time.perf_counter() - start)
        pairs = np.array(seconds["memory"][1:]) / np.array(seconds["store"][1:])
        found[f"{task}_cells_per_s"] = n_steps * BATCH / float(np.median(seconds["store"][1:]))
        found[f"{task}_ratio"] = float(np.median(pairs))
    return found


def join(folder: str) -> Path:
    """Join three real studies, with cells that have no label, into a corpus."""
    paths = []
    for name, common in COMMON.items():
        cells = read_h5ad(DATA / f"{name}.h5ad")
        cells.obs["type"] = cells.obs["cell_type"].astype(str).map(common)
        cells.obs["person"] = name[:4] + cells.obs["donor_id"].astype(str)
        paths.append(Path(folder) / f"{name}.h5ad")
        cells.write_h5ad(paths[-1])
    out = Path(folder) / "corpus-real"
    shutil.rmtree(out, ignore_errors=True)
    prepare_corpus(
        paths, out, labels_key="type", donor_key="person", batch_key="batch", genes="union"
    )
    return out


def real(folder: str, n_cells: int) -> dict[str, float]:
    """Train on three real studies from a store and from memory, three seeds each."""
    corpus = join(folder)
    scores = {"store": [], "memory": []}
    for seed in range(3):
        for name in scores:
            scvi.settings.seed = seed
            atlas = AtlasDataModule(corpus)
            if name == "store":
                model, given = SCTAB(registry=atlas.registry), {"datamodule": atlas}
            else:
                cells = atlas.adata.to_memory()
                parts = atlas.parts((cells.obs["type"] != "unknown").to_numpy())
                cells.obs = cells.obs[["type", "person", "batch"]].copy()
                SCTAB.setup_anndata(
                    cells, labels_key="type", donor_key="person", batch_key="batch"
                )
                model = SCTAB(cells)
                given = {"datasplitter_kwargs": {"external_indexing": parts}}
            model.train(**given, **QUIET)
            found = model.evaluate(indices=model.test_indices)
            scores[name].append(float(found.loc["macro average", "f1"]))
    row = {"cells": float(len(atlas.adata)), "unlabelled": float(
        (atlas.adata.obs["type"] == "unknown").sum()
    )}  # fmt: skip
    for name, values in scores.items():
        row |= {f"{name}_f1": float(np.mean(values)), f"{name}_sd": float(np.std(values, ddof=1))}
    return row
