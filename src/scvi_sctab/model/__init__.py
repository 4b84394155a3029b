"""Models with the interface of scvi-tools."""

from scvi_sctab.model._annotate_files import annotate_files
from scvi_sctab.model._ensemble import SCTABEnsemble
from scvi_sctab.model._sctab import SCTAB

__all__ = ["SCTAB", "SCTABEnsemble", "annotate_files"]
