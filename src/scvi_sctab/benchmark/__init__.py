"""Judges of an annotation: simulated laboratories."""

from scvi_sctab.benchmark._laboratory import Laboratory, simulate_laboratory

__all__ = ["Laboratory", "simulate_laboratory"]
