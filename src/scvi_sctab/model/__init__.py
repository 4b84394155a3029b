"""Models with the interface of scvi-tools."""

from scvi_sctab.model._annotate_files import annotate_files
from scvi_sctab.model._annotate_query import AnnotatedQuery, annotate_query
from scvi_sctab.model._ensemble import SCTABEnsemble
from scvi_sctab.model._load import load_model
from scvi_sctab.model._report import report_query
from scvi_sctab.model._sctab import SCTAB
from scvi_sctab.model._training_report import report_training

__all__ = [
    "SCTAB",
    "AnnotatedQuery",
    "SCTABEnsemble",
    "annotate_files",
    "annotate_query",
    "load_model",
    "report_query",
    "report_training",
]
