"""Models beside SCTAB, each in its folder with model, module and training plan."""

from scvi_sctab.external.protein import ProteinPredictor
from scvi_sctab.external.scdtl import BulkPriorImputer, ScDTL
from scvi_sctab.external.svae import SpikeSlabVAE

__all__ = ["BulkPriorImputer", "ProteinPredictor", "ScDTL", "SpikeSlabVAE"]
