"""Report on the surgery of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd
import torch

from scvi_sctab._constants import N_NAMES_SHOWN, WARN_GENE_OVERLAP
from scvi_sctab.model._notebook import facts_table

if TYPE_CHECKING:
    from torch import Tensor

    from scvi_sctab.nn import NewEntries

# Share of changed labels from which the report has a warning.
_MANY_CHANGED = 0.2
_NOT_TRAINED = "not trained on the query yet"
AS_REFERENCE = "Predictions are those without a query adapter, as for an unknown batch."


@dataclass(frozen=True)
class SurgeryReport:
    """Report on a query model: new batches and labels, trained parameters, changed predictions.

    Attributes
    ----------
    policy
        Name of the policy, or its patterns.
    n_parameters
        Number of the model's parameters.
    n_trained
        Number of parameters that are trained.
    n_genes
        Number of the model's genes.
    missing_genes
        Genes that the query lacks; they count as 0.
    new_batches
        Batches, and categories of covariates, that the reference does not know, per column.
    known_batches
        Batches and categories of the query that it knows; the model is not adapted to them.
    new_labels
        Labels that the reference does not know.
    trained
        Whether the model was trained on the query.
    changed_labels
        Share of the query's cells whose predicted label was changed by training.
    seems_sorted
        Whether this is a low-diversity query, such as a sorted sample.
    parameters
        A row per tensor with new or changed entries: number of entries (``size``) and of new ones
        (``new``), and the largest change by training of the old entries (``old_moved``) and of the
        new ones (``new_moved``).
    not_adapted
        Reason why the query adapter was not fitted, with the cure; empty if it was.
    """

    policy: str | list[str]
    n_parameters: int
    n_trained: int
    n_genes: int
    missing_genes: list[str]
    new_batches: dict[str, list[str]]
    known_batches: dict[str, list[str]]
    new_labels: list[str]
    trained: bool = False
    changed_labels: float = 0.0
    seems_sorted: bool = False
    parameters: pd.DataFrame = field(default_factory=pd.DataFrame)
    not_adapted: str = ""

    @property
    def gene_overlap(self) -> float:
        """Share of the model's genes that the query has."""
        return 1 - len(self.missing_genes) / self.n_genes

    @property
    def trained_share(self) -> float:
        """Share of the parameters that are trained."""
        return self.n_trained / self.n_parameters

    @property
    def reference_kept(self) -> bool:
        """Whether no parameter of the reference has changed."""
        return not len(self.parameters) or not bool(self.parameters["old_moved"].any())

    @property
    def warnings(self) -> list[str]:
        """Warnings about the query, with the cure."""
        found = []
        if self.gene_overlap < WARN_GENE_OVERLAP:
            found.append(
                f"{len(self.missing_genes):,} of {self.n_genes:,} genes are missing and count as "
                "0. Train the reference on the genes that both have."
            )
        if any(self.known_batches.values()):
            found.append(
                f"Batches that the reference knows, too: {_list(self.known_batches)}. Nothing is "
                "adapted to their cells. If they are others of the same name, rename them."
            )
        if self.changed_labels > _MANY_CHANGED:
            found.append(
                f"Training changed {self.changed_labels:.0%} of the labels. Compare both with "
                "markers before you trust either: `reference.predict(query)` has the others."
            )
        if self.not_adapted:
            found.append(f"Not adapted: {self.not_adapted}. {AS_REFERENCE}")
        elif self.seems_sorted:  # of a model of an early version, which adapted to such queries
            found.append(
                "The query holds few of the reference's types. Map sorted samples together with "
                "others, or predict without adapting: `reference.predict(query)`."
            )
        if self.new_labels:
            found.append(
                f"The model grew by {len(self.new_labels)} labels: the logits of the others are "
                "kept for the reference's cells, their probabilities are not."
            )
        if not self.reference_kept:
            found.append(
                "The policy trains parts of the reference: its own cells may get other labels."
            )
        return found

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Name and text of each fact, in the order of the life of a query model."""
        names = self.policy if isinstance(self.policy, str) else ", ".join(self.policy)
        facts = [
            (
                f"policy {names!r}",
                f"{self.n_trained:,} of {self.n_parameters:,} parameters are trained "
                f"({self.trained_share:.2%})",
            ),
            ("genes", f"{self.gene_overlap:.1%} of {self.n_genes:,} are in the query"),
            ("new batches", _list(self.new_batches)),
            ("new labels", ", ".join(self.new_labels) or "none"),
        ]
        if self.trained:
            kept = "exactly as it was" if self.reference_kept else "moved"
            if self.not_adapted:
                facts.append(("query adapter", "not adapted"))
            facts.append(("after training", f"{self.changed_labels:.1%} of the labels changed"))
            facts.append(("the reference's part of the model", kept))
        return facts

    def __str__(self) -> str:
        """Write the report as text."""
        lines = [f"{name}: {text}" for name, text in self.facts]
        lines += [] if self.trained else [_NOT_TRAINED]
        return "\n".join([*lines, *(f"! {warning}" for warning in self.warnings)])

    def _repr_html_(self) -> str:
        """Write the report as a table, for a notebook."""
        notes = [*([] if self.trained else [_NOT_TRAINED]), *self.warnings]
        return facts_table("Query model", self.facts, notes)


def _list(names: Mapping[str, list[str]]) -> str:
    texts = []
    for column, values in names.items():
        shown = ", ".join(values[:N_NAMES_SHOWN])
        more = len(values) - N_NAMES_SHOWN
        texts += (
            [f"{column}: {shown}" + (f" and {more} more" if more > 0 else "")] if values else []
        )
    return "; ".join(texts) or "none"


def movement(
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    new_entries: Mapping[str, NewEntries | None],
) -> pd.DataFrame:
    """Compare two states of a model that grew from a reference.

    Parameters
    ----------
    before, after
        State dicts.
    new_entries
        Parameters with new entries; ``None`` if all entries are new.

    Returns
    -------
    See :attr:`SurgeryReport.parameters`.
    """
    rows = []
    for name, new in after.items():
        if not new.is_floating_point():
            continue
        change = (new - before[name].to(new.device)).abs()
        is_new = torch.zeros_like(change, dtype=torch.bool)
        if name in new_entries:
            entries = new_entries[name]
            dim, positions = entries or (0, list(range(len(new))))
            is_new.index_fill_(dim, torch.tensor(positions, device=new.device), True)
        n_new = int(is_new.sum())
        old_moved = float(change[~is_new].max()) if n_new < change.numel() else 0.0
        new_moved = float(change[is_new].max()) if n_new else 0.0
        if old_moved or n_new:
            rows.append((name, new.numel(), n_new, old_moved, new_moved))
    columns = ["parameter", "size", "new", "old_moved", "new_moved"]
    return pd.DataFrame(rows, columns=columns)
