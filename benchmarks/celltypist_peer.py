"""Script that trains CellTypist on one .h5ad, annotates another and writes labels as CSV.

Runs under the interpreter of CellTypist's own environment (``celltypist_env.sh``), which has
neither torch nor scvi-tools; nothing of this repository is imported here. Both files hold raw
counts in ``X``. The recipe is CellTypist's own: log1p of 10,000 counts per cell over all genes of
each file, `celltypist.train`, `celltypist.annotate`, with and without majority voting.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import celltypist
import numpy as np
import scanpy as sc

TOP_GENES = 300
"""Genes per class that two-pass training keeps (CellTypist's default of ``top_genes``)."""


def parse_args() -> argparse.Namespace:
    """Command line of one run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reference", type=Path)
    parser.add_argument("query", type=Path)
    parser.add_argument("predictions", type=Path, help="CSV to write")
    parser.add_argument("--label-key", required=True)
    parser.add_argument("--seed", type=int, default=0, help="of numpy, for the SGD of pass one")
    parser.add_argument("--two-pass", action="store_true", help="feature_selection=True")
    parser.add_argument("--shared-genes", action="store_true", help="not the documented recipe")
    parser.add_argument("--n-jobs", type=int, default=1)
    return parser.parse_args()


def log_normalise(adata: sc.AnnData) -> sc.AnnData:
    """What CellTypist asks for: ``log1p`` of counts scaled to 10,000 per cell, all genes."""
    adata.var_names_make_unique()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    return adata


def main() -> None:
    """Train, annotate twice, and write the CSV and, beside it, the seconds as JSON."""
    args = parse_args()
    np.random.seed(args.seed)  # noqa: NPY002, the SGD of CellTypist draws from the global state
    reference, query = sc.read_h5ad(args.reference), sc.read_h5ad(args.query)
    if args.shared_genes:
        shared = reference.var_names.intersection(query.var_names)
        reference, query = reference[:, shared].copy(), query[:, shared].copy()
    reference, query = log_normalise(reference), log_normalise(query)

    expressed = int((reference.X.sum(axis=0) > 0).sum())
    two_pass = args.two_pass and expressed > TOP_GENES
    if args.two_pass and not two_pass:
        print(f"two-pass training needs > {TOP_GENES} genes, not {expressed}: one pass instead")
    start = time.perf_counter()
    model = celltypist.train(
        reference,
        labels=args.label_key,
        n_jobs=args.n_jobs,
        feature_selection=two_pass,
    )
    trained = time.perf_counter()
    plain = celltypist.annotate(query, model=model, majority_voting=False)
    predictions = plain.predicted_labels[["predicted_labels"]].astype(str)
    annotated = time.perf_counter()
    voted = celltypist.annotate(query, model=model, majority_voting=True)
    predictions["majority_voting"] = voted.predicted_labels["majority_voting"].astype(str)
    end = time.perf_counter()

    predictions.loc[query.obs_names].to_csv(args.predictions)
    seconds = {"plain": annotated - start, "voting": trained - start + end - annotated}
    args.predictions.with_suffix(".json").write_text(json.dumps(seconds))


if __name__ == "__main__":
    main()
