"""Bulk RNA-seq as prior knowledge on single cells."""

from scvi_sctab.external.scdtl._model import BulkPriorImputer
from scvi_sctab.external.scdtl._module import BulkPriorModule
from scvi_sctab.external.scdtl._scdtl_model import ScDTL
from scvi_sctab.external.scdtl._scdtl_module import ScDTLModule

__all__ = ["BulkPriorImputer", "BulkPriorModule", "ScDTL", "ScDTLModule"]
