"""Label issues that `SCTAB.audit_labels` finds among labels of which 3 % were exchanged.

    .venv/bin/python benchmarks/audit.py --cleanlab-python ../env-cleanlab/bin/python

Half of the exchanged cells get a label of the same lineage, half one of another; the new label is
drawn by the frequencies of labels. Genes are those of 10 % of the cells or more. Models of 20
epochs without a fold of donors in turn predict all cells, once
per seed. cleanlab gets the same labels and the same probabilities. Labels of the data that are
wrong to begin with count as mistakes of every method.

Writes ``results/audit.csv``, a row per seed and method, and ``results/audit.md``, mean ± sd over
seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import scvi
from _arguments import add_data
from _audit_cleanlab import METHODS, ask_cleanlab
from _report import as_markdown
from _table import Table
from anndata import AnnData, read_h5ad
from sklearn.metrics import roc_auc_score

from scvi_sctab import SCTAB
from scvi_sctab.metrics import find_label_issues
from scvi_sctab.model._audit import cross_fit

HERE = Path(__file__).resolve().parent
SHARE, MIN_SHARE = 0.03, 0.1
# Labels of one lineage are near; labels that are not listed are lineages of their own.
DATA_SETS = {
    "kang": (
        "kang18_ifnb_2800.h5ad",
        "donor_id",
        [
            ["CD4 Naive T", "CD4 Memory T", "CD8 T", "T activated", "NK"],
            ["B", "B Activated"],
            ["CD14 Mono", "CD16 Mono", "DC"],
        ],
    ),
    "pbmc3k": (
        "pbmc3k_labelled.h5ad",
        None,
        [
            ["Naive CD4 T", "Memory CD4 T", "CD8 T", "NK"],
            ["CD14+ Mono", "FCGR3A+ Mono", "DC"],
        ],
    ),
}


def exchange(labels: np.ndarray, lineages: list[list[str]], seed: int) -> tuple[np.ndarray, ...]:
    """Exchange labels; the new ones, and which cells got a near one and which a far one."""
    rng = np.random.default_rng(seed)
    names, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    lineage = np.arange(len(names))
    for number, members in enumerate(lineages):
        lineage[np.isin(names, members)] = len(names) + number
    same = lineage[:, None] == lineage
    np.fill_diagonal(same, False)
    n_each = round(SHARE * len(labels) / 2)
    has_near = np.flatnonzero(same[codes].any(axis=1))
    near = rng.choice(has_near, n_each, replace=False)
    far = rng.choice(np.setdiff1d(np.arange(len(labels)), near), n_each, replace=False)
    new = codes.copy()
    for cells, allowed in ((near, same), (far, lineage[:, None] != lineage)):
        for cell in cells:
            weights = counts * allowed[codes[cell]]
            new[cell] = rng.choice(len(names), p=weights / weights.sum())
    masks = (np.isin(np.arange(len(labels)), cells) for cells in (near, far))
    return names[new], *masks


def predict(
    adata: AnnData, labels: np.ndarray, donor_key: str | None, seed: int, max_epochs: int
) -> dict[str, np.ndarray]:
    """Cross-fit the small model on given labels; cells whose label another fold has."""
    scvi.settings.seed = seed
    adata = adata.copy()
    adata.obs["given"] = pd.Categorical(labels)
    SCTAB.setup_anndata(adata, labels_key="given", donor_key=donor_key)
    found = cross_fit(SCTAB(adata, "small"), 5, donor_key, {"max_epochs": max_epochs})
    flat = found.scaling._replace(bias=np.zeros_like(found.scaling.bias))
    values = {
        "codes": found.codes,
        "probabilities": found.probabilities,
        "balanced": flat.probabilities(found.logits),
        "cells": found.cells.positions,
    }
    return {name: array[found.is_known] for name, array in values.items()}


def score(
    ranking: np.ndarray, issues: np.ndarray, near: np.ndarray, far: np.ndarray
) -> dict[str, float]:
    """Score a ranking, large first, and a set of issues."""
    exchanged = near | far
    top = np.isin(np.arange(len(ranking)), np.argsort(-ranking, kind="stable")[: exchanged.sum()])
    kinds = {"all": exchanged, "near": near, "far": far}
    return {
        "precision at n": top[exchanged].sum() / top.sum(),
        **{f"recall at n, {kind}": top[kinds[kind]].mean() for kind in ("near", "far")},
        **{
            f"AUROC, {kind}": roc_auc_score(own[own | ~exchanged], ranking[own | ~exchanged])
            for kind, own in kinds.items()
        },
        "issues": int(issues.sum()),
        "precision of issues": issues[exchanged].sum() / max(issues.sum(), 1),
        **{f"recall of issues, {kind}": issues[own].mean() for kind, own in kinds.items()},
    }


def compare(
    found: dict[str, np.ndarray], near: np.ndarray, far: np.ndarray, python: Path | None
) -> dict[str, dict[str, float]]:
    """Score each method on the same cells and, but for one, on the same probabilities."""
    codes, p, cells = found["codes"], found["probabilities"], found["cells"]
    near, far = near[cells], far[cells]
    ours, balanced = (find_label_issues(codes, each) for each in (p, found["balanced"]))
    others = p.astype(float).copy()
    others[np.arange(len(p)), codes] = 0
    margin = others.max(axis=1) - ours.self_confidence
    rows = {
        "audit_labels": score(ours.score, ours.is_issue, near, far),
        "without the label prior": score(balanced.score, balanced.is_issue, near, far),
        "ranked by margin": score(margin, ours.is_issue, near, far),
        "ranked by self-confidence": score(-ours.self_confidence, ours.is_issue, near, far),
    }
    answer = ask_cleanlab(codes, p, python)
    for method in METHODS if answer else ():
        rows[f"cleanlab, {method}"] = score(-answer[method], answer["issues"], near, far)
    if answer:
        issues = answer["confident_learning"]
        rows["cleanlab, confident_learning"] = score(-answer["self_confidence"], issues, near, far)
    return rows


def summarise(runs: pd.DataFrame) -> str:
    """Markdown table, mean ± sd over seeds."""
    lines = []
    for name, own in runs.groupby("data", sort=False):
        columns = [c for c in own if c not in ("data", "method", "seed")]
        grouped = own.groupby("method", sort=False)[columns]
        mean, sd = grouped.mean(), grouped.std()
        digits = {"issues": 0}
        text = pd.DataFrame(
            {
                c: [
                    f"{m:.{digits.get(c, 3)}f} ± {s:.{digits.get(c, 3)}f}"
                    for m, s in zip(mean[c], sd[c], strict=True)
                ]
                for c in columns
            },
            index=mean.index,
        )
        lines += [f"## {name}, {own['seed'].nunique()} seeds\n"]
        lines += [as_markdown(text.T.rename_axis(index="mean ± sd")), ""]
    return "\n".join(["# Label issues among labels of which 3 % were exchanged\n", *lines])


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data(parser)
    parser.add_argument("--data-sets", nargs="+", choices=DATA_SETS, default=list(DATA_SETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--max-epochs", type=int, default=20, help="of each of the five trainings")
    parser.add_argument("--cleanlab-python", type=Path, help="a Python that has cleanlab")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument(
        "--cache", type=Path, help="folder for predictions, read if they are there"
    )
    parser.add_argument("--merge", action="store_true", help="keep the rows of earlier runs")
    arguments = parser.parse_args()
    table = Table(arguments.out / "audit.csv", ["data", "method", "seed"], arguments.merge)
    for name in arguments.data_sets:
        file, donor_key, lineages = DATA_SETS[name]
        adata = read_h5ad(arguments.data / file)
        adata = adata[:, np.asarray((adata.X > 0).mean(axis=0)).ravel() >= MIN_SHARE].copy()
        truth = adata.obs["cell_type"].astype(str).to_numpy()
        for seed in arguments.seeds:
            labels, near, far = exchange(truth, lineages, seed)
            path = arguments.cache and arguments.cache / f"audit_{name}_{seed}.npz"
            if path and path.exists():
                found = dict(np.load(path))
            else:
                found = predict(adata, labels, donor_key, seed, arguments.max_epochs)
                if path:
                    np.savez(path, **found)
            scores = compare(found, near, far, arguments.cleanlab_python)
            keys = {"data": name, "seed": seed}
            table.add([{**keys, "method": method, **row} for method, row in scores.items()])
            print(pd.DataFrame(scores).round(3).to_string(), flush=True)
    (arguments.out / "audit.md").write_text(summarise(table.rows))


if __name__ == "__main__":
    main()
