"""Base of models that are trained on cells without labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from scvi import REGISTRY_KEYS
from scvi.data.fields import LayerField

from scvi_sctab._config import SELF_SUPERVISED_PLAN, SELF_SUPERVISED_TRAIN
from scvi_sctab.base._devices import steps_per_epoch
from scvi_sctab.base._fit import fit, watch_validation
from scvi_sctab.base._host import seed
from scvi_sctab.base._model import BaseModel
from scvi_sctab.data import UnlabeledDataSplitter
from scvi_sctab.train import SelfSupervisedTrainingPlan, SinglePrecisionRunner

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback
    from scvi.data.fields import AnnDataField

    from scvi_sctab.data.stores import AtlasDataModule


class UnlabeledModel(BaseModel):
    """Model that is trained on cells without labels."""

    _training_plan_cls: ClassVar[Any] = SelfSupervisedTrainingPlan
    _data_splitter_cls = UnlabeledDataSplitter
    _train_runner_cls = SinglePrecisionRunner
    _plan_config = SELF_SUPERVISED_PLAN
    _train_config = SELF_SUPERVISED_TRAIN
    # Whether losses of different epochs can be compared.
    _losses_compare = True

    def train(
        self,
        max_epochs: int | None = None,
        *,
        train_size: float | None = None,
        batch_size: int | None = None,
        early_stopping: bool = True,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        datasplitter_kwargs: dict[str, Any] | None = None,
        plan_kwargs: dict[str, Any] | None = None,
        datamodule: AtlasDataModule | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train, and keep the weights of the epoch with the best held-out loss.

        Parameters
        ----------
        max_epochs
            Number of epochs; if not given, 40, or those of 800 steps if these are more (10 and 300
            for :class:`~scvi_sctab.external.ScDTL`).
        train_size
            Share of cells for training, 0.9 if not given; with 1 there are no held-out cells, and
            the last weights are kept.
        batch_size
            Cells per step.
        early_stopping
            Whether to stop when the loss on held-out cells, if any, no longer decreases.
        accelerator, devices
            Device for training; a GPU if there is one.
        datasplitter_kwargs
            Further arguments of :class:`~scvi_sctab.data.UnlabeledDataSplitter`.
        plan_kwargs
            Further arguments of :class:`~scvi_sctab.train.SelfSupervisedTrainingPlan`.
        datamodule
            Cells on disk to train on, of whose ``adata`` the model was made.
        **trainer_kwargs
            Further arguments of :class:`~scvi.train.Trainer`.

        Raises
        ------
        ValueError
            If the model has no AnnData, its counts are not raw, ``train_size`` is not in (0, 1],
            there are fewer than two training cells or cells per batch, or ``max_epochs`` is less
            than 1.
        """
        self._check_arguments(max_epochs, trainer_kwargs, "train", datamodule)
        self._check_own_cells()
        defaults = self._train_config
        splitter = self._splitter(
            train_size=defaults.train_size if train_size is None else train_size,
            batch_size=defaults.batch_size if batch_size is None else batch_size,
            **{"seed": seed(), **(datasplitter_kwargs or {})},
        )
        if max_epochs is None:
            where = {"accelerator": accelerator, "devices": devices}
            max_epochs = defaults.n_epochs(steps_per_epoch(splitter, {**where, **trainer_kwargs}))
        plan_kwargs = {
            **self._plan_config.to_kwargs(),
            "lr_decay_every": defaults.lr_decay_every(max_epochs),
            **(plan_kwargs or {}),
        }
        plan = self._training_plan_cls(self.module, **plan_kwargs)
        trainer_kwargs["callbacks"] = [*trainer_kwargs.get("callbacks", ()), *self._callbacks()]
        if splitter.n_val:
            trainer_kwargs = watch_validation(
                trainer_kwargs,
                "validation_loss",
                "min",
                early_stopping=early_stopping and self._losses_compare,
                patience=defaults.patience(max_epochs),
                keep_best=self._losses_compare,
            )
        fit(
            self,
            plan,
            splitter,
            max_epochs,
            accelerator=accelerator,
            devices=devices,
            **trainer_kwargs,
        )

    @staticmethod
    def _fields(layer: str | None) -> list[AnnDataField]:
        """List what is registered of genes."""
        return [LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=True)]

    def _splitter(self, **kwargs: Any) -> UnlabeledDataSplitter:
        """Build the data module that splits the cells."""
        return self._data_splitter_cls(self.adata_manager, **self._loading(), **kwargs)

    def _callbacks(self) -> list[Callback]:
        """List the callbacks of the pretext task."""
        return []
