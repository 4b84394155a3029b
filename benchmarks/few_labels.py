"""Few labels and small references: models that are solved at once, beside regressions.

    .venv/bin/python benchmarks/few_labels.py --data ../shared/data

Part ``labels``: 5, 10 or 20 labels of each type among the cells of a reference; its other cells are
unlabelled, and a masked autoencoder is trained on all of them, once for each set. Part ``small``:
references of 100, 200 and 300 cells. Views, penalties and readings of scores were chosen on the sets
for choosing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from _arguments import measured, new_parser, report
from _tasks import (
    BUNDLED,
    BUNDLED_DONORS,
    CELL_LINES,
    CHEMISTRIES,
    KANG,
    LABEL_KEY,
    ONEK1K,
    ONEK1K_DONORS,
    PANCREAS,
    PBMC3K,
    Sides,
    hold_out,
    read,
)
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import LogisticRegression

from scvi_sctab import SCTAB
from scvi_sctab.benchmark import (
    Method,
    Split,
    Task,
    classification_scores,
    partial_labels,
    task_table,
)
from scvi_sctab.data import normalized_expression
from scvi_sctab.pretrain import MaskedAutoencoder

if TYPE_CHECKING:
    from anndata import AnnData

BARON = "pancreas_baron_human_mouse_328.h5ad"
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
PER_TYPE, SIZES = (5, 10, 20), (100, 200, 300)
UNKNOWN = "unknown"


def halves(folder: Path, name: str, single: bool = False) -> Sides:
    """Cells of a file in two halves at random."""
    cells = read(folder, name)
    if single:  # of two lines mixed, as demuxlet tells
        cells = cells[cells.obs["demuxlet_cls"].eq("SNG").to_numpy()].copy()
    half = np.random.default_rng(0).permutation(cells.n_obs) < cells.n_obs // 2
    return cells[half].copy(), cells[~half].copy()


FOR_CHOOSING: dict[str, Callable[[Path], Sides]] = {
    "kang donors": lambda folder: hold_out(read(folder, KANG), ("1256", "1488")),
    "bundled donors": lambda folder: hold_out(read(folder, BUNDLED), BUNDLED_DONORS),
    "cell lines": partial(halves, name=CELL_LINES, single=True),
    "pancreas, Baron": partial(halves, name=BARON),
    # Opened once before scores had a second reading, without which regressions were better here.
    "onek1k donors": lambda folder: hold_out(read(folder, ONEK1K), ONEK1K_DONORS),
}
OPENED_ONCE: dict[str, Callable[[Path], Sides]] = {
    "pbmc3k": partial(halves, name=PBMC3K),
    "pancreas, five protocols": partial(halves, name=PANCREAS),
    "10x, three chemistries": partial(halves, name=CHEMISTRIES),
}


class Cells(NamedTuple):
    """Cells of a run, and where the autoencoder of their set is kept."""

    split: Split
    encoder: Path


class Statement(NamedTuple):
    """What a method says about the cells of the query."""

    probability: pd.DataFrame
    covered: np.ndarray | None = None  # whether the set of 90 % has the true label


def labels_of(cells: AnnData) -> np.ndarray:
    """Labels of cells, ``(n_cells,)``."""
    return cells.obs[LABEL_KEY].to_numpy(dtype=str)


def few_labels(sides: Callable[[], Sides], n_per_type: int, cache: Path, seed: int) -> Cells:
    """Reference with a few labels of each type."""
    reference, query = sides()
    reference.obs[LABEL_KEY] = partial_labels(labels_of(reference), n_per_type, seed)
    return Cells(Split(reference, query, labels_of(query)), cache)


def small_reference(sides: Callable[[], Sides], n_cells: int, cache: Path, seed: int) -> Cells:
    """Reference of some cells, without types of which it has a single cell."""
    reference, query = sides()
    drawn = np.random.default_rng(seed).permutation(reference.n_obs)[:n_cells]
    reference = reference[np.sort(drawn)].copy()
    counts = reference.obs[LABEL_KEY].value_counts()
    several = reference.obs[LABEL_KEY].isin(counts.index[counts > 1])
    return Cells(Split(reference[several].copy(), query, labels_of(query)), cache)


def autoencoder(cells: Cells) -> MaskedAutoencoder:
    """Masked autoencoder of all cells of a reference, by default and without labels."""
    if not cells.encoder.exists():
        unlabelled = cells.split.reference.copy()
        unlabelled.obs = unlabelled.obs[[]]
        MaskedAutoencoder.setup_anndata(unlabelled)
        model = MaskedAutoencoder(unlabelled)
        model.train(**QUIET)
        model.save(cells.encoder, save_anndata=False)
    return MaskedAutoencoder.load(cells.encoder, adata=False, accelerator="cpu")


def sctab(cells: Cells, seed: int, *, preset: str, encoder: bool = False) -> Statement:
    """SCTAB of a preset, on the autoencoder or on genes."""
    import scvi

    scvi.settings.seed = seed
    reference, query, truth = cells.split.reference, cells.split.query, cells.split.truth
    if encoder:
        model = SCTAB.from_pretrained(
            autoencoder(cells), LABEL_KEY, adata=reference, preset=preset
        )
    else:
        SCTAB.setup_anndata(reference, labels_key=LABEL_KEY)
        model = SCTAB(reference, preset)
    model.train(**QUIET)
    probability = model.predict(query, soft=True)
    if model.calibration is None:
        return Statement(probability)
    sets = model.get_prediction_sets(query, error_rate=0.1)
    places = sets.columns.get_indexer(truth)
    return Statement(probability, sets.to_numpy()[np.arange(len(truth)), places] & (places >= 0))


def regression(cells: Cells, seed: int, *, view: Callable[[Cells], tuple[Any, Any]]) -> Statement:
    """Class-balanced logistic regression by scikit-learn's defaults on one view of the cells."""
    labels = labels_of(cells.split.reference)
    known = labels != UNKNOWN
    reference, query = view(cells)
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    model.fit(reference[known], labels[known])
    return Statement(pd.DataFrame(model.predict_proba(query), columns=model.classes_))


def genes(cells: Cells) -> tuple[Any, Any]:
    """Log-normalised expression over the genes of the reference."""
    reference, query = cells.split.reference, cells.split.query
    return normalized_expression(reference), normalized_expression(query[:, reference.var_names])


def components(cells: Cells) -> tuple[Any, Any]:
    """64 principal components of all cells of the reference."""
    reference, query = genes(cells)
    center = np.asarray(reference.mean(axis=0)).ravel()
    svd = TruncatedSVD(64, random_state=0).fit(reference)
    return tuple(svd.transform(side) - svd.components_ @ center for side in (reference, query))


def latent(cells: Cells) -> tuple[Any, Any]:
    """Latent space of the autoencoder, centred, in units of its overall standard deviation."""
    model = autoencoder(cells)
    sides = (cells.split.reference, cells.split.query)
    reference, query = map(model.get_latent_representation, sides)
    center = reference.mean(axis=0)
    scale = (reference - center).std()
    return (reference - center) / scale, (query - center) / scale


METHODS = {
    "SCTAB few on MAE": partial(sctab, preset="few", encoder=True),
    "logistic regression on MAE": partial(regression, view=latent),
    "SCTAB few": partial(sctab, preset="few"),
    "logistic regression": partial(regression, view=genes),
    "logistic regression on 64 PCs": partial(regression, view=components),
    "SCTAB small": partial(sctab, preset="small"),
}
IN_PART = {
    "labels": [name for name in METHODS if name != "SCTAB small"],
    "small": ["SCTAB few", "logistic regression", "SCTAB small"],
}


def measure(
    task: Task, cells: Cells, method: Callable[[Cells], Statement]
) -> dict[str, float | int]:
    """Score what a method says about the types that the reference has."""
    if task.columns["on_encoder"]:
        autoencoder(cells)  # its training does not count
    start = perf_counter()
    stated = method(cells)
    seconds = perf_counter() - start
    known = np.isin(cells.split.truth, stated.probability.columns)
    predicted = stated.probability.idxmax(axis=1).to_numpy(dtype=str)
    top = stated.probability.max(axis=1).to_numpy()
    row = classification_scores(cells.split.truth[known], predicted[known], top[known])
    coverage = np.nan if stated.covered is None else float(stated.covered[known].mean())
    return {**row, "coverage": coverage, "seconds": seconds}


def tasks(folder: Path, cache: Path, part: str) -> list[Task]:
    """Sets by number of labels, those for choosing first."""
    sizes, build, unit = {
        "labels": (PER_TYPE, few_labels, "per type"),
        "small": (SIZES, small_reference, "cells"),
    }[part]
    found = []
    for half, sets in (("for choosing", FOR_CHOOSING), ("opened once", OPENED_ONCE)):
        for name, sides in sets.items():
            for size in sizes:
                load = partial(build, partial(sides, folder), size, cache / name.replace(" ", "_"))
                found.append(
                    Task(
                        f"{name}, {size} {unit}",
                        load,
                        family=f"{name}, {half}",
                        is_seeded=True,
                        columns={"half": half, "on_encoder": part == "labels"},
                    )
                )
    return found


def main() -> None:
    """Run what the command line asks for, and report all rows."""
    parser = new_parser(__doc__, ("labels", "small"), seeds=(0, 1, 2, 3, 4))
    parser.add_argument("--cache", type=Path, help="folder of autoencoders (default: OUT/cache)")
    args = parser.parse_args()
    cache = args.cache or args.out / "cache"
    blocks: list[Any] = []
    for part in args.parts:
        methods = [
            Method(name, lambda seed, name=name: partial(METHODS[name], seed=seed))
            for name in IN_PART[part]
        ]
        rows = measured(f"few_{part}", args, tasks(args.data, cache, part), methods, measure)
        for half, block in rows.groupby("half", sort=False):
            blocks += [f"## {'Few labels' if part == 'labels' else 'Small references'}, {half}"]
            metrics = (
                ("macro_f1",) if part == "labels" else ("macro_f1", "ece", "coverage", "seconds")
            )
            blocks += [task_table(block, metric).rename_axis(metric) for metric in metrics]
    report("few_labels", args, *blocks)


if __name__ == "__main__":
    main()
