"""Training on the labelled cells of a reference, and pretraining without labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse

from scvi_sctab._config import DEPTHS, PRESETS, PRETRAINING, Preset, plan_of
from scvi_sctab._logging import logger
from scvi_sctab._messages import warn
from scvi_sctab.base import choose_device, draw_cells, seed, steps_per_epoch, watch_validation
from scvi_sctab.data import (
    CellIdentities,
    TrainingRecord,
    class_weights,
    donor_difference_vectors,
    identify,
    normalize_block,
    sample_cells,
)
from scvi_sctab.model._few_labels import check_few_labels, fit_few_labels
from scvi_sctab.module import build_reconstruction
from scvi_sctab.nn import frozen_but, single_precision
from scvi_sctab.sparse import CSR

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scvi_sctab._types import TrainingCells
    from scvi_sctab.model._sctab import SCTAB
    from scvi_sctab.train import ClassifierTrainingPlan

_MONITOR = "validation_f1_macro"
_MAX_VALIDATIONS = 25
# Validations without improvement before early stopping, for presets without a default.
_PATIENCE = 5


@dataclass(frozen=True)
class ReferenceTrainer:
    """Training of a model on labelled cells.

    Parameters
    ----------
    model
        Model to train; only its weights and history are changed.
    """

    model: SCTAB

    @property
    def preset(self) -> Preset:
        """Preset of the model."""
        return PRESETS[self.model.preset_]

    def train(
        self,
        max_epochs: int | None,
        early_stopping: bool | None,
        augment: bool | None,
        depth_augmentation: bool,
        splitting: dict[str, Any],
        plan_kwargs: dict[str, Any],
        trainer_kwargs: dict[str, Any],
    ) -> TrainingRecord:
        """Split cells, train on them, and keep the weights of the best epoch.

        Parameters
        ----------
        max_epochs, early_stopping, augment, depth_augmentation, plan_kwargs, trainer_kwargs
            As in :meth:`scvi_sctab.SCTAB.train`.
        splitting
            Arguments of the splitter.

        Returns
        -------
        Record of the cells that were trained on, in this training or before, and held out.
        """
        model, defaults = self.model, self.preset.train
        if defaults.closed_form:
            asked = {
                "max_epochs": max_epochs,
                "early_stopping": early_stopping,
                "augment": augment,
                "depth_augmentation": depth_augmentation,
                "batch_size": splitting["batch_size"],
                "plan_kwargs": plan_kwargs,
                "checkpoint_dir": trainer_kwargs.pop("checkpoints", None),
            }
            device = choose_device(
                trainer_kwargs.pop("accelerator"), trainer_kwargs.pop("devices")
            )
            trainer_kwargs.pop("enable_progress_bar", None)
            check_few_labels(model, asked | dict.fromkeys(trainer_kwargs, True))
            record = self._solve(self._split(splitting))
            model.to_device(device)
            return record
        splitter = self._split(splitting)
        if max_epochs is None:
            max_epochs = defaults.n_epochs(steps_per_epoch(splitter, trainer_kwargs))
        if splitter.n_val:
            patience = defaults.early_stopping_patience
            trainer_kwargs = watch_validation(
                trainer_kwargs,
                _MONITOR,
                "max",
                early_stopping=patience is not None if early_stopping is None else early_stopping,
                patience=patience or _PATIENCE,
                every_n_epochs=ceil(max_epochs / _MAX_VALIDATIONS),
                keep_best_from=int(defaults.keep_best_from * max_epochs),
            )
        elif early_stopping:
            raise ValueError("early_stopping needs held-out cells: give a train_size below 1.")
        if model.module.reconstruction is not None:
            center_reconstruction(model, splitter)
        if depth_augmentation:
            if not model.module.reads_genes:
                raise ValueError(
                    "depth_augmentation=True takes a model of genes; this one reads a latent space."
                )
            plan_kwargs = {"depths": DEPTHS, **plan_kwargs}
        plan = self._plan(splitter, augment, plan_kwargs)
        model._fit(plan, splitter, max_epochs, trainer_kwargs)
        return self._record(splitter)

    def _solve(self, splitter: TrainingCells) -> TrainingRecord:
        """Fit the model to few labelled cells at once; nothing remains of a fit before."""
        parts = tuple(np.sort(part) for part in _parts_of(splitter))
        model = self.model
        model.train_indices_, model.validation_indices_, model.test_indices_ = parts
        fit_few_labels(model)
        trained, held_out, aside = map(self._identify, parts)
        return TrainingRecord(trained, held_out.take(~held_out.among(trained)), aside)

    def _split(self, splitting: dict[str, Any]) -> TrainingCells:
        """Choose the cells to train on and to hold out; those held out before, if there are any."""
        model, defaults = self.model, self.preset.train
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
        if model.is_trained_ and not asked:
            splitting["external_indexing"] = self._split_as_before()
        return model._training_cells(**{"seed": seed(), **splitting})

    def _split_as_before(self) -> list[NDArray[np.intp]] | None:
        """Split cells as the last training did; ``None`` if it had none of them."""
        model, record = self.model, self.model.training_record
        if record is None:
            return None
        labelled = np.flatnonzero(model._label_codes() < len(model.labels))
        cells = self._identify(labelled)
        held_out, aside = cells.among(record.held_out), cells.among(record.set_aside)
        if not (cells.among(record.trained) | held_out).any():
            return None
        if not (held_out.any() or self.preset.train.closed_form):
            logger.warning(
                "The model was trained on all of these cells before, so that none can be held out: "
                "there will be no calibration. `model.calibrate(adata)` takes labelled cells of "
                "your own."
            )
        aside &= ~held_out
        return [labelled[~held_out & ~aside], labelled[held_out], labelled[aside]]

    def _identify(self, cells: NDArray[np.intp]) -> CellIdentities:
        return identify(self.model._select(None, cells), self.model.gene_names)

    def _record(self, splitter: TrainingCells) -> TrainingRecord:
        """Identities of cells that were trained on, in this training or before, and held out."""
        trained, held_out, aside = (self._identify(np.sort(p)) for p in _parts_of(splitter))
        before = self.model.training_record
        if before is not None:
            n_seen = int(held_out.among(before.trained).sum())
            if n_seen:
                warn(
                    f"{n_seen:,} of the {len(held_out):,} cells to hold out were trained on before: "
                    "scores on them would be too high, so the model has no held-out cells and no "
                    "calibration now. Build a new model for another split, or calibrate on other "
                    "labelled cells, `model.calibrate(adata)`."
                )
                held_out = CellIdentities.none()
            trained = before.trained.join(trained)
        held_out = held_out.take(~held_out.among(trained))
        return TrainingRecord(trained, held_out, aside)

    def _plan(
        self, splitter: TrainingCells, augment: bool | None, plan_kwargs: dict[str, Any]
    ) -> ClassifierTrainingPlan:
        model = self.model
        weights = class_weights(
            splitter.labels[splitter.train_idx],
            len(model.labels),
            self.preset.train.class_weight_power,
        )
        return model._training_plan_cls(
            model.module,
            class_weights=torch.from_numpy(weights),
            augmentation_vectors=self._augmentation_vectors(splitter, augment),
            **{**plan_of(model.preset_, model.network_config), **plan_kwargs},
        )

    def _augmentation_vectors(self, splitter: TrainingCells, augment: bool | None) -> CSR | None:
        """Differences between the donors of the training cells, if wanted."""
        model, reads_genes = self.model, self.model.module.reads_genes
        if augment and splitter.donors is None:
            raise ValueError("augment=True takes differences between donors: set up `donor_key=`.")
        if augment and not reads_genes:
            raise ValueError("augment=True takes a model of genes; this one reads a latent space.")
        if augment is None:
            augment = self.preset.train.augment
        if not augment or splitter.donors is None or not reads_genes:
            return None
        cells = np.sort(splitter.train_idx)
        cells = cells[splitter.labels[cells] < len(model.labels)]
        cells = cells[sample_cells(splitter.labels[cells], seed())]
        vectors = donor_difference_vectors(
            splitter.read(cells),
            splitter.labels[cells],
            splitter.donors[cells],
            seed(),
        )
        return CSR.from_dense(torch.from_numpy(vectors)) if len(vectors) else None


def _parts_of(splitter: TrainingCells) -> tuple[NDArray[np.intp], ...]:
    """Return the cells to train on, to hold out and to set aside."""
    return splitter.train_idx, splitter.val_idx, splitter.test_idx


def pretrain_encoder(
    model: SCTAB,
    max_epochs: int | None,
    batch_size: int | None,
    plan_kwargs: dict[str, Any],
    trainer_kwargs: dict[str, Any],
) -> None:
    """Train the encoder of a model by masked reconstruction on all cells of its AnnData.

    Parameters
    ----------
    model
        Model that is not trained.
    max_epochs, batch_size, plan_kwargs, trainer_kwargs
        As in :meth:`scvi_sctab.SCTAB.pretrain`.
    """
    splitter = model._training_cells(
        train_size=1.0,
        batch_size=batch_size or PRETRAINING.batch_size,
        external_indexing=[model._select(None).positions, *np.zeros((2, 0), np.intp)],
        require_labels=False,
    )
    splitter.assign(np.arange(len(splitter.labels)), len(model.labels))
    if max_epochs is None:
        max_epochs = ceil(PRETRAINING.max_steps / steps_per_epoch(splitter, trainer_kwargs))
    settings = {**PRESETS[model.preset_].plan.to_kwargs(), **PRETRAINING.plan}
    encoder = ["encoder.*", "batch_embedding.*", "reconstruction.*"]
    with _reconstructing(model, splitter), frozen_but(model.module, encoder, {}):
        plan = model._training_plan_cls(model.module, **{**settings, **plan_kwargs})
        model._fit(plan, splitter, max_epochs, trainer_kwargs)


@contextmanager
def _reconstructing(model: SCTAB, cells: TrainingCells) -> Iterator[None]:
    """Give the module a decoder, if it has none, and take reconstruction for its only loss."""
    module, weight = model.module, model.module.reconstruction_weight
    history, trained = model.history_, model.is_trained_
    if module.reconstruction is None:
        with single_precision():
            module.reconstruction = build_reconstruction(
                module.encoder,
                len(model.gene_names),
                [len(condition.categories) for condition in model.conditions],
                model.network_config,
            ).to(module.device)
    center_reconstruction(model, cells)
    module.reconstruction_weight = 1.0
    model.history_, model.is_trained_ = None, False
    module.train()
    try:
        yield
        model.pretraining_history_ = model.history_
    finally:
        model.history_, model.is_trained_ = history, trained
        module.reconstruction_weight = weight
        if not weight:
            module.reconstruction = None
        module.eval()


def center_reconstruction(model: SCTAB, cells: TrainingCells) -> None:
    """Start a decoder that has learnt nothing from the mean expression of each gene.

    Parameters
    ----------
    model
        With a decoder.
    cells
        Cells of the model.
    """
    decoder = model.module.reconstruction.decoder
    if decoder.final_mapping.bias.any():
        return
    drawn = draw_cells(np.arange(len(cells.labels)))
    means = sparse.vstack([*map(normalize_block, cells.read(drawn))]).mean(axis=0)
    decoder.start_from(torch.from_numpy(np.asarray(means).ravel()).float())


def _train_size(train_size: float | None, validation_size: float | None, default: float) -> float:
    """Return the share for training: as given, else by the validation share or the preset."""
    if train_size is not None:
        return train_size
    return default if validation_size is None else 1 - validation_size
