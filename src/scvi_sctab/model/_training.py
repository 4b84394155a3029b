"""How SCTAB is trained."""

from __future__ import annotations

import warnings
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import settings

from scvi_sctab._config import PRESETS, TrainConfig, plan_of
from scvi_sctab._logging import logger, quiet_trainer, shows_progress
from scvi_sctab.base import all_or_nothing, check_epochs, check_trainer_arguments, run
from scvi_sctab.data import (
    CellIdentities,
    LabeledDataSplitter,
    TrainingRecord,
    check_cells,
    check_labels_unchanged,
    class_weights,
    donor_difference_vectors,
    read_counts,
    sample_cells,
)
from scvi_sctab.module import LatentClassifier
from scvi_sctab.nn import CSR
from scvi_sctab.train import ClassifierTrainingPlan, RestoreBestWeights

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MONITOR = "validation_f1_macro"
_MAX_VALIDATIONS = 25
# Validations without progress, where early stopping is asked for and the preset has none.
_PATIENCE = 5


class TrainingMixin:
    """Training on the labelled cells of the reference."""

    # Whether Ctrl-C ended the last training; an ensemble asks.
    _was_interrupted = False

    def train(
        self,
        max_epochs: int | None = None,
        *,
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        batch_size: int | None = None,
        early_stopping: bool | None = None,
        augment: bool | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        datasplitter_kwargs: dict[str, Any] | None = None,
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train on the labelled cells of the reference; the preset gives what is not given here.

        The weights of the epoch with the best macro F1 on held-out cells are kept. Cells are held
        out by donor if a ``donor_key`` was set up.

        A model of :meth:`load_query_data` is adapted to all cells of the query instead, by
        self-training: the cells that it is surest of, of each predicted label, are trained on
        with that label, in rounds. Labels that the query holds are trained on, too.

        Parameters
        ----------
        max_epochs
            Epochs.
        train_size
            Share of labelled cells to train on; 1 trains on all and keeps the last weights.
        validation_size
            Share to validate on; all the rest if not given.
        shuffle_set_split
            Whether cells or donors are held out at random; otherwise the last cells of each label.
        batch_size
            Cells per step.
        early_stopping
            Whether to stop when the macro F1 no longer gets better; by default the paper preset
            does, the small one, whose learning rate follows a cycle, does not.
        augment
            Whether to add differences between donors to training cells, as scTab does; by default
            the paper preset does. It takes a ``donor_key``.
        accelerator, devices
            Where to train; a GPU if there is one.
        datasplitter_kwargs
            Further arguments of :class:`~scvi_sctab.data.LabeledDataSplitter`.
        plan_kwargs
            Further arguments of :class:`~scvi_sctab.train.ClassifierTrainingPlan`.
        **trainer_kwargs
            Further arguments of :class:`~scvi.train.Trainer`.

        Raises
        ------
        ValueError
            If the model has no AnnData, its cells are no raw counts, its labels have changed since
            they were set up, no labelled cell is left to train on, the sizes of the sets do not
            fit, or there is no epoch to train for.
        TypeError
            If there is no such argument.
        KeyboardInterrupt
            If Ctrl-C came before the first epoch was scored; the model is as it was before.

        Warns
        -----
        UserWarning
            If a model that was trained before is to hold out cells that it was trained on.

        Notes
        -----
        A model that is trained again holds out the cells that it held out before, unless another
        split is asked for; a training that fails leaves the model as it was. Ctrl-C stops early:
        the best epoch so far is kept, and calibrated.
        """
        if self.adata is None:
            raise ValueError("This model has no AnnData to train on: `SCTAB.load(path, adata)`.")
        check_epochs(max_epochs)
        check_trainer_arguments(trainer_kwargs, "train")
        check_labels_unchanged(self.adata_manager)
        # Another model may have been set up on the same AnnData since, or its counts replaced.
        self._validate_anndata()
        check_cells(self.adata, self.layer)
        datasplitter_kwargs, plan_kwargs = datasplitter_kwargs or {}, plan_kwargs or {}
        trainer_kwargs = {
            "accelerator": accelerator,
            "devices": devices,
            "log_every_n_steps": 1,
            "enable_progress_bar": shows_progress(),
            **trainer_kwargs,
        }
        if self.surgery_ is not None:
            asked = (train_size, validation_size, early_stopping, augment)
            if any(value is not None for value in asked):
                raise ValueError(
                    "A query model trains on all cells of the query; none are held out for "
                    "`train_size`, `validation_size` or `early_stopping`, nor is any augmented."
                )
            with all_or_nothing(self):
                self._train_on_query(
                    max_epochs, batch_size, datasplitter_kwargs, plan_kwargs, trainer_kwargs
                )
            return
        splitting = {
            "train_size": train_size,
            "validation_size": validation_size,
            "batch_size": batch_size,
            "shuffle_set_split": shuffle_set_split,
            **datasplitter_kwargs,
        }
        with all_or_nothing(self):
            self._train_on_reference(
                max_epochs, early_stopping, augment, splitting, plan_kwargs, trainer_kwargs
            )

    def _train_on_reference(
        self,
        max_epochs: int | None,
        early_stopping: bool | None,
        augment: bool | None,
        splitting: dict[str, Any],
        plan_kwargs: dict[str, Any],
        trainer_kwargs: dict[str, Any],
    ) -> None:
        """Train all there is, on labelled cells of a training set."""
        defaults = PRESETS[self.preset_].train
        splitter = self._split(splitting, defaults)
        if max_epochs is None:
            max_epochs = defaults.n_epochs(len(splitter.train_dataloader()))
        if splitter.n_val:
            trainer_kwargs = _validate(trainer_kwargs, defaults, max_epochs, early_stopping)
        elif early_stopping:
            raise ValueError("early_stopping needs held-out cells: give a train_size below 1.")
        if self.module.reconstruction is not None:
            self._center_reconstruction()
        # Loading and predicting leave the module in eval mode, in which Lightning would train it.
        self.module.train()
        plan = self._make_plan(splitter, augment, plan_kwargs)
        self._fit(plan, splitter, max_epochs, trainer_kwargs)
        self._record(splitter)
        self._describe_reference()
        self._calibrate_after_training()

    def _fit(
        self,
        plan: ClassifierTrainingPlan,
        splitter: LabeledDataSplitter,
        max_epochs: int,
        trainer_kwargs: dict[str, Any],
    ) -> None:
        """Run the trainer."""
        with quiet_trainer():
            runner = self._train_runner_cls(
                self,
                training_plan=plan,
                data_splitter=splitter,
                max_epochs=max_epochs,
                **trainer_kwargs,
            )
        self._was_interrupted = run(self, runner)

    def _split(self, splitting: dict[str, Any], defaults: TrainConfig) -> LabeledDataSplitter:
        """Choose the cells to train on and to hold out; those held out before, if there are any."""
        asked = any(
            splitting.get(name) is not None
            for name in ("train_size", "validation_size", "external_indexing", "seed")
        )
        asked |= not splitting["shuffle_set_split"]
        splitting["train_size"] = _train_size(
            splitting["train_size"], splitting["validation_size"], defaults.train_size
        )
        if splitting["batch_size"] is None:
            splitting["batch_size"] = defaults.batch_size
        if self.is_trained_ and not asked:
            splitting["external_indexing"] = self._split_as_before()
        return self._data_splitter_cls(
            self.adata_manager, len(self.labels), **{"seed": _seed(), **splitting}
        )

    def _split_as_before(self) -> list[NDArray[np.intp]] | None:
        """Split cells as the training before did; ``None`` where it saw none of them."""
        record = self.training_record
        if record is None:
            return None
        labelled = np.flatnonzero(self._label_codes() < len(self.labels))
        cells = self._identify(self._select(None, labelled))
        held_out, aside = cells.among(record.held_out), cells.among(record.set_aside)
        if not (cells.among(record.trained) | held_out).any():
            return None
        if not held_out.any():
            logger.warning(
                "The model was trained on all of these cells before, so that none can be held out: "
                "there will be no calibration. `model.calibrate(adata)` takes labelled cells of "
                "your own."
            )
        aside &= ~held_out
        return [labelled[~held_out & ~aside], labelled[held_out], labelled[aside]]

    def _record(self, splitter: LabeledDataSplitter) -> None:
        """Remember which cells were trained on, in this training or before, and held out."""
        trained, held_out, aside = (
            self._identify(self._select(None, np.sort(part)))
            for part in (splitter.train_idx, splitter.val_idx, splitter.test_idx)
        )
        before = self.training_record
        if before is not None:
            n_seen = int(held_out.among(before.trained).sum())
            if n_seen:
                warnings.warn(
                    f"{n_seen:,} of the {len(held_out):,} cells to hold out were trained on before: "
                    "scores on them would flatter, so that the model has no held-out cells and no "
                    "calibration now. Build a new model for another split, or calibrate on other "
                    "labelled cells, `model.calibrate(adata)`.",
                    UserWarning,
                    stacklevel=4,
                )
                held_out = CellIdentities.none()
            trained = before.trained.join(trained)
        held_out = held_out.take(~held_out.among(trained))
        self.training_record_ = TrainingRecord(trained, held_out, aside).to_dict()

    def _make_plan(
        self, splitter: LabeledDataSplitter, augment: bool | None, plan_kwargs: dict[str, Any]
    ) -> ClassifierTrainingPlan:
        preset = PRESETS[self.preset_]
        weights = class_weights(
            splitter.labels[splitter.train_idx],
            len(self.labels),
            preset.train.class_weight_power,
        )
        return self._training_plan_cls(
            self.module,
            class_weights=torch.from_numpy(weights),
            augmentation_vectors=self._augmentation_vectors(splitter, augment),
            **{**plan_of(self.preset_, self._network), **plan_kwargs},
        )

    def _augmentation_vectors(
        self, splitter: LabeledDataSplitter, augment: bool | None
    ) -> CSR | None:
        """Differences between the donors of the training cells, if wanted."""
        if augment and splitter.donors is None:
            raise ValueError("augment=True takes differences between donors: set up `donor_key=`.")
        if augment and isinstance(self.module, LatentClassifier):
            raise ValueError("augment=True takes a model of genes; this one reads a latent space.")
        if augment is None:
            augment = PRESETS[self.preset_].train.augment
        if not augment or splitter.donors is None or isinstance(self.module, LatentClassifier):
            return None
        cells = np.sort(splitter.train_idx)
        cells = cells[splitter.labels[cells] < len(self.labels)]
        cells = cells[sample_cells(splitter.labels[cells], _seed())]
        vectors = donor_difference_vectors(
            read_counts(self.adata, self.layer, cells),
            splitter.labels[cells],
            splitter.donors[cells],
            _seed(),
        )
        return CSR.from_dense(torch.from_numpy(vectors)) if len(vectors) else None


def _validate(
    trainer_kwargs: dict[str, Any],
    defaults: TrainConfig,
    max_epochs: int,
    early_stopping: bool | None,
) -> dict[str, Any]:
    """Add to the trainer's arguments how often to validate, when to stop and what to keep."""
    patience = defaults.early_stopping_patience
    keep_best = RestoreBestWeights(_MONITOR, "max", int(defaults.keep_best_from * max_epochs))
    return {
        "check_val_every_n_epoch": ceil(max_epochs / _MAX_VALIDATIONS),
        "early_stopping": patience is not None if early_stopping is None else early_stopping,
        "early_stopping_monitor": _MONITOR,
        "early_stopping_mode": "max",
        "early_stopping_patience": patience or _PATIENCE,
        **trainer_kwargs,
        "callbacks": [*trainer_kwargs.get("callbacks", ()), keep_best],
    }


def _seed() -> int:
    return 0 if settings.seed is None else settings.seed


def _train_size(train_size: float | None, validation_size: float | None, default: float) -> float:
    """Share to train on: as asked for, else what validation leaves, else the preset's."""
    if train_size is not None:
        return train_size
    return default if validation_size is None else 1 - validation_size
