"""Script that runs CellTypist on files, by an interpreter that need not have this package.

Both .h5ad files hold log-normalised expression in ``X``.
"""

from __future__ import annotations

import argparse
import sys
import warnings

import numpy as np

LABEL = "label"
NOT_INSTALLED = 64


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train")
    train.add_argument("reference")
    train.add_argument("model")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--two-pass", action="store_true")
    annotate = commands.add_parser("annotate")
    for name in ("query", "model", "table"):
        annotate.add_argument(name)
    return parser.parse_args()


def main() -> None:
    """Train a model and write it, or read one and write probabilities."""
    arguments = parse_arguments()
    warnings.simplefilter("ignore")
    try:
        import celltypist
    except ModuleNotFoundError:
        sys.exit(NOT_INSTALLED)
    from anndata import read_h5ad

    if arguments.command == "train":
        # CellTypist's stochastic gradient descent uses the global random state.
        np.random.seed(arguments.seed)  # noqa: NPY002
        model = celltypist.train(
            read_h5ad(arguments.reference), LABEL, n_jobs=1, feature_selection=arguments.two_pass
        )
        model.write(arguments.model)
        return
    table = celltypist.annotate(read_h5ad(arguments.query), arguments.model).probability_matrix
    labels = table.columns.to_numpy(dtype=str)
    np.savez(arguments.table, labels=labels, probabilities=table.to_numpy())


if __name__ == "__main__":
    main()
