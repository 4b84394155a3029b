"""Queries of other laboratories before and after they are mapped, to see whether adapting harms."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from _shift_laboratories import DONOR, LABEL, Pair, pairs, query_of

from scvi_sctab import SCTAB
from scvi_sctab._config import SELF_TRAINING
from scvi_sctab.benchmark import Laboratory, simulate_laboratory
from scvi_sctab.metrics import f1_macro
from scvi_sctab.model._query_training import read_query_cells
from scvi_sctab.train import fit_query_path

if TYPE_CHECKING:
    from anndata import AnnData

Row = dict[str, Any]
KEYS = ["pair", "left_out", "laboratory", "seed"]
REAL = -1
NOTHING = "-"
# More cells take longer to map, and say little more.
MAX_CELLS = 3000
# A query may lack genes of a simulated laboratory, too.
MIN_GENE_OVERLAP = 0.05
ERROR_RATE = 0.1
# Types that references go without. The split was written before the rule was chosen: it was chosen
# on the pairs for choosing, with and without these types, and on laboratories of even seeds.
LEFT_OUT = ("B", "CD14 monocyte")
# What is simulated: large queries, and all genes.
SIMULATED = ("kang", "kang12k", "pbmc3k")
# A difference of less is rounding: one cell of three hundred.
HARM = 0.003


def mapping_pairs(folder: Path) -> list[Pair]:
    """Return the pairs, and those whose reference lacks a type of the query."""
    without = [
        Pair((reference,), query, left_out=label)
        for label in LEFT_OUT
        for reference, queries in {
            "kang": ("pbmc3k", "cite10k"),
            "pbmc3k": ("kang", "cite10k"),
        }.items()
        for query in queries
    ]
    return [*pairs(folder), *without]


def is_for_choosing(pair: Pair, laboratory: int) -> bool:
    """Return whether the rule may be chosen on this query."""
    even = laboratory == REAL or laboratory % 2 == 0
    return even and not pair.is_opened_once


def kind_of(pair: Pair, laboratory: int) -> str:
    """Return the block of the report that a query belongs to."""
    what = "studies" if laboratory == REAL else "simulated laboratories"
    new = ", a type left out" if pair.left_out else ""
    chosen = "for choosing" if is_for_choosing(pair, laboratory) else "opened once"
    return f"{what}{new}, {chosen}"


def laboratories(pair: Pair, n_simulated: int) -> list[int]:
    """Return numbers of the laboratories of a query: the real one, then the simulated ones."""
    is_simulated = pair.query in SIMULATED and len(pair.references) == 1 and not pair.donors
    return [REAL, *range(n_simulated if is_simulated else 0)]


def measured(folder: Path, pair: Pair, number: int) -> AnnData:
    """Return the query as it was measured, or as a simulated laboratory would have measured it."""
    query = query_of(folder, pair)
    if query.n_obs > MAX_CELLS:
        cells = np.random.default_rng(0).choice(query.n_obs, MAX_CELLS, replace=False)
        query = query[np.sort(cells)].copy()
    if number == REAL:
        return query
    laboratory = Laboratory.draw(number, sorted(query.obs[LABEL].unique()))
    return simulate_laboratory(query, laboratory, labels_key=LABEL, seed=number)


def mapping(model: SCTAB, query: AnnData) -> Row | None:
    """Compare labels and sets before and after mapping with the truth; ``None`` for a new type only."""
    genes = query.var_names.isin(model.gene_names)
    query = query[np.asarray(query.X[:, genes].sum(axis=1)).ravel() > 0]
    truth = query.obs[LABEL].to_numpy(str)
    known = np.isin(truth, model.labels)
    if not known.any():
        return None
    unlabelled = query.copy()
    unlabelled.obs = unlabelled.obs[[DONOR]].copy()
    mapped = SCTAB.load_query_data(unlabelled, model, min_gene_overlap=MIN_GENE_OVERLAP)
    row = {"n_cells": int(known.sum()), "new": float(1 - known.mean())}
    row |= _named("before", _scores(mapped, truth, known))
    row |= _named("unguarded", _label_scores(_without_guard(mapped), truth, known))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mapped.train(enable_progress_bar=False)
    report = mapped.surgery_report()
    row |= _named("mapped", _scores(mapped, truth, known))
    return row | {
        "not_adapted": report.not_adapted[:40] or NOTHING,
        "changed": report.changed_labels,
    }


def _named(state: str, scores: dict[str, float]) -> Row:
    return {f"{name}_{state}": value for name, value in scores.items()}


def _scores(model: SCTAB, truth: np.ndarray, known: np.ndarray) -> dict[str, float]:
    sets = model.get_prediction_sets(error_rate=ERROR_RATE).to_numpy()
    places = np.arange(len(truth)), pd.Index(model.labels).get_indexer(truth)
    return {
        **_label_scores(model.predict().astype(str), truth, known),
        "coverage": float(sets[places][known].mean()),
        "size": float(sets.sum(axis=1).mean()),
    }


def _label_scores(labels: np.ndarray, truth: np.ndarray, known: np.ndarray) -> dict[str, float]:
    return {
        "macro_f1": f1_macro(truth[known], labels[known]),
        "accuracy": float((labels == truth)[known].mean()),
    }


def _without_guard(mapped: SCTAB) -> np.ndarray:
    """Return labels by the same self-training of all cells, and all of its adapter."""
    cells = read_query_cells(mapped, np.arange(mapped.adata.n_obs))
    weight = mapped.module.linear_skip.weight.detach().cpu().numpy()
    fit = fit_query_path(cells, weight, SELF_TRAINING)
    logits = cells.logits + cells.x @ fit.weight.T + fit.bias
    return mapped.labels[logits.argmax(axis=1)].astype(str)


def markdown(rows: pd.DataFrame) -> str:
    """Format a table of real pairs, a line each, and one of means over kinds of queries."""
    rows = rows.assign(
        f1=rows["macro_f1_mapped"] - rows["macro_f1_before"],
        accuracy=rows["accuracy_mapped"] - rows["accuracy_before"],
        f1_unguarded=rows["macro_f1_unguarded"] - rows["macro_f1_before"],
        accuracy_unguarded=rows["accuracy_unguarded"] - rows["accuracy_before"],
    )
    lines = [
        "| queries | number, of which adapted | macro F1 | accuracy | least of either | "
        "coverage before, after |",
        "|---" * 6 + "|",
    ]
    for kind, block in rows.groupby("kind", sort=False):
        lines.append(_line(kind, block, ("f1", "accuracy")))
        lines.append(
            _line(f"{kind}, without guard", block, ("f1_unguarded", "accuracy_unguarded"))
        )
    for split in ("for choosing", "opened once"):
        block = rows[rows["kind"].str.endswith(split)]
        if len(block):
            lines.append(_line(f"**all {split}**", block, ("f1", "accuracy")))
    real = rows[rows["laboratory"] == REAL]
    for kind, block in real.groupby("kind", sort=False):
        lines += ["", f"## {kind.capitalize()}", ""]
        lines += [
            "| pair | macro F1, not adapted | change | accuracy, not adapted | change | cells |"
        ]
        lines += ["|---" * 6 + "|"]
        for (pair, left_out), runs in block.groupby(["pair", "left_out"], sort=False):
            name = pair if left_out == NOTHING else f"{pair} without {left_out}"
            means = runs.mean(numeric_only=True)
            lines.append(
                f"| {name} | {means['macro_f1_before']:.3f} | {_change(runs, 'f1')} | "
                f"{means['accuracy_before']:.3f} | {_change(runs, 'accuracy')} | "
                f"{means['n_cells']:.0f} |"
            )
    return "\n".join(lines) + "\n"


def _change(runs: pd.DataFrame, name: str) -> str:
    if (runs["not_adapted"] != NOTHING).all():
        return "not adapted"
    return f"{runs[name].mean():+.3f}"


def _line(kind: str, block: pd.DataFrame, names: tuple[str, str]) -> str:
    n_harmed = int((block[list(names)] < -HARM).any(axis=1).sum())
    means = " | ".join(f"{block[name].mean():+.3f}" for name in names)
    least = f"{block[list(names)].min().min():+.3f} ({n_harmed} below -{HARM})"
    guarded = names[0] == "f1"
    number = f"{len(block)}, {int((block['not_adapted'] == NOTHING).sum())}" if guarded else ""
    coverage = f"{block['coverage_before'].mean():.3f}, {block['coverage_mapped'].mean():.3f}"
    return f"| {kind} | {number} | {means} | {least} | {coverage if guarded else ''} |"
