"""What the members of an ensemble look at, on average."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse
    from torch import Tensor

    from scvi_sctab.data import CellSelection
    from scvi_sctab.model._sctab import SCTAB


class EnsembleExplanationMixin:
    """Means over the members, for the labels that the ensemble predicts."""

    members: list[SCTAB]

    def _attend(self, cells: CellSelection, batch_size: int | None) -> sparse.csr_matrix:
        return self._mean(member._attend(cells, batch_size) for member in self.members)

    def _group_means(self, *args: Any) -> NDArray[np.float64]:
        return np.mean([member._group_means(*args) for member in self.members], axis=0)

    def _attribute(self, *args: Any) -> sparse.csr_matrix:
        return self._mean(member._attribute(*args) for member in self.members)

    def _map_cells(self, *args: Any) -> Iterator[Any]:
        return self.members[0]._map_cells(*args)

    def _dense_input(self, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return self.members[0]._dense_input(tensors)

    def _expression_probabilities(self, *args: Any) -> Tensor:
        parts = [member._expression_probabilities(*args) for member in self.members]
        return torch.stack(parts).mean(dim=0)

    def _mean(self, values: Iterable[sparse.csr_matrix]) -> sparse.csr_matrix:
        return sum(values) / np.float32(len(self.members))

    def _refuse_latent(self) -> None:
        for member in self.members:
            member._refuse_latent()
