"""Macro F1 after votes among cells: hard and soft majorities, and `SCTAB.refine`.

    .venv/bin/python benchmarks/voting.py --data ../shared/data

Cells vote within clusters, fine ones as in CellTypist and coarse ones (Leiden at resolution 5 and 2
by its recipe), and among the 15 nearest cells in the model's latent space.
Prints a table for each, mean ± sd over seeds, and writes ``results/voting.csv``.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import scanpy as sc
import scvi
from _arguments import add_data
from _report import as_markdown, summarise
from _tasks import FAMILIES, Task, iter_tasks
from sklearn.metrics import accuracy_score, f1_score

from scvi_sctab import SCTAB
from scvi_sctab.annotation import (
    Neighborhood,
    nearest_neighbors,
    neighborhoods_of_groups,
    neighborhoods_of_neighbors,
    vote,
)

if TYPE_CHECKING:
    from anndata import AnnData

HERE = Path(__file__).resolve().parent
WEIGHTS = (0.1, 0.2, 0.3, 0.5, 1.0)
RESOLUTIONS = {"fine clusters": 5, "coarse clusters": 2}
N_NEIGHBORS = 15


class Answer(NamedTuple):
    """What a trained model says of the query."""

    probabilities: np.ndarray  # (n_query, n_labels)
    labels: np.ndarray  # (n_labels,)
    latent: np.ndarray  # (n_query, n_d)


def answer(task: Task, seed: int, cache: Path | None) -> Answer:
    """Train on the reference and ask about the query, or read what an earlier run got."""
    path = cache and cache / f"{task.name}_{seed}.npz".replace(" ", "_")
    if path and path.exists():
        with np.load(path) as file:
            return Answer(file["p"].astype(float), file["labels"], file["z"])
    scvi.settings.seed = seed
    reference, query = task.labelled_reference(), task.unlabelled_query()
    SCTAB.setup_anndata(reference, labels_key=task.label_key, donor_key=task.donor_key)
    model = SCTAB(reference)
    model.train(enable_progress_bar=False)
    soft, latent = (
        model._class_balanced(model._select(query)),
        model.get_latent_representation(query),
    )
    labels = soft.columns.to_numpy().astype(str)
    if path:
        np.savez(path, p=soft.to_numpy(), labels=labels, z=latent)
    return Answer(soft.to_numpy(dtype=float), labels, latent)


def prepare(query: AnnData) -> AnnData:
    """Principal components as CellTypist computes them before it clusters."""
    sc.pp.normalize_total(query, target_sum=1e4)
    sc.pp.log1p(query)
    sc.pp.filter_genes(query, min_cells=5)
    sc.pp.highly_variable_genes(query, n_top_genes=min(2500, query.n_vars))
    query = query[:, query.var["highly_variable"]].copy()
    sc.pp.scale(query, max_value=10)
    sc.pp.pca(query, n_comps=50)
    return query


def cluster(query: AnnData, resolution: float, seed: int) -> np.ndarray:
    """Cluster by Leiden; the same neighbours for every resolution."""
    sc.pp.neighbors(query, n_neighbors=10, n_pcs=50, random_state=seed)
    options = {"flavor": "igraph", "n_iterations": -1, "random_state": seed}
    sc.tl.leiden(query, resolution=resolution, **options)
    return query.obs["leiden"].to_numpy().astype(int)


def electorates(given: Answer, query: AnnData, seed: int) -> Iterator[tuple[str, Neighborhood]]:
    """Who votes with whom."""
    everyone = np.zeros(len(given.latent), dtype=int)
    neighbors = nearest_neighbors(given.latent, everyone, N_NEIGHBORS)
    yield "neighbours", neighborhoods_of_neighbors(given.probabilities, neighbors)
    for name, resolution in RESOLUTIONS.items():
        codes = cluster(query, resolution, seed)
        yield name, neighborhoods_of_groups(given.probabilities, codes)


def votes(given: Answer, around: Neighborhood) -> Iterator[tuple[str, np.ndarray]]:
    """Probabilities, or shares of votes, of each way to vote."""
    own, base = given.probabilities, given.probabilities.mean(axis=0)
    yield "no vote", own
    # Ties go to what the cells find more probable.
    yield "majority", around.frequency + 1e-6 * around.mean
    yield "mean", around.mean
    uniform = np.full(len(base), 1 / len(base))
    yield "w = 0.2, frequent types favoured", vote(own, around, uniform, 0.2)
    for weight in WEIGHTS:
        yield f"w = {weight:g}", vote(own, around, base, weight)


def score(task: Task, labels: np.ndarray) -> dict[str, float]:
    """Macro F1 over the classes of the truth, and accuracy, as in accuracy.py."""
    truth, called = task.truth[task.scored], labels[task.scored]
    classes = sorted(set(truth))
    return {
        "macro_f1": f1_score(truth, called, labels=classes, average="macro", zero_division=0),
        "accuracy": accuracy_score(truth, called),
    }


def run(task: Task, seeds: list[int], cache: Path | None) -> Iterator[dict[str, object]]:
    """Every vote on one task."""
    query = prepare(task.unlabelled_query())
    for seed in seeds:
        given = answer(task, seed, cache)
        for who, around in electorates(given, query, seed):
            for method, shares in votes(given, around):
                row = {"voters": who, "method": method, "task": task.name, "family": task.family}
                called = given.labels[shares.argmax(axis=1)]
                yield row | {"seed": seed} | score(task, called)


def table(runs: pd.DataFrame, metric: str) -> str:
    """Tasks in rows, ways to vote in columns."""
    summary = summarise(runs, metric)
    text = summary["mean"].map("{:.3f}".format)
    text += summary["sd"].map(lambda sd: "" if np.isnan(sd) else f" ± {sd:.3f}")
    wide = summary.assign(text=text).pivot(index="task", columns="method", values="text")
    wide = wide.loc[list(dict.fromkeys(summary["task"])), list(dict.fromkeys(runs["method"]))]
    return as_markdown(wide.rename_axis(index=metric))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    families = [family for family in FAMILIES if family != "onek1k donors"]
    parser.add_argument("--tasks", nargs="+", choices=list(FAMILIES), default=families)
    parser.add_argument(
        "--cache", type=Path, help="folder of predictions, which later runs read, not train"
    )
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows: list[dict[str, object]] = []
    for task in iter_tasks(Path(arguments.data), arguments.tasks):
        rows += run(task, arguments.seeds, arguments.cache)
        print(f"{task.name}: done", flush=True)
    runs = pd.DataFrame(rows)
    runs.to_csv(HERE / "results" / "voting.csv", index=False, float_format="%.4f")
    for metric in ("macro_f1", "accuracy"):
        for who, part in runs.groupby("voters", sort=False):
            print(f"\n{who}\n\n{table(part, metric)}")


if __name__ == "__main__":
    main()
