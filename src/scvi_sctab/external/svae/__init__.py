"""Sparse shifts of perturbations in a latent space."""

from scvi_sctab.external.svae._absorption import rotate_decoder, rotate_encoder, rotate_scvi
from scvi_sctab.external.svae._design import (
    PAPER_DESIGN,
    REALISTIC_DESIGN,
    PerturbationDesign,
)
from scvi_sctab.external.svae._guides import UnknownPerturbationError
from scvi_sctab.external.svae._model import SpikeSlabVAE
from scvi_sctab.external.svae._module import SpikeSlabModule
from scvi_sctab.external.svae._plan import SpikeSlabTrainingPlan
from scvi_sctab.external.svae._records import RotationRecord
from scvi_sctab.external.svae._rotation import SparseRotation, sparse_rotation
from scvi_sctab.external.svae._simulation import simulate_perturbations

__all__ = [
    "PAPER_DESIGN",
    "REALISTIC_DESIGN",
    "PerturbationDesign",
    "RotationRecord",
    "SparseRotation",
    "SpikeSlabModule",
    "SpikeSlabTrainingPlan",
    "SpikeSlabVAE",
    "UnknownPerturbationError",
    "rotate_decoder",
    "rotate_encoder",
    "rotate_scvi",
    "simulate_perturbations",
    "sparse_rotation",
]
