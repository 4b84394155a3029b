"""The module that the training plan trains."""

from scvi_sctab.module._classifier import CellTypeClassifier
from scvi_sctab.module._encoders import build_encoder

__all__ = ["CellTypeClassifier", "build_encoder"]
