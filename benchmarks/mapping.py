"""Labels of queries whose batches (samples, libraries) the reference has not seen.

Prints a table of macro F1 and one of accuracy, and writes ``results/mapping.csv``, a row per method,
task and seed, and ``mapping.md``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Self

import scvi
from _arguments import measured, new_parser, report
from _tasks import BATCH_KEY, DONOR_KEY, mapping_tasks

from scvi_sctab import SCTAB, baselines
from scvi_sctab.benchmark import Method, difference_table, task_table

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


class Conditioned:
    """SCTAB conditioned on the batches of the reference; those of the query are unknown to it."""

    def __init__(self, seed: int):
        self.seed = seed

    def fit(self, reference: AnnData, labels_key: str, donor_key: str | None = None) -> Self:
        """Train on the reference."""
        scvi.settings.seed = self.seed
        keys = {"batch_key": BATCH_KEY, "donor_key": DONOR_KEY}
        SCTAB.setup_anndata(reference, labels_key=labels_key, **keys)
        self.model = SCTAB(reference)
        self.model.train(enable_progress_bar=False)
        return self

    def predict_proba(self, query: AnnData) -> pd.DataFrame:
        """Predict without adaptation."""
        return self.model.predict(query, soft=True)


class Mapped(Conditioned):
    """The same, mapped: surgery and training on the query, without labels, all by default."""

    def predict_proba(self, query: AnnData) -> pd.DataFrame:
        """Adapt to the query and predict."""
        scvi.settings.seed = self.seed
        mapped = SCTAB.load_query_data(query, self.model)
        mapped.train(enable_progress_bar=False)
        return mapped.predict(soft=True)


class ScanviByBatch(baselines.ScANVI):
    """scANVI, mapped, with samples as batches."""

    def fit(self, reference: AnnData, labels_key: str, donor_key: str | None = None) -> Self:
        """Train on the reference."""
        return super().fit(reference, labels_key, BATCH_KEY)


def main() -> None:
    """Run the benchmark."""
    args = new_parser(__doc__).parse_args()
    celltypist = partial(baselines.CellTypist, python=args.celltypist_python)
    methods = [
        Method("SCTAB zero-shot, no batch_key", baselines.SCTABPredictor),
        Method("SCTAB mean row", Conditioned),
        Method("SCTAB surgery", Mapped),
        Method("logistic regression", baselines.LogisticRegression, is_seeded=False),
        Method("CellTypist one-pass", celltypist, is_seeded=False),
        Method("CellTypist two-pass", partial(celltypist, two_pass=True)),
        Method("scANVI + surgery", ScanviByBatch),
    ]
    rows = measured("mapping", args, mapping_tasks(args.data), methods)
    tables = [task_table(rows, "macro_f1"), task_table(rows, "accuracy")]
    report("mapping", args, *tables, difference_table(rows, "macro_f1", "SCTAB mean row"))


if __name__ == "__main__":
    main()
