"""Atlases on disk: memory, speed and accuracy at growing numbers of cells.

    .venv-latest/bin/python benchmarks/atlas.py --folder made_atlas

Writes made files of scTab's size (19,331 genes, 164 types) to ``--folder``, some 5 GB for a million
cells, and runs every step in a process of its own, whose peak memory above imports is noted. Needs
Python 3.12 and the extra ``atlas``. Writes ``results/atlas.csv``, a row per step and after each,
and ``results/atlas.md``. Steps that have a row are not repeated.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scvi
from _arguments import measured, new_parser, report
from _timing import measure
from scipy import sparse

from scvi_sctab import SCTAB, benchmark, datasets
from scvi_sctab.benchmark import Method, Task

N_GENES, N_TYPES, N_DONORS = 19_331, 164, 20
CELLS_PER_FILE, BLOCK = 100_000, 20_000
KEYS = {"labels_key": "cell_type", "donor_key": "donor", "batch_key": "assay"}
IMPORTS = ["annbatch", "dask.array", "zarr", "lightning.pytorch", "scvi_sctab.data.stores"]


def files(folder: str | Path, n_cells: int) -> list[Path]:
    """List the files of an atlas of this size."""
    return [Path(folder) / f"made-{i}.h5ad" for i in range(-(-n_cells // CELLS_PER_FILE))]


def draw(rows: sparse.csr_matrix, n_cells: int, seed: int) -> ad.AnnData:
    """Draw cells of real ones; the genes of a type are moved by a distance of its own.

    Each donor lacks a twentieth of the genes, which makes differences between donors.
    """
    rng = np.random.default_rng(seed)
    types, donors = rng.integers(N_TYPES, size=n_cells), rng.integers(N_DONORS, size=n_cells)
    cells = rows[rng.integers(rows.shape[0], size=n_cells)]
    lengths = np.diff(cells.indptr)
    genes = (cells.indices + np.repeat(types * (N_GENES // N_TYPES), lengths)) % N_GENES
    lost = (genes * 7 + np.repeat(donors, lengths)) % 20 == 0
    cells.indices = genes.astype(np.int32)
    cells.data[lost] = 0
    cells.eliminate_zeros()
    cells.sort_indices()
    obs = {
        "cell_type": pd.Categorical.from_codes(types, [f"type {i}" for i in range(N_TYPES)]),
        "donor": pd.Categorical.from_codes(donors, [f"donor {i}" for i in range(N_DONORS)]),
        "assay": pd.Categorical(np.where(donors % 2, "10x 3' v3", "10x 5' v1")),
    }
    names = [f"{seed}-{i}" for i in range(n_cells)]
    var = pd.DataFrame(index=[f"gene{i}" for i in range(N_GENES)])
    return ad.AnnData(cells, pd.DataFrame(obs, index=names), var)


def generate(folder: Path, n_cells: int) -> None:
    """Write the files that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [cells.X.tocsr() for cells in (datasets.pbmc_kang18(), datasets.pbmc3k())]
    for part in parts:
        part.resize(part.shape[0], N_GENES)
    rows = sparse.vstack(parts, format="csr").astype(np.float32)
    for number, path in enumerate(files(folder, n_cells)):
        if not path.exists():
            n_here = min(CELLS_PER_FILE, n_cells - number * CELLS_PER_FILE)
            blocks = [draw(rows, min(BLOCK, n_here - first), number * 1000 + first // BLOCK)
                      for first in range(0, n_here, BLOCK)]  # fmt: skip
            beside = path.with_suffix(".part")
            ad.concat(blocks).write_h5ad(beside)
            beside.rename(path)


def prepare(folder: str, n_cells: int) -> dict[str, float]:
    """Join the files into a corpus."""
    from scvi_sctab.data.stores import prepare_corpus

    start, corpus = time.perf_counter(), Path(folder) / f"corpus-{n_cells}"
    shutil.rmtree(corpus, ignore_errors=True)
    prepare_corpus(files(folder, n_cells), corpus, **KEYS)
    return {"cells_per_s": n_cells / (time.perf_counter() - start)}


def train(folder: str, n_cells: int) -> dict[str, float]:
    """Train one epoch with the paper preset, and save."""
    from scvi_sctab.data.stores import AtlasDataModule

    scvi.settings.seed = 0
    atlas = AtlasDataModule(Path(folder) / f"corpus-{n_cells}")
    model = SCTAB(registry=atlas.registry, preset="paper")
    start = time.perf_counter()
    model.train(max_epochs=1, datamodule=atlas, accelerator="cpu", enable_progress_bar=False)
    seconds = time.perf_counter() - start
    model.save(Path(folder) / f"model-{n_cells}", overwrite=True)
    f1 = model.evaluate()["f1"]
    return {"cells_per_s": len(model.train_indices) / seconds,
            "macro_f1": float(f1["macro average"]), "accuracy": float(f1["accuracy"])}  # fmt: skip


def annotate(folder: str, n_cells: int) -> dict[str, float]:
    """Annotate the files one after another, each on disk."""
    model = SCTAB.load(Path(folder) / f"model-{n_cells}", adata=False)
    right, start = 0, time.perf_counter()
    for path in files(folder, n_cells):
        cells = ad.read_h5ad(path, backed="r")
        labels = model.annotate(cells)["label"].astype(str)
        right += int((labels == cells.obs["cell_type"].astype(str)).sum())
        cells.file.close()
    seconds = time.perf_counter() - start
    return {"cells_per_s": n_cells / seconds, "accuracy": right / n_cells}


STEPS = {f.__name__: f for f in (prepare, train, annotate)}
COLUMNS = {"cells_per_s": "cells/s", "above": "memory, MiB",
           "macro_f1": "macro F1, held-out donors", "accuracy": "accuracy"}  # fmt: skip


def main() -> None:
    """Run the steps that have no row, and report."""
    parser = new_parser(__doc__, seeds=[0])
    parser.add_argument("--folder", type=Path, help="for files, corpora and models")
    parser.add_argument("--cells", type=int, nargs="+", default=[100_000, 1_000_000])
    args = parser.parse_args()

    def measure_step(_: Task, n_cells: int, step: Callable) -> dict[str, float]:
        generate(args.folder, n_cells)
        return measure(step, IMPORTS, folder=args.folder, n_cells=n_cells)

    tasks = [Task(f"{n:,} cells", lambda seed, n=n: n) for n in args.cells]
    steps = [Method(name, lambda seed, f=f: f, is_seeded=False) for name, f in STEPS.items()]
    rows = measured("atlas", args, tasks, steps, measure_step)
    form = {"cells_per_s": ",.0f", "above": ",.0f"}
    table = benchmark.method_table(rows, COLUMNS, ("method", "task"), levels=(), form=form)
    report("atlas", args, table.rename_axis("step"))


if __name__ == "__main__":
    main()
