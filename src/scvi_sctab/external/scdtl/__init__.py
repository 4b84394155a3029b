"""Bulk RNA-seq as prior knowledge on single cells."""

from scvi_sctab.external.scdtl._model import BulkPriorImputer
from scvi_sctab.external.scdtl._module import BulkPriorModule

__all__ = ["BulkPriorImputer", "BulkPriorModule"]
