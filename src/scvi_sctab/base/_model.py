"""Base of every model of this package."""

from __future__ import annotations

from typing import Any

from scvi_sctab.base._cells import CellsMixin
from scvi_sctab.base._checkpoint import CheckpointMixin
from scvi_sctab.base._fit import check_epochs, check_trainer_arguments
from scvi_sctab.base._query_preparation import QueryPreparationMixin
from scvi_sctab.data import check_cells


class BaseModel(QueryPreparationMixin, CheckpointMixin, CellsMixin):
    """Model of scvi-tools that reads cells by name of gene, and whose files execute nothing."""

    def _check_arguments(
        self, max_epochs: int | None, trainer_kwargs: dict[str, Any], verb: str
    ) -> None:
        """Check that there are cells to train on, and the arguments of a verb that trains."""
        if self.adata is None:
            name = type(self).__name__
            raise ValueError(f"This model has no AnnData to train on: `{name}.load(path, adata)`.")
        check_epochs(max_epochs)
        check_trainer_arguments(trainer_kwargs, verb)

    def _check_own_cells(self) -> None:
        """Check the model's AnnData: another model may have been set up on it since."""
        self._renew_registration()
        check_cells(self.adata, self.layer)
