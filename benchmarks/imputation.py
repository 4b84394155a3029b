"""Benchmark of imputation with bulk: held-out molecules, absent genes, markers, cost.

    .venv/bin/python benchmarks/imputation.py --data ../shared/data

Writes ``results/imputation_<part>.csv``, a row per run and after each run, and
``results/imputation.md`` with the tables. A run that is in the file is not repeated; ``--again``
starts anew. ``--parts``, ``--methods``, ``--settings`` and ``--seeds`` choose what to run, and
``--report-only`` writes the tables of earlier runs.

Held-out molecules: half of the molecules of some cells, which may have been thinned, train a model,
and the other half is scored by its Poisson log-likelihood, in mnats (thousandths of a nat) per
molecule over the gene mean by empirical Bayes. Gains are those of predictions that do not read the
molecules of a gene twice; column ``posterior`` has those of the default output.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import scvi
from _arguments import add_data
from _imputation_contrasts import QUIET, imputer, score_hidden, score_markers, score_panel
from _imputation_peers import PEERS, bulk_mixture, constant, fit_shrunk, gene_mean
from _imputation_report import write_report
from _imputation_tasks import SETTINGS, Data, Fold, Setting
from _table import Table
from anndata import AnnData

from scvi_sctab import SCTAB
from scvi_sctab.external import ScDTL
from scvi_sctab.metrics import f1_macro, simulate_dropout

RESULTS = Path(__file__).resolve().parent / "results"
OURS = ("factor", "autoencoder")
KINDS = ("none", "matched", "shuffled", "gtex", "other", "cells")
# Settings in which the gain that a user is told is compared with that on test molecules.
TOLD = ("lines 30, 0.25", "lines 100, 0.25", "pbmc3k 30")
PEER_SETTINGS = ("lines 100, 0.25", "pbmc3k 300", "kang 100")
DROPOUT_SETTING = Setting("lines", 100, 0.25)
N_PANEL = 400

Row = dict[str, Any]
Job = tuple[Row, Callable[[], Row]]


def predict(
    fold: Fold, data: Data, method: str, kind: str, *, compare: bool = False
) -> tuple[dict[str, np.ndarray], Row]:
    """Fit a method; return shares by kind of output, and notes."""
    bulk = None if kind == "none" else data.bulk(kind, fold)
    if method == "gene mean":
        return {"prior": constant(fold.train.X, gene_mean(fold.train.X))}, {}
    if method in OURS:
        model = imputer(fold.train, bulk, fold.seed, method=method, compare=compare)
        genes = [*fold.train.var_names]
        outputs = {
            observed: model.get_imputed_values(
                genes=genes, library_size=1.0, observed=observed
            ).to_numpy(float)
            for observed in ("prior", "posterior")
        }
        return outputs, told(model) if compare and kind != "none" else {}
    if method == "ScDTL":
        return {"prior": fit_scdtl(fold.train, bulk, fold.seed)}, {}
    candidates, refit = ({"": bulk_mixture(bulk)}, True) if kind != "none" else PEERS[method]
    shares, chosen = fit_shrunk(fold, candidates, refit=refit)
    return {"prior": shares}, chosen


def told(model: Any) -> Row:
    """Gain of bulk that a user is told, and the use that is chosen by it."""
    table = model.get_bulk_gain()
    table = table[table["genes"] == "all"].set_index(["use", "over"])[["gain", "se"]]
    simple = "level" if table.loc[("level", "none"), "gain"] > 0 else "none"
    # The rule of `bulk_use="auto"`: two standard errors over each of these.
    over = table.loc[[("full", other) for other in ("none", simple, "shuffled")]]
    uses_contrasts = bool((over["gain"] > np.maximum(2 * over["se"], 0)).all())
    told_gain, told_se = table.loc[("full", "none")]
    chosen = "full" if uses_contrasts else simple
    return {"told": told_gain, "told_se": told_se, "chosen": chosen}


def fit_scdtl(cells: AnnData, bulk: AnnData, seed: int) -> np.ndarray:
    """Fit ScDTL by default."""
    scvi.settings.seed = seed
    cells, bulk = cells.copy(), bulk.copy()
    ScDTL.setup_anndata(cells)
    ScDTL.setup_bulk_anndata(bulk)
    model = ScDTL(cells, bulk)
    model.train(**QUIET)
    return model.get_imputed_values(library_size=1.0)[[*cells.var_names]].to_numpy(float)


def key_of(setting: Setting, seed: int, method: str, kind: str) -> Row:
    """Columns that tell runs apart."""
    return {"setting": str(setting), "seed": seed, "method": method, "bulk": kind}


def run_fold(data: Data, setting: Setting, seed: int, method: str, kind: str) -> Row:
    """Score one method on held-out molecules."""
    fold = data.fold(setting, seed)
    base = fold.score(constant(fold.train.X, gene_mean(fold.train.X)))
    start = time.process_time()
    compare = str(setting) in TOLD and kind in ("matched", "gtex", "other", "shuffled")
    outputs, notes = predict(fold, data, method, kind, compare=compare and method == "factor")
    seconds = time.process_time() - start
    table = 1000 * fold.score(outputs["prior"]).gain_over(base)[["gain", "se"]]
    row = {"gain": table.loc["all", "gain"], "se": table.loc["all", "se"]}
    row |= table["gain"].drop("all").to_dict()
    if "posterior" in outputs:
        gains = fold.score(outputs["posterior"]).gain_over(base)["gain"]
        row["posterior"] = 1000 * gains["all"]
    molecules = int(fold.train.X.sum())
    return {**row, "molecules": molecules, "seconds": seconds, **notes}


def grid_jobs(data: Data, arguments: argparse.Namespace) -> Iterator[Job]:
    """Held-out molecules: ours with each bulk, and peers."""
    for kind in KINDS:
        for setting in SETTINGS:
            if kind == "other" and str(setting) not in TOLD:
                continue
            if kind == "cells" and str(setting) not in PEER_SETTINGS:
                continue
            for method in methods_of(setting, kind):
                for seed in arguments.seeds:
                    yield (
                        key_of(setting, seed, method, kind),
                        lambda s=setting, d=seed, m=method, k=kind: run_fold(data, s, d, m, k),
                    )


def methods_of(setting: Setting, kind: str) -> list[str]:
    """Methods that can use a kind of bulk, in a setting."""
    methods = ["factor"]
    if kind in ("none", "matched", "shuffled"):
        methods.append("autoencoder")
    if str(setting) in PEER_SETTINGS:
        methods += {
            "none": [*PEERS],
            "matched": ["ScDTL", "bulk alone"],
            "shuffled": ["ScDTL"],
        }.get(kind, [])
    elif kind == "none":
        methods.append("kNN")
    return methods


def absent_jobs(data: Data, arguments: argparse.Namespace) -> Iterator[Job]:
    """Genes that cells lack: a fifth hidden, and the 10x panel against CEL-seq2."""
    panels = [(300, kind, "factor") for kind in ("matched", "shuffled", "gtex")]
    panels += [(300, "matched", "autoencoder"), (30, "matched", "factor")]
    hidden = [
        (setting, kind, "factor")
        for setting in (Setting("lines", 300), Setting("pbmc3k", 300))
        for kind in ("matched", "shuffled", "gtex")
    ]
    hidden += [
        (Setting("lines", 300), "matched", "autoencoder"),
        (Setting("lines", 300, 0.25), "matched", "factor"),
    ]
    yield (
        {"case": "panel 300", "seed": 0, "method": "bulk by true line", "bulk": "ceiling"},
        lambda: score_panel(data, 300, 0, "ceiling", "factor"),
    )
    for n_cells, kind, method in panels:
        for seed in arguments.seeds:
            yield (
                {"case": f"panel {n_cells}", "seed": seed, "method": method, "bulk": kind},
                lambda n=n_cells, d=seed, k=kind, m=method: score_panel(data, n, d, k, m),
            )
    for setting, kind, method in hidden:
        for seed in arguments.seeds:
            yield (
                {"case": f"hidden, {setting}", "seed": seed, "method": method, "bulk": kind},
                lambda s=setting, d=seed, k=kind, m=method: score_hidden(
                    data.fold(s, d), data, k, m
                ),
            )


def marker_jobs(data: Data, arguments: argparse.Namespace) -> Iterator[Job]:
    """Log ratios between lines against those of another platform."""

    def run(setting: Setting, seed: int) -> Row:
        scores = score_markers(data.fold(setting, seed), data, "factor")
        return {
            f"{name}: {score}": value for name, of in scores.items() for score, value in of.items()
        }

    for setting in (Setting("lines", 30, 0.25), Setting("lines", 100, 0.25)):
        for seed in arguments.seeds:
            yield (
                {"setting": str(setting), "seed": seed},
                lambda s=setting, d=seed: run(s, d),
            )


def dropout_jobs(data: Data, arguments: argparse.Namespace) -> Iterator[Job]:
    """Hide 40 % of the non-zero entries, the measure of scDTL."""
    runs = [("gene mean", "none"), ("kNN", "none"), ("factor", "none"), ("factor", "matched")]
    runs += [("factor", "shuffled"), ("ScDTL", "matched")]
    for seed in arguments.seeds:
        for method, kind in runs:
            yield (
                key_of(DROPOUT_SETTING, seed, method, kind),
                lambda d=seed, m=method, k=kind: run_dropout(data, d, m, k),
            )


def run_dropout(data: Data, seed: int, method: str, kind: str) -> Row:
    """Score the hidden non-zeros, calibrated by a regression on half of them, and all entries."""
    fold = data.fold(DROPOUT_SETTING, seed)
    whole = sp.csr_matrix(fold.train.X + fold.test)
    kept, hidden = simulate_dropout(whole, 0.4, seed=seed)
    cells = AnnData(kept, fold.train.obs, fold.train.var)
    fold = Fold(fold.setting, seed, cells, hidden, fold.others, fold.strata)
    shares = predict(fold, data, method, kind)[0]["prior"]
    library = np.asarray(whole.sum(axis=1)).ravel()
    rows, columns = hidden.nonzero()
    truth = np.log1p(1e4 * np.asarray(hidden[rows, columns]).ravel() / library[rows])
    guess = np.log1p(1e4 * shares[rows, columns])
    calibrates = np.random.default_rng(seed).random(len(rows)) < 0.5
    slope, constant_term = np.polyfit(guess[calibrates], truth[calibrates], 1)
    error = (slope * guess + constant_term - truth)[~calibrates]
    full = np.log1p(1e4 * whole.toarray() / library[:, None])
    filled = full.copy()
    filled[rows, columns] = slope * guess + constant_term
    return {
        "rmse": float(np.sqrt((error**2).mean())),
        "pcc": float(np.corrcoef(guess[~calibrates], truth[~calibrates])[0, 1]),
        "rmse_matrix": float(np.sqrt(((filled - full) ** 2).mean())),
        "pcc_matrix": float(np.corrcoef(filled.ravel(), full.ravel())[0, 1]),
    }


def annotation_jobs(data: Data, arguments: argparse.Namespace) -> Iterator[Job]:
    """Cells of a panel, annotated by a model of all genes or of those of the panel."""
    for seed in arguments.seeds:
        for way in ("zeros", "completed", "panel genes", "all genes"):
            yield (
                {"query": "pbmc3k panel", "seed": seed, "way": way},
                lambda d=seed, w=way: run_annotation(data, d, w),
            )


def run_annotation(data: Data, seed: int, way: str) -> Row:
    """Annotate half of pbmc3k, measured by the genes of a panel, with the other half as reference."""
    cells = data.cells("pbmc3k")
    generator = np.random.default_rng(seed)
    order = generator.permutation(cells.n_obs)
    half = cells.n_obs // 2
    reference, query = cells[np.sort(order[:half])].copy(), cells[np.sort(order[half:])].copy()
    # A panel is chosen on other cells: variable genes of the reference.
    x = reference.X.multiply(1e4 / reference.X.sum(axis=1)).tocsr().log1p()
    mean = np.asarray(x.mean(axis=0)).ravel()
    variance = np.asarray(x.multiply(x).mean(axis=0)).ravel() - mean**2
    panel = reference.var_names[np.sort(np.argsort(-variance)[:N_PANEL])]
    if way == "panel genes":
        reference = reference[:, panel].copy()
    measured = query if way == "all genes" else query[:, panel].copy()
    if way == "completed":
        fold = Fold(Setting("pbmc3k", half), seed, query, query.X, query, np.array([]))
        model = imputer(measured, data.bulk("matched", fold), seed, method="factor")
        # In the unit of the panel's counts. SCTAB reads counts, with the noise of counts.
        values = model.get_imputed_values(library_size="observed")[[*query.var_names]]
        counts = np.random.default_rng(seed).poisson(values.to_numpy())
        counts[:, query.var_names.isin(panel)] = query[:, panel].X.toarray()
        measured = AnnData(sp.csr_matrix(counts.astype(np.float32)), query.obs, query.var)
    scvi.settings.seed = seed
    SCTAB.setup_anndata(reference, labels_key="label")
    classifier = SCTAB(reference)
    classifier.train(**QUIET)
    predicted = classifier.predict(measured, min_gene_overlap=0.0)
    truth = query.obs["label"].to_numpy()
    return {
        "macro_f1": f1_macro(truth, np.asarray(predicted)),
        "accuracy": float((np.asarray(predicted) == truth).mean()),
    }


def cost_jobs(data: Data, arguments: argparse.Namespace) -> Iterator[Job]:
    """Seconds and peak memory of a fit, each in a process of its own."""
    for seed in arguments.seeds:
        for method, kind in (("factor", "matched"), ("autoencoder", "matched"), ("SCVI", "none")):
            yield (
                {"method": method, "seed": seed},
                lambda d=seed, m=method, k=kind: run_cost(arguments.data, d, m, k),
            )


def run_cost(folder: Path, seed: int, method: str, kind: str) -> Row:
    """Fit one method in a fresh process, above the memory after imports and reading."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure_cost, folder, seed, method, kind).result()


def measure_cost(folder: Path, seed: int, method: str, kind: str) -> Row:
    """Measure processor time and the growth of peak memory of a fit to 300 cells."""
    warnings.filterwarnings("ignore")
    data = Data(folder)
    fold = data.fold(Setting("lines", 300, 0.25), seed)
    bulk = None if kind == "none" else data.bulk(kind, fold)
    before, start = peak_megabytes(), time.process_time()
    if method == "SCVI":
        (fit,) = PEERS["SCVI"][0].values()
        fit(fold.train, seed)
    else:
        imputer(fold.train, bulk, seed, method=method, compare=True)
    seconds = time.process_time() - start
    return {"seconds": seconds, "megabytes": peak_megabytes() - before}


def peak_megabytes() -> float:
    """Peak memory of this process so far."""
    status = Path("/proc/self/status").read_text()
    return float(status.split("VmHWM:")[1].split()[0]) / 1024


PARTS: dict[str, tuple[Callable[[Data, argparse.Namespace], Iterator[Job]], list[str]]] = {
    "grid": (grid_jobs, ["setting", "seed", "method", "bulk"]),
    "absent": (absent_jobs, ["case", "seed", "method", "bulk"]),
    "markers": (marker_jobs, ["setting", "seed"]),
    "dropout": (dropout_jobs, ["setting", "seed", "method", "bulk"]),
    "panel_annotation": (annotation_jobs, ["query", "seed", "way"]),
    "cost": (cost_jobs, ["method", "seed"]),
}


def run_part(name: str, data: Data, arguments: argparse.Namespace) -> None:
    """Run what is not in the file yet."""
    jobs, keys = PARTS[name]
    table = Table(RESULTS / f"imputation_{name}.csv", keys, merge=not arguments.again)
    done = {tuple(map(str, row)) for row in table.rows[keys].itertuples(index=False)}
    for key, run in jobs(data, arguments):
        wanted = (
            (not arguments.methods or key.get("method") in arguments.methods)
            and (not arguments.bulk or key.get("bulk") in arguments.bulk)
            and (not arguments.settings or key.get("setting") in arguments.settings)
            and (not arguments.cases or key.get("case") in arguments.cases)
        )
        if not wanted or tuple(str(key[k]) for k in keys) in done:
            continue
        start = time.time()
        try:
            table.add([{**key, **run()}])
        except Exception as error:  # noqa: BLE001  # other runs are worth having
            print(f"!!! {name} {key}: {type(error).__name__}: {error}", flush=True)
            continue
        print(f"{name} {[*key.values()]}: {time.time() - start:.0f} s", flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data(parser)
    parser.add_argument("--parts", nargs="+", choices=[*PARTS], default=[*PARTS])
    parser.add_argument("--methods", nargs="+", help="run these methods only")
    parser.add_argument("--bulk", nargs="+", help="run these kinds of bulk only")
    parser.add_argument("--settings", nargs="+", help='run these only, e.g. "lines 100, 0.25"')
    parser.add_argument("--cases", nargs="+", help='run these of part `absent`, e.g. "panel 300"')
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--again", action="store_true", help="do not keep rows of earlier runs")
    parser.add_argument("--report-only", action="store_true")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    RESULTS.mkdir(exist_ok=True)
    if not arguments.report_only:
        data = Data(arguments.data)
        for part in arguments.parts:
            run_part(part, data, arguments)
    write_report(RESULTS)


if __name__ == "__main__":
    main()
