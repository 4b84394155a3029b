"""Registry field of perturbations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scvi.data.fields import BaseAnnDataField

from scvi_sctab.external.svae._guides import Guides, check_guides, distinct, encode_guides

if TYPE_CHECKING:
    from anndata import AnnData

PERTURBATIONS_KEY = "perturbations"
"""Key of the codes of perturbations in a registry and in a minibatch."""
MIN_CELLS = 2
"""Smallest number of cells of a perturbation."""


class PerturbationField(BaseAnnDataField):  # type: ignore[misc]
    """Perturbations of cells, by their names; nothing is written to the AnnData.

    Parameters
    ----------
    guides
        Place and notation of the perturbations.
    may_extend
        Whether cells that are registered by a registry may have further perturbations.
    """

    def __init__(self, guides: Guides, *, may_extend: bool = False):
        super().__init__()
        self.guides, self.may_extend = guides, may_extend

    @property
    def registry_key(self) -> str:
        """Key in the registry."""
        return PERTURBATIONS_KEY

    @property
    def attr_name(self) -> str:
        """Attribute of the AnnData."""
        return "obsm" if self.guides.key is None else "obs"

    @property
    def attr_key(self) -> str | None:
        """Key in that attribute."""
        return self.guides.obsm_key if self.guides.key is None else self.guides.key

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to register."""
        return False

    def validate_field(self, adata: AnnData) -> None:
        """Check names and numbers of cells."""
        self.guides.read(adata)

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Register the perturbations that occur, sorted by name."""
        guides = self.guides.read(adata)
        check_guides(guides, self.guides, adata.obs_names, min_cells=MIN_CELLS)
        return {"names": np.array(distinct(guides), dtype=object)}

    def transfer_field(
        self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any
    ) -> dict[str, Any]:
        """Use the codes of a registry; new perturbations get the next codes, or are refused."""
        known = [str(name) for name in state_registry["names"]]
        guides = self.guides.read(adata_target)
        if self.may_extend:
            new = [name for name in distinct(guides) if name not in set(known)]
            return {"names": np.array([*known, *new], dtype=object)}
        encode_guides(guides, known, self.guides.place)  # raises
        return state_registry

    def get_summary_stats(self, state_registry: dict[str, Any]) -> dict[str, int]:
        """Count the perturbations."""
        return {"n_perturbations": len(state_registry["names"])}

    def view_state_registry(self, state_registry: dict[str, Any]) -> None:
        """Show nothing."""
