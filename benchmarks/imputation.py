"""Imputation with bulk RNA-seq: the likelihood of held-out molecules, with each kind of bulk.

Half of the molecules of some cells, which may have been thinned, train a model, and the other half is
scored by its Poisson log-likelihood, in mnats (thousandths of a nat) per molecule over the gene mean by
empirical Bayes. Writes ``results/imputation_grid.csv``, a row per run and after each, and
``results/imputation.md``; runs that have a row are not repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
import scvi
from _arguments import measured, new_parser, report
from _imputation_peers import PEERS, QUIET, bulk_mixture, fit_shrunk, gene_mean, without_fit
from anndata import AnnData, read_h5ad

from scvi_sctab import benchmark
from scvi_sctab.benchmark import Method, Runs, Task
from scvi_sctab.external import BulkPriorImputer, ScDTL
from scvi_sctab.metrics import expression_tertiles, molecular_split, score_held_out, thin_counts

BULK = {"holik": "bulk_holik17_5celllines_10", "hoek": "bulk_hoek15_sorted_immune_14",
        "gtex": "bulk_gtex_54tissue_means"}  # fmt: skip
# Bulk of the same types, and bulk of other ones, by cells.
MATCHED = {"lines": "holik", "pbmc3k": "hoek", "kang": "hoek"}
OTHER = {"lines": "hoek", "pbmc3k": "holik", "kang": "holik"}
SETTINGS = (
    ("lines", 30, 0.05), ("lines", 30, 0.25), ("lines", 30, 1), ("lines", 100, 0.25),
    ("lines", 300, 0.25), ("lines", 811, 0.25), ("pbmc3k", 30, 0.25), ("pbmc3k", 30, 1),
    ("pbmc3k", 100, 1), ("pbmc3k", 300, 1), ("pbmc3k", 1000, 1), ("kang", 100, 1),
)  # fmt: skip
COMPARED = ("lines 100, 0.25", "pbmc3k 300", "kang 100")


class Fold(NamedTuple):
    """Cells with one half of their molecules, the other half, and the cells that were not drawn."""

    train: AnnData
    test: sp.csr_matrix
    others: AnnData
    strata: np.ndarray  # tertile of each gene by its molecules in all cells
    data: str
    seed: int

    def score(self, shares: np.ndarray) -> Any:
        """Score shares of genes, ``(n_cells, n_genes)``; size factors are the first half's molecules."""
        library = np.asarray(self.train.X.sum(axis=1)).ravel()
        return score_held_out(self.test, shares, size_factors=library, strata=self.strata)


@dataclass(frozen=True)
class Data:
    """Data sets of a folder, read once."""

    folder: Path

    @cache  # noqa: B019, there is one
    def bulk_file(self, name: str) -> AnnData:
        """Read bulk as counts per million."""
        bulk = read_h5ad(self.folder / f"{BULK[name]}.h5ad")
        counts = bulk.X.toarray() if sp.issparse(bulk.X) else np.asarray(bulk.X)
        per_million = counts * (1e6 / counts.sum(axis=1, keepdims=True))
        return AnnData(per_million.astype(np.float32), bulk.obs, bulk.var[[]])

    @cache  # noqa: B019
    def cells(self, name: str) -> AnnData:
        """Read cells, the genes of all three bulks with 5 molecules, and labels."""
        if name == "lines":
            cells = read_h5ad(self.folder / "cell_lines_mixology_celseq2_dropseq.h5ad")
            singlets = (cells.obs["assay"] == "CEL-seq2") & (cells.obs["demuxlet_cls"] == "SNG")
            cells = cells[singlets]
        elif name == "pbmc3k":
            cells = read_h5ad(self.folder / "pbmc3k_labelled.h5ad")
        else:
            cells = read_h5ad(self.folder / "kang18_ifnb_2800.h5ad")
            cells = cells[cells.obs["condition"] == "ctrl"]
        labels = cells.obs["cell_line_demuxlet" if name == "lines" else "cell_type"].astype(str)
        keep = np.asarray(cells.X.sum(axis=0)).ravel() >= 5
        for bulk in BULK:
            keep &= cells.var_names.isin(self.bulk_file(bulk).var_names)
        obs = pd.DataFrame({"label": labels.to_numpy()}, cells.obs_names)
        cells = cells[:, keep]
        return AnnData(sp.csr_matrix(cells.X, dtype=np.float32), obs, cells.var[[]])

    def fold(self, seed: int, data: str, n_cells: int, depth: float) -> Fold:
        """Draw cells, thin and split their molecules."""
        whole = self.cells(data)
        order = np.random.default_rng(seed).permutation(whole.n_obs)
        drawn, rest = np.sort(order[:n_cells]), np.sort(order[n_cells:])
        counts = whole.X[drawn]
        if depth < 1:
            counts = thin_counts(counts, depth, seed=seed + 1000)
        train, test = molecular_split(counts, seed=seed + 2000)
        strata = expression_tertiles(np.asarray(whole.X.sum(axis=0)).ravel())
        cells = AnnData(train, whole.obs.iloc[drawn].copy(), whole.var.copy())
        return Fold(cells, test, whole[rest].copy(), strata, data, seed)

    def bulk(self, kind: str, fold: Fold) -> AnnData | None:
        """Bulk on the genes of a fold; ``"cells"`` is pseudobulk by label of cells not drawn."""
        if kind == "none":
            return None
        genes = fold.train.var_names
        if kind == "cells":
            sums = fold.others.to_df().groupby(fold.others.obs["label"].to_numpy()).sum()
            per_million = sums.div(sums.sum(axis=1), axis=0) * 1e6
            return AnnData(per_million.astype(np.float32))[:, genes].copy()
        name = {"gtex": "gtex", "other": OTHER[fold.data]}.get(kind, MATCHED[fold.data])
        bulk = self.bulk_file(name)[:, genes].copy()
        return shuffle_contrasts(bulk, fold.seed) if kind == "shuffled" else bulk


def shuffle_contrasts(bulk: AnnData, seed: int) -> AnnData:
    """Give each gene the contrasts of another one of a similar level, and leave its mean log level.

    Large negative contrasts of a gene with a low level would be cut off at 0, which changes the level.
    """
    logs = np.log(np.asarray(bulk.X, dtype=np.float64) + 0.5)
    level, generator = logs.mean(axis=0), np.random.default_rng(seed)
    rank = np.argsort(np.argsort(level, kind="stable"), kind="stable")
    source = np.arange(bulk.n_vars)
    for stratum in range(20):
        genes = np.flatnonzero(rank * 20 // bulk.n_vars == stratum)
        source[genes] = generator.permutation(genes)
    shuffled = np.exp(level + (logs - level)[:, source]) - 0.5
    return AnnData(np.maximum(shuffled, 0).astype(np.float32), bulk.obs, bulk.var)


Shares = dict[str, np.ndarray]
"""Shares of genes by kind of output; ``"prior"`` does not read the molecules of a gene twice."""


def ours(fold: Fold, bulk: AnnData | None, method: str) -> Shares:
    """`BulkPriorImputer` with all of bulk, or without."""
    scvi.settings.seed = fold.seed
    cells = fold.train.copy()
    BulkPriorImputer.setup_anndata(cells)
    if bulk is not None:
        BulkPriorImputer.setup_bulk_anndata(bulk)
    use = "none" if bulk is None else "full"
    model = BulkPriorImputer(cells, bulk, method=method, bulk_use=use)
    model.train(compare_bulk=False, **QUIET)
    values = partial(model.get_imputed_values, genes=[*cells.var_names], library_size=1.0)
    return {k: values(observed=k).to_numpy(float) for k in ("prior", "posterior")}


def scdtl(fold: Fold, bulk: AnnData | None) -> Shares:
    """The architecture of scDTL by default."""
    scvi.settings.seed = fold.seed
    cells = fold.train.copy()
    ScDTL.setup_anndata(cells)
    ScDTL.setup_bulk_anndata(bulk)
    model = ScDTL(cells, bulk)
    model.train(**QUIET)
    return {
        "prior": model.get_imputed_values(library_size=1.0)[[*cells.var_names]].to_numpy(float)
    }


def peer(fold: Fold, bulk: AnnData | None, name: str) -> Shares:
    """A method that knows no bulk, or bulk alone."""
    candidates = [without_fit(bulk_mixture, bulk=bulk)] if bulk is not None else PEERS[name]
    return {"prior": fit_shrunk(fold.train, fold.seed, candidates)}


METHODS: dict[str, Callable[[Fold, AnnData | None], Shares]] = {
    "factor": partial(ours, method="factor"),
    "autoencoder": partial(ours, method="autoencoder"),
    "ScDTL": scdtl,
    **{name: partial(peer, name=name) for name in (*PEERS, "bulk alone")},
}
# Kinds of bulk; settings, all if not given; and methods in these.
PLAN: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("none", (), ("factor", "autoencoder", "kNN")),
    ("none", COMPARED, tuple(PEERS)),
    ("matched", (), ("factor", "autoencoder")),
    ("matched", COMPARED, ("ScDTL", "bulk alone")),
    ("shuffled", (), ("factor", "autoencoder")),
    ("shuffled", COMPARED, ("ScDTL",)),
    ("gtex", (), ("factor",)),
    ("other", ("lines 30, 0.25", "lines 100, 0.25", "pbmc3k 30"), ("factor",)),
    ("cells", COMPARED, ("factor",)),
)


def score(task: Task, fold: Fold, method: Callable, data: Data) -> dict[str, float]:
    """Gain over the gene mean, of all genes and of thirds by expression; seconds of the processor."""
    start = time.process_time()
    outputs = method(fold, data.bulk(task.columns["bulk"], fold))
    seconds = time.process_time() - start
    base = fold.score(np.tile(gene_mean(fold.train.X), (fold.train.n_obs, 1)))
    table = 1000 * fold.score(outputs["prior"]).gain_over(base)[["gain", "se"]]
    row = {"gain": table.loc["all", "gain"], "se": table.loc["all", "se"]}
    row |= table["gain"].drop("all").to_dict()
    if "posterior" in outputs:
        row["posterior"] = 1000 * fold.score(outputs["posterior"]).gain_over(base)["gain"]["all"]
    return row | {"molecules": int(fold.train.X.sum()), "seconds": seconds}


def paired(runs: pd.DataFrame, ours: str, tasks: list[str], others: list[str]) -> pd.DataFrame:
    """Gain of a method over others, paired by seed; settings in rows."""
    rows: dict[str, dict[str, str]] = {}
    for other in others:
        for task in tasks:
            of_task = runs[(runs["task"] == task) & runs["method"].isin([ours, other])]
            wide = of_task.pivot(index="seed", columns="method", values="gain").dropna()
            if {ours, other} <= set(wide) and len(wide):
                d = wide[ours] - wide[other]
                spread = f" ± {d.std():.1f}" if len(d) > 1 else ""
                rows.setdefault(other, {})[task] = f"{d.mean():.1f}{spread}"
    frame = pd.DataFrame(rows).reindex(tasks).dropna(how="all").fillna("-")
    return frame.rename_axis(f"{ours}, minus")


def tables(runs: pd.DataFrame) -> Iterator[str | pd.DataFrame]:
    """Gains of bulk, differences to other methods, and all gains; mean ± sd over seeds."""
    runs = runs.assign(method=runs["method"] + ", " + runs["bulk"], family="cells")
    order = [n for setting in SETTINGS if (n := name_of(*setting)) in set(runs["task"])]
    yield "Gains in mnats per molecule, mean ± sd over seeds."
    for name in ("factor", "autoencoder"):
        kinds = [f"{name}, {kind}" for kind in ("none", "shuffled", "gtex", "other", "cells")]
        yield paired(runs, f"{name}, matched", order, kinds)
    others = [method for method in dict.fromkeys(runs["method"]) if method != "factor, matched"]
    yield paired(runs, "factor, matched", [task for task in COMPARED if task in order], others)
    for task in order:
        columns = ["gain", "low", "mid", "high", "posterior"]
        shown = benchmark.method_table(runs[runs["task"] == task], columns, form=".1f")
        yield shown.rename_axis(task)


def name_of(data: str, n_cells: int, depth: float) -> str:
    """Name of a setting."""
    return f"{data} {n_cells}" + ("" if depth == 1 else f", {depth:g}")


def main() -> None:
    """Run what has no row, and write the tables."""
    args = new_parser(__doc__).parse_args()
    data = Data(args.data)
    for kind, settings, methods in PLAN:
        tasks = [
            Task(name, partial(data.fold, data=of, n_cells=n, depth=depth), is_seeded=True,
                 columns={"bulk": kind})
            for of, n, depth in SETTINGS if (name := name_of(of, n, depth)) in (settings or [name])
        ]  # fmt: skip
        chosen = [Method(name, lambda seed, name=name: METHODS[name]) for name in methods]
        measured("imputation_grid", args, tasks, chosen, partial(score, data=data))
    rows = Runs(args.out / "imputation_grid.csv").table
    report("imputation", args, *tables(rows))


if __name__ == "__main__":
    main()
