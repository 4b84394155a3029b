"""Cell-type annotation with scTab, in the grammar of scvi-tools."""

from scvi_sctab import baselines, data, datasets, external, metrics, nn, ontology, pretrain
from scvi_sctab.model import SCTAB, SCTABEnsemble

__all__ = [
    "SCTAB",
    "SCTABEnsemble",
    "baselines",
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
    """Import the namespaces that need matplotlib when they are asked for."""
    if name == "plotting":
        from importlib import import_module

        return import_module("scvi_sctab.plotting")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
