"""Cell-type annotation with scTab, as a plugin of scvi-tools."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scvi_sctab import (
        baselines,
        benchmark,
        data,
        datasets,
        external,
        metrics,
        models,
        nn,
        ontology,
        plotting,
        pretrain,
        report,
    )
    from scvi_sctab.model import SCTAB, SCTABEnsemble, annotate_files

    __version__: str

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
    "models",
    "nn",
    "ontology",
    "plotting",
    "pretrain",
    "report",
]

_OF_MODEL = ("SCTAB", "SCTABEnsemble", "annotate_files")


def __getattr__(name: str) -> object:
    """Import a public name at its first use, so that commands start without torch."""
    value: object
    if name == "__version__":
        value = version("scvi-sctab")
    elif name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    elif name in _OF_MODEL:
        value = getattr(import_module("scvi_sctab.model"), name)
    else:
        value = import_module(f"scvi_sctab.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
