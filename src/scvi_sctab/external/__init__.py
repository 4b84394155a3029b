"""Models beside SCTAB, each in its folder with model, module and training plan."""

from scvi_sctab.external.protein import ProteinPredictor

__all__ = ["ProteinPredictor"]
