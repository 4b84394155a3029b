"""Imputation of single-cell counts with the help of bulk RNA-seq."""

from scvi_sctab.external.scdtl._scdtl_model import ScDTL
from scvi_sctab.external.scdtl._scdtl_module import ScDTLModule

__all__ = ["ScDTL", "ScDTLModule"]
