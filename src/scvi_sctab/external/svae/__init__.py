"""Sparse shifts of perturbations in a latent space."""

from scvi_sctab.external.svae._absorption import rotate_decoder, rotate_encoder, rotate_scvi
from scvi_sctab.external.svae._design import (
    PAPER_DESIGN,
    REALISTIC_DESIGN,
    PerturbationDesign,
)
from scvi_sctab.external.svae._rotation import SparseRotation, sparse_rotation
from scvi_sctab.external.svae._simulation import simulate_perturbations

__all__ = [
    "PAPER_DESIGN",
    "REALISTIC_DESIGN",
    "PerturbationDesign",
    "SparseRotation",
    "rotate_decoder",
    "rotate_encoder",
    "rotate_scvi",
    "simulate_perturbations",
    "sparse_rotation",
]
