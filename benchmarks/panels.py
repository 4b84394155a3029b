"""Models of the genes of a panel, choice of these genes, and cells of few molecules.

Part `restrict`: *zeros* is the model of all genes, genes that the panel lacks count as 0;
*restricted* is ``model.restrict(panel)``; *anew* is trained on the panel's genes. All are asked about
the same cells, those with a molecule of the panel. Part `select`: panels of equal size that are
chosen on the reference. Part `shallow`: queries are thinned to an expected number of molecules.

Writes ``results/panels_restrict.csv``, ``panels_select.csv`` and ``shallow.csv``, with ``.md``.
Settings were chosen on the tasks for choosing, whose split differs between seeds; the others were
opened once, for the report.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scanpy as sc
from _arguments import measured, new_parser, report
from _sctab import set_scores, train, with_molecules
from _tasks import DONOR_KEY, LABEL_KEY, PBMC3K, accuracy_tasks, mapping_tasks, read, split

from scvi_sctab import SCTAB, baselines
from scvi_sctab.benchmark import Method, Split, Task, classification_scores, method_table
from scvi_sctab.metrics import thin_counts

if TYPE_CHECKING:
    from anndata import AnnData

Row = dict[str, float]

OPENED_ONCE = ("kang -> pbmc3k", "10x v2 -> v3, 5'", "pancreas, UMI -> full length")
CHOOSING = ("kang donors", "pbmc3k halves")
ALL = (*CHOOSING, *OPENED_ONCE)
KEYS = {"labels_key": LABEL_KEY, "donor_key": DONOR_KEY}
SIZES, SMALL_SIZES, DEPTHS = (100, 300, 500), (50, 100, 200), (50, 100, 200, 0)
# Share of the reference's cells that express a gene of a random panel.
MIN_EXPRESSED = 0.01
SHOWN = {
    "macro_f1": "macro F1",
    "ece": "ECE",
    "coverage": "coverage of 90 % sets",
    "set_size": "labels per set",
    "seconds": "seconds",
    "processor_seconds": "processor seconds",
}


@cache
def load(folder: Path, name: str, seed: int) -> Split:
    """Cells of a task; those for choosing are split anew for each seed."""
    if name == "pbmc3k halves":
        cells = read(folder, PBMC3K)
        half = np.random.default_rng(seed).permutation(cells.n_obs) < cells.n_obs // 2
        return split(cells[half].copy(), cells[~half].copy())
    if name == "kang donors":
        names = ("kang donors", "bundled donors")
        return [task for task in accuracy_tasks(folder) if task.family in names][seed].load(0)
    (task,) = (task for task in mapping_tasks(folder) if task.name == name)
    return task.load(0)


@cache
def model_of(folder: Path, name: str, seed: int) -> SCTAB:
    """Model of all genes."""
    return train(Task(name, int, **KEYS), load(folder, name, seed).reference, seed)


def split_seed(name: str, seed: int) -> int:
    """Seed of the cells of a task, and of their model."""
    return seed if name in CHOOSING else 0


def tasks_of(
    names: Iterable[str],
    loaded: Callable[..., Any],
    columns: Iterable[dict[str, Any]],
    seeded: Callable[..., bool],
) -> list[Task]:
    """A task for each name and each of the columns, which `loaded` gets with name and seed."""
    return [
        Task(
            name,
            lambda seed, name=name, own=own: loaded(name, seed, **own),
            is_seeded=name in CHOOSING or seeded(**own),
            columns={"opened_once": name not in CHOOSING, **own},
            **KEYS,
        )
        for name in names
        for own in columns
    ]


def variable_genes(reference: AnnData, n_genes: int) -> np.ndarray:
    """Names of the highly variable genes of a reference, by scanpy's defaults."""
    cells = _normalised(reference)
    sc.pp.highly_variable_genes(cells, n_top_genes=n_genes)
    return cells.var_names[cells.var["highly_variable"]].to_numpy()


def marker_genes(reference: AnnData, n_genes: int) -> np.ndarray:
    """Names of the first genes of each type by scanpy's ``rank_genes_groups``, types in turn."""
    cells = _normalised(reference)
    counts = cells.obs[LABEL_KEY].value_counts()
    cells = cells[cells.obs[LABEL_KEY].isin(counts.index[counts > 1])].copy()
    sc.tl.rank_genes_groups(cells, LABEL_KEY, method="wilcoxon")
    names = np.array(cells.uns["rank_genes_groups"]["names"].tolist())  # ranks x types
    return np.array(list(dict.fromkeys(names.ravel()))[:n_genes])


def random_genes(reference: AnnData, n_genes: int, seed: int) -> np.ndarray:
    """Names of random genes that 1 % of the cells of a reference express."""
    share = np.asarray((reference.X > 0).mean(axis=0)).ravel()
    pool = reference.var_names[share >= MIN_EXPRESSED].to_numpy()
    return np.random.default_rng(seed).choice(pool, min(n_genes, len(pool)), replace=False)


def _normalised(reference: AnnData) -> AnnData:
    cells = reference.copy()
    cells.obs[LABEL_KEY] = cells.obs[LABEL_KEY].astype("category")
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    return cells


def shared_genes(cells: Split) -> AnnData:
    """The reference over the genes that the query has measured."""
    return cells.reference[:, cells.reference.var_names.isin(cells.query.var_names)].copy()


def score(model: Any, query: AnnData, **options: Any) -> dict[str, float]:
    """Compare what a model states about labelled cells with the truth; peers state no sets."""
    is_ours, truth = isinstance(model, SCTAB), query.obs[LABEL_KEY].to_numpy(dtype=str)
    soft = model.predict(query, soft=True, **options) if is_ours else model.predict_proba(query)
    values = soft.to_numpy()
    labels = soft.columns.to_numpy(dtype=str)[values.argmax(axis=1)]
    row = {"n_cells": len(truth), **classification_scores(truth, labels, values.max(axis=1))}
    everyone = np.ones(len(truth), dtype=bool)
    return row | (set_scores(model, query, truth, everyone, **options) if is_ours else {})


def score_panel(model: SCTAB, cells: Split, genes: np.ndarray) -> dict[str, float]:
    """Score the known cells with a molecule of the panel, by its genes alone."""
    known = np.isin(cells.truth, cells.reference.obs[LABEL_KEY])
    query = with_molecules(cells.query[known, cells.query.var_names.isin(genes)])
    return score(model, query, min_gene_overlap=0)


def _timed(made: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    start, processor = time.perf_counter(), time.process_time()
    result = made()
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    return result, {"seconds": seconds, "processor_seconds": processor}


def restrict(args: Namespace) -> None:
    """The three models of each panel; that of variable genes is the same for every seed."""

    def panel(name: str, seed: int, size: int, panel: str) -> tuple[Split, np.ndarray]:
        cells = load(args.data, name, split_seed(name, seed))
        reference = shared_genes(cells)
        if panel == "random":
            return cells, random_genes(reference, size, seed)
        return cells, variable_genes(reference, size)

    def measure(task: Task, loaded: tuple[Split, np.ndarray], method: tuple[str, int]) -> Row:
        (cells, genes), (how, seed) = loaded, method
        full = model_of(args.data, task.name, split_seed(task.name, seed))
        models = {
            "zeros": lambda: full,
            "restricted": lambda: full.restrict(genes),
            "anew": lambda: train(task, with_molecules(cells.reference[:, genes]), seed),
        }
        model, seconds = _timed(models[how])
        return score_panel(model, cells, genes) | seconds

    columns = [{"size": size, "panel": kind} for size in SIZES for kind in ("variable", "random")]
    tasks = tasks_of(ALL, panel, columns, lambda size, panel: panel == "random")
    methods = _methods("zeros", "restricted", "anew")
    rows = measured("panels_restrict", args, tasks, methods, measure)
    report("panels_restrict", args, *_halves(rows, ("size", "panel", "method")))


def select(args: Namespace) -> None:
    """Panels that are chosen on the reference, by the model restricted to them."""

    def measure(task: Task, cells: Split, method: tuple[str, int]) -> Row:
        (how, seed), size = method, task.columns["size"]
        full = model_of(args.data, task.name, split_seed(task.name, seed))
        reference = shared_genes(cells)
        names = reference.var_names.to_numpy()
        # The reference of scanpy's choices is the cells that the model was trained on, too.
        seen = reference[np.sort(full.train_indices)].copy()
        choices = {
            "select_panel": lambda: full.select_panel(size, candidates=names)["gene"].to_numpy(),
            "rank_genes_groups": lambda: marker_genes(seen, size),
            "highly variable": lambda: variable_genes(seen, size),
            "random": lambda: random_genes(reference, size, seed),
        }
        genes, seconds = _timed(choices[how])
        return score_panel(full.restrict(genes), cells, genes) | seconds

    def cells_of(name: str, seed: int, size: int) -> Split:
        return load(args.data, name, split_seed(name, seed))

    tasks = tasks_of(ALL, cells_of, [{"size": n} for n in SMALL_SIZES], lambda size: False)
    methods = _methods("select_panel", "rank_genes_groups", "highly variable", "random")
    rows = measured("panels_select", args, tasks, methods, measure)
    report("panels_select", args, *_halves(rows, ("size", "method")))


def shallow(args: Namespace) -> None:
    """Cells of each depth, by models of full-depth references."""
    models: dict[tuple[str, str, int], Any] = {}

    def thinned(name: str, seed: int, depth: int) -> Split:
        cells = load(args.data, name, 0)
        query = cells.query[np.isin(cells.truth, cells.reference.obs[LABEL_KEY])].copy()
        if depth:  # 0 leaves them as they are
            totals = np.asarray(query.X.sum(axis=1)).ravel()
            query.X = thin_counts(query.X, np.minimum(depth / totals, 1), seed=seed)
        return split(cells.reference, with_molecules(query))

    def measure(task: Task, cells: Split, method: tuple[str, int]) -> Row:
        (how, seed), key = method, (task.name, *method)
        if key not in models and how == "logistic regression":
            models[key] = baselines.LogisticRegression().fit(cells.reference, LABEL_KEY)
        elif key not in models:
            thin = how.endswith("augmentation")
            models[key] = train(task, cells.reference, seed, depth_augmentation=thin)
        return score(models[key], cells.query)

    names, columns = (*CHOOSING, *OPENED_ONCE[:2]), [{"depth": depth} for depth in DEPTHS]
    tasks = tasks_of(names, thinned, columns, lambda depth: True)
    methods = _methods("SCTAB", "SCTAB, depth augmentation", "logistic regression")
    rows = measured("shallow", args, tasks, methods, measure)
    report("shallow", args, *_halves(rows, ("depth", "method")))


def _methods(*names: str) -> list[Method]:
    return [Method(name, lambda seed, name=name: (name, seed), is_seeded=False) for name in names]


def _halves(rows: pd.DataFrame, by: tuple[str, ...]) -> list[Any]:
    """Tables of the tasks for choosing and of the others: means over tasks, and each task."""
    blocks: list[Any] = []
    shown = {name: title for name, title in SHOWN.items() if name in rows}
    for is_opened, half in rows.groupby("opened_once"):
        half = half.sort_values([*by[:-1]], kind="stable")
        blocks += [f"## {'Opened once' if is_opened else 'For choosing'}"]
        blocks += [method_table(half, shown, by), method_table(half, shown, ("task", *by), ())]
    return blocks


PARTS = {"restrict": restrict, "select": select, "shallow": shallow}


def main() -> None:
    """Run the benchmark."""
    args = new_parser(__doc__, list(PARTS)).parse_args()
    for part in args.parts:
        PARTS[part](args)


if __name__ == "__main__":
    main()
