"""Designs of simulated perturbation screens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scvi_sctab.external.svae._checks import check_whole


@dataclass(frozen=True)
class PerturbationDesign:
    """Design of a simulated screen; the defaults are those of :cite:t:`Lopez23`.

    Attributes
    ----------
    n_perturbations, n_latent, n_genes
        Numbers of perturbations without the control, of latents and of genes.
    n_cells
        Cells per perturbation.
    n_cells_spread
        Standard deviation of the logarithm of the number of cells; 0 for the same number.
    n_control_cells
        Cells of the perturbation ``"control"``.
    n_combinations
        Pairs of perturbations ``"P001+P042"``, whose shift is the sum of those of their parts.
    max_targets
        Each perturbation has 1 to ``max_targets`` targets, drawn with replacement.
    partner_rate
        Probability that a target ``j`` brings its partner (1 that of 0, 3 that of 2) with it.
    shift, shift_sd
        A target is shifted by ± the absolute value of a normal number with this mean and standard
        deviation.
    shift_tail
        Degrees of freedom of a Student's t in place of the normal number; None for the normal.
    background_sd
        Standard deviation of shifts of all other latents; 0 for exact zeros.
    anisotropy
        Standard deviation of the logarithm of the residual scales of cells, along axes drawn at
        random; 0 for independent residuals of variance 1.
    normalization
        ``"gene"``: every gene has the same mean over cells, as in the released simulator.
        ``"cell"``: proportions sum to 1 over the genes of a cell.
    depth
        Mean count of a cell.
    library_spread
        Standard deviation of the logarithm of library sizes.
    overdispersion
        Counts of mean ``m`` have the variance ``m + overdispersion * m**2``.
    dropout
        Probability that a count is lost.
    n_batches, batch_sd
        Number of batches, to which cells are assigned at random, and standard deviation of their
        effects on the logit of each gene.
    """

    n_perturbations: int = 100
    n_latent: int = 15
    n_genes: int = 100
    n_cells: int = 250
    n_cells_spread: float = 0.0
    n_control_cells: int = 0
    n_combinations: int = 0
    max_targets: int = 3
    partner_rate: float = 0.0
    shift: float = 5.0
    shift_sd: float = 0.5
    shift_tail: float | None = None
    background_sd: float = 0.0
    anisotropy: float = 0.0
    normalization: Literal["gene", "cell"] = "gene"
    depth: float = 4000.0
    library_spread: float = 0.0
    overdispersion: float = 0.0
    dropout: float = 0.0
    n_batches: int = 1
    batch_sd: float = 0.0

    def __post_init__(self) -> None:
        """Refuse numbers that no screen has.

        Raises
        ------
        ValueError
            If a number is out of its range.
        """
        for name in ("n_perturbations", "n_latent", "n_genes", "max_targets", "n_batches"):
            check_whole(name, getattr(self, name), 1)
        check_whole("n_cells", self.n_cells, 2)
        for name in ("n_control_cells", "n_combinations"):
            check_whole(name, getattr(self, name), 0)
        for name in ("n_cells_spread", "background_sd", "anisotropy", "library_spread",
                     "overdispersion", "batch_sd", "shift_sd"):  # fmt: skip
            self._require(name, 0)
        for name in ("partner_rate", "dropout"):
            self._require(name, 0, 1)
        pairs = self.n_perturbations * (self.n_perturbations - 1) // 2
        self._require("n_combinations", 0, pairs)
        if self.normalization not in ("gene", "cell"):
            raise ValueError(
                f"normalization={self.normalization!r} is unknown; choose 'gene' or 'cell'."
            )
        for name in ("depth", "shift_tail"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value} must be more than 0.")

    def _require(self, name: str, low: float, high: float = float("inf")) -> None:
        value = getattr(self, name)
        if not low <= value <= high:
            upper = "" if high == float("inf") else f" and at most {high}"
            raise ValueError(f"{name}={value} must be at least {low}{upper}.")


PAPER_DESIGN = PerturbationDesign()
"""Design of the simulations of :cite:t:`Lopez23`."""
REALISTIC_DESIGN = PerturbationDesign(
    n_genes=1000, normalization="cell", depth=2000.0, library_spread=0.4
)
"""Design with 1,000 genes, library sizes, and proportions of cells: about 35 % of counts are 0."""
