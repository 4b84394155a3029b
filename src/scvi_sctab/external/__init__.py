"""Models beside SCTAB, each a folder of its own with model, module and training plan."""

from scvi_sctab.external.protein import ProteinPredictor

__all__ = ["ProteinPredictor"]
