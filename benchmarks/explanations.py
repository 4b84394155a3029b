"""Benchmark of explanations: deletion of the first genes, and textbook genes among them.

    .venv/bin/python benchmarks/explanations.py --data ../shared/data

``--parts deletion`` trains on the bundled Kang set without two donors and explains the cells of
these two, and those of another study, pbmc3k. Prints what deleting the first genes of each ranking
does to the probability of the predicted label, and how many textbook markers are among the first
20 genes of each type; writes ``results/explanations_deletion.csv``, ``explanations_markers.csv``
and ``explanations.png``. ``--tabnet-alone`` does so for a model without the linear path, as scTab
is, and writes ``explanations_tabnet_...``.

``--parts textbook`` counts textbook and house-keeping genes among the first 5, 10 and 20 on more
data, by contribution, by `get_markers` and by scanpy's `rank_genes_groups`, for the same groups of
cells; writes ``results/explanations_textbook.csv`` and ``.md``.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scvi
from _arguments import add_data
from _explanation_markers import (
    TEXTBOOK,
    marker_report,
    marker_tasks,
    rank_by_model,
    rank_by_scanpy,
    score,
)
from _report import as_markdown
from _tasks import BUNDLED_DONORS, PBMC3K, Task, iter_tasks
from anndata import AnnData, read_h5ad

from scvi_sctab import SCTAB
from scvi_sctab.plotting import plot_deletion, plot_markers

if TYPE_CHECKING:
    from scipy import sparse

HERE = Path(__file__).resolve().parent
N_LISTED = 20
N_STEPS = 20
MAX_CELLS = 720
RANKINGS = ("integrated gradients", "input x gradient", "contribution", "markers", "attention")
PARTS = ("deletion", "textbook")


def train(task: Task, seed: int, cache: Path | None, alone: bool = False) -> SCTAB:
    """Train on the reference, or read what an earlier run trained."""
    reference = task.labelled_reference()
    folder = cache and cache / f"{task.name}{'_tabnet' * alone}_{seed}".replace(" ", "_")
    if folder and folder.exists():
        return SCTAB.load(str(folder), adata=reference)
    scvi.settings.seed = seed
    SCTAB.setup_anndata(reference, labels_key=task.label_key, donor_key=task.donor_key)
    model = SCTAB(reference, linear_skip=not alone)
    model.train(enable_progress_bar=False)
    if folder:
        model.save(str(folder))
    return model


def rank(model: SCTAB, query: AnnData) -> dict[str, sparse.csr_matrix | pd.DataFrame]:
    """Every ranking of the genes of every cell."""
    gradients = {"n_steps": N_STEPS, "method": "integrated_gradients"}
    markers = model.get_markers(query, n_genes=len(model.gene_names))
    values = (
        model.get_attributions(query, **gradients),
        model.get_attributions(query, method="input_x_gradient"),
        markers.sort_values(["group", "contribution"], ascending=[True, False]),
        markers,
        model.get_attention(query),
    )
    return dict(zip(RANKINGS, values, strict=True))


def best_genes(
    model: SCTAB, ranking: sparse.csr_matrix | pd.DataFrame, predicted: np.ndarray
) -> dict[str, list[str]]:
    """First genes per predicted type, by the mean over its cells."""
    if isinstance(ranking, pd.DataFrame):
        groups = ranking.groupby("group", observed=True)["gene"]
        return {group: list(genes[:N_LISTED]) for group, genes in groups}
    best = {}
    for group in np.unique(predicted):
        mean = np.asarray(ranking[predicted == group].mean(axis=0)).ravel()
        best[str(group)] = list(model.gene_names[np.argsort(-mean)[:N_LISTED]])
    return best


def count_hits(model: SCTAB, best: dict[str, list[str]]) -> pd.DataFrame:
    """Textbook markers among the first genes; those that the model does not read do not count."""
    known = set(model.gene_names)
    rows = []
    for group, genes in best.items():
        listed = [gene for gene in TEXTBOOK[group] if gene in known]
        hits = [gene for gene in listed if gene in genes]
        missed = " ".join(gene for gene in listed if gene not in genes)
        rows.append({"type": group, "hits": len(hits), "listed": len(listed), "missed": missed})
    return pd.DataFrame(rows)


def queries(task: Task, data: Path) -> dict[str, AnnData]:
    """Cells to explain, evenly drawn."""
    found = {"held-out donors": task.unlabelled_query(), "pbmc3k": read_h5ad(data / PBMC3K)}
    drawn = {}
    for name, query in found.items():
        cells = np.linspace(0, query.n_obs - 1, min(MAX_CELLS, query.n_obs)).astype(int)
        drawn[name] = query[cells].copy()
    return drawn


def draw(deletion: pd.DataFrame, markers: pd.DataFrame, path: Path) -> None:
    """Deletion curves of both queries and the markers of one seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplot_mosaic("ac;bc", figsize=(13, 8), layout="constrained",
                                      width_ratios=[1, 1.9])  # fmt: skip
    for key, (name, table) in zip("ab", deletion.groupby("query", sort=False), strict=True):
        mean = table.groupby(["ranking", "n_genes"], sort=False, as_index=False)["drop"].mean()
        plot_deletion(mean, axes[key]).set_title(name, fontsize=10)
    plot_markers(markers, 8, axes["c"]).set_title("markers, held-out donors", fontsize=10)
    part = path.with_name(f"{path.name}.part")
    figure.savefig(part, dpi=130, format="png")
    part.replace(path)


def print_tables(deletion: pd.DataFrame, hits: pd.DataFrame) -> None:
    """Mean and sd over seeds."""
    for name, table in deletion.groupby("query", sort=False):
        cells = table.groupby(["ranking", "n_genes"], sort=False)["drop"].agg(["mean", "std"])
        text = cells["mean"].map("{:.3f}".format) + cells["std"].map(" ± {:.3f}".format)
        wide = text.unstack().loc[[*RANKINGS, "random"]].rename_axis(index="drop, genes deleted")
        wide.columns = wide.columns.astype(str)
        print(f"\n{name}\n\n{as_markdown(wide)}")
    per_seed = hits.groupby(["query", "ranking", "seed"], sort=False)[["hits", "listed"]].sum()
    total = per_seed.groupby(level=[0, 1], sort=False).mean().round(1)
    print(f"\ntextbook markers among the first {N_LISTED}, mean over seeds\n\n{total.to_string()}")
    own = hits[hits["ranking"] == "markers"]
    print(f"\nby `get_markers`, seed {own['seed'].iloc[0]}\n")
    print(own[own["seed"] == own["seed"].iloc[0]].drop(columns="seed").to_string(index=False))


def measure_deletion(arguments: argparse.Namespace) -> None:
    """Delete genes of the bundled set and of pbmc3k, and count textbook markers."""
    (task,) = iter_tasks(Path(arguments.data), ["bundled donors"])
    held_out = " and ".join(BUNDLED_DONORS)
    print(f"{task.reference.n_obs} cells to train on; donors {held_out} held out", flush=True)
    deletions, counts, shown = [], [], None
    for seed in arguments.seeds:
        model = train(task, seed, arguments.cache, arguments.tabnet_alone)
        for name, query in queries(task, Path(arguments.data)).items():
            rankings = rank(model, query)
            shown = rankings["markers"] if shown is None else shown
            keys = {"query": name, "seed": seed}
            deletions.append(model.deletion_test(rankings, query).assign(**keys))
            predicted = model.predict(query)
            for ranking, values in rankings.items():
                found = count_hits(model, best_genes(model, values, predicted))
                counts.append(found.assign(ranking=ranking, **keys))
            print(f"seed {seed}, {name}: done", flush=True)
    deletion, hits = pd.concat(deletions), pd.concat(counts)
    start = HERE / "results" / ("explanations" + "_tabnet" * arguments.tabnet_alone)
    deletion.to_csv(f"{start}_deletion.csv", index=False, float_format="%.4f")
    hits.to_csv(f"{start}_markers.csv", index=False)
    draw(deletion, shown, start.with_suffix(".png"))
    print_tables(deletion, hits)


def measure_textbook(arguments: argparse.Namespace) -> None:
    """Count the textbook genes of every task."""
    counts = []
    for task in marker_tasks(Path(arguments.data), arguments.tasks):
        for seed in arguments.seeds:
            model = train(task.task, seed, arguments.cache)
            for name, query in task.queries.items():
                rankings = rank_by_model(model, query) | rank_by_scanpy(model, query)
                found = score(model, query, rankings, task.lists)
                counts.append(found.assign(query=name, seed=seed))
                print(f"{name}, seed {seed}: done", flush=True)
    found = pd.concat(counts)
    start = HERE / "results" / "explanations_textbook"
    found.to_csv(start.with_suffix(".csv"), index=False)
    report = marker_report(found)
    start.with_suffix(".md").write_text(report)
    print(f"\n{report}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data(parser)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--tasks", nargs="+", help="of textbook: bundled, Kang, Baron, panc8")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cache", type=Path, help="folder of models, which later runs read")
    parser.add_argument("--tabnet-alone", action="store_true", help="without the linear path")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    if "deletion" in arguments.parts:
        measure_deletion(arguments)
    if "textbook" in arguments.parts:
        measure_textbook(arguments)


if __name__ == "__main__":
    main()
