"""Cell-type annotation with scTab, as a plugin of scvi-tools."""

from scvi_sctab import (
    baselines,
    benchmark,
    data,
    datasets,
    external,
    metrics,
    nn,
    ontology,
    pretrain,
)
from scvi_sctab.model import SCTAB, SCTABEnsemble, annotate_files

__all__ = [
    "SCTAB",
    "SCTABEnsemble",
    "annotate_files",
    "baselines",
    "benchmark",
    "data",
    "datasets",
    "external",
    "metrics",
    "nn",
    "ontology",
    "plotting",
    "pretrain",
]


def __getattr__(name: str) -> object:
    """Import ``plotting``, which needs matplotlib, at its first use."""
    if name == "plotting":
        from importlib import import_module

        return import_module("scvi_sctab.plotting")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
