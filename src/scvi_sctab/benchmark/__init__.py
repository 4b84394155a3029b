"""Comparison of methods: tasks, runs that continue, tables, and simulated laboratories."""

from scvi_sctab.benchmark._classify import classification_scores, classify
from scvi_sctab.benchmark._laboratory import Laboratory, simulate_laboratory
from scvi_sctab.benchmark._machine import describe_machine, describe_versions
from scvi_sctab.benchmark._protocol import paper_protocol
from scvi_sctab.benchmark._run import run
from scvi_sctab.benchmark._runs import Runs
from scvi_sctab.benchmark._splits import (
    assign_donors,
    donor_tasks,
    partial_labels,
    subsample_cells,
    subsample_donors,
)
from scvi_sctab.benchmark._summary import summarize
from scvi_sctab.benchmark._tables import difference_table, markdown, method_table, task_table
from scvi_sctab.benchmark._tasks import Method, Split, Task

__all__ = [
    "Laboratory",
    "Method",
    "Runs",
    "Split",
    "Task",
    "assign_donors",
    "classification_scores",
    "classify",
    "describe_machine",
    "describe_versions",
    "difference_table",
    "donor_tasks",
    "markdown",
    "method_table",
    "paper_protocol",
    "partial_labels",
    "run",
    "simulate_laboratory",
    "subsample_cells",
    "subsample_donors",
    "summarize",
    "task_table",
]
