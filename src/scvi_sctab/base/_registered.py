"""What an AnnData was registered with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scvi import REGISTRY_KEYS

from scvi_sctab.base._host import HostModel
from scvi_sctab.data import Condition, check_genes, registered_conditions

if TYPE_CHECKING:
    from numpy.typing import NDArray


class RegisteredMixin(HostModel):
    """Layer, genes and conditions of a model, as its registry has them."""

    # Names as they were registered, and as they were checked.
    _checked_genes: tuple[Any, NDArray[np.str_]]

    @property
    def layer(self) -> str | None:
        """Layer that counts are read from; ``None`` is ``X``."""
        return self.registry["setup_args"]["layer"]

    @property
    def conditions(self) -> list[Condition]:
        """Columns of ``adata.obs`` that the encoder is told, with the categories it knows."""
        return registered_conditions(self.registry)

    @property
    def gene_names(self) -> NDArray[np.str_]:
        """Genes that the model reads, in its order, without Ensembl versions."""
        names = self.registry["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"][
            "column_names"
        ]
        # Checking 20,000 names takes ten times as long as copying them.
        checked = vars(self).get("_checked_genes")
        if checked is None or checked[0] is not names:
            checked = self._checked_genes = names, check_genes(names).to_numpy(dtype=str)
        return checked[1].copy()
