"""Base of every model of this package."""

from __future__ import annotations

from typing import Any

from scvi_sctab.base._cells import CellsMixin
from scvi_sctab.base._checkpoint import CheckpointMixin
from scvi_sctab.base._fit import check_epochs, check_trainer_arguments
from scvi_sctab.base._query_preparation import QueryPreparationMixin
from scvi_sctab.data import check_cells
from scvi_sctab.data.stores import AtlasDataModule


class BaseModel(QueryPreparationMixin, CheckpointMixin, CellsMixin):
    """Model of scvi-tools that reads cells by name of gene, and whose files execute nothing."""

    # Data module of the model's cells, if they are on disk.
    _atlas: AtlasDataModule | None = None

    def _take_cells(self, datamodule: Any) -> None:
        """Take over the cells of a data module, to train on them."""
        if not isinstance(datamodule, AtlasDataModule):
            raise TypeError(
                f"datamodule= takes an AtlasDataModule of `scvi_sctab.data.stores`, not a "
                f"{type(datamodule).__name__}: training also reads cells by their position, to "
                "hold out donors and to calibrate. Write the cells into a corpus first, "
                "`prepare_corpus`."
            )
        if self._atlas is not None and self._atlas.corpus.path == datamodule.corpus.path:
            return
        if self.adata is None and self.registry is datamodule.registry:
            self._adopt(datamodule.manager)
        elif self.adata is None:
            datamodule.check_fits(self.registry)
            self._adopt(self._register_as_own(datamodule.adata))
        elif self.adata is not datamodule.adata:
            name = type(self).__name__
            raise ValueError(
                "This model has another AnnData than the data module. Build it on the data "
                f"module's, `{name}(registry=datamodule.registry)` or "
                f"`{name}.setup_anndata(datamodule.adata, ...)`, or load it without one, "
                f"`{name}.load(path, adata=False)`."
            )
        self._atlas = datamodule

    def _loading(self) -> dict[str, Any]:
        """Return arguments of the splitter that loads the model's cells."""
        return {} if self._atlas is None else {"loader": self._atlas.loader}

    def _check_arguments(
        self,
        max_epochs: int | None,
        trainer_kwargs: dict[str, Any],
        verb: str,
        datamodule: Any = None,
    ) -> None:
        """Check the arguments of a verb that trains, and that there are cells to train on."""
        if self.adata is None and datamodule is None:
            name = type(self).__name__
            raise ValueError(f"This model has no AnnData to train on: `{name}.load(path, adata)`.")
        check_epochs(max_epochs)
        check_trainer_arguments(trainer_kwargs, verb)
        if datamodule is not None:
            self._take_cells(datamodule)

    def _check_own_cells(self) -> None:
        """Check the model's AnnData: another model may have been set up on it since."""
        self._renew_registration()
        if self._atlas is None:  # a corpus was checked when it was written
            check_cells(self.adata, self.layer)
