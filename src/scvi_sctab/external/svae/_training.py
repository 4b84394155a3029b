"""Training in stages: autoencoder, sparse rotation, sparse fine-tuning."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scvi_sctab._config import ROTATION, SHIFT_TRAIN, ShiftStageConfig
from scvi_sctab._logging import logger
from scvi_sctab._messages import list_names
from scvi_sctab.base import all_or_nothing, fit, seed, watch_validation
from scvi_sctab.external.svae._absorption import (
    rotate_decoder,
    rotate_encoder,
    set_constant_variance,
)
from scvi_sctab.external.svae._query import only_new_columns
from scvi_sctab.external.svae._records import RotationRecord
from scvi_sctab.external.svae._rotation import sparse_rotation
from scvi_sctab.external.svae._shift_estimates import (
    count_cells,
    count_controls,
    least_squares_shifts,
    sparsity_of,
    standard_errors,
)
from scvi_sctab.nn import single_precision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scvi_sctab.external.svae._model import SpikeSlabVAE
    from scvi_sctab.external.svae._module import Objective
    from scvi_sctab.external.svae._rotation import SparseRotation

# Logits of inclusions of 0 and 1, where masks are those of the rotation.
_CERTAIN = 10.0


@dataclass(frozen=True)
class TrainingArguments:
    """Arguments of ``train`` that all stages share.

    Attributes
    ----------
    train_size, batch_size
        Share of training cells, and cells per step; ``None`` is the default of the stage.
    early_stopping
        Whether to hold cells out and to stop by their loss.
    splitter, plan, trainer
        Further arguments of data module, training plan and trainer.
    """

    train_size: float | None
    batch_size: int | None
    early_stopping: bool
    splitter: dict[str, Any]
    plan: dict[str, Any]
    trainer: dict[str, Any]


def train_in_stages(
    model: SpikeSlabVAE,
    arguments: TrainingArguments,
    *,
    max_epochs: int | None,
    finetune_epochs: int | None,
    n_init: int,
    n_starts: int,
) -> None:
    """Train an autoencoder, rotate its latents, and fine-tune it with sparse shifts.

    Parameters
    ----------
    model
        Untrained model with the spike-and-slab prior.
    arguments
        Arguments of all stages.
    max_epochs, finetune_epochs
        Epochs of the autoencoder and of the fine-tuning; 0 for no fine-tuning.
    n_init
        Number of autoencoders; the one with the lowest criterion is kept.
    n_starts
        Number of starts of the rotation.
    """
    _require_perturbations(model)
    with all_or_nothing(model):
        interrupted = prepare(
            model, arguments, max_epochs=max_epochs, n_init=n_init, n_starts=n_starts
        )
        finetune(
            model,
            arguments,
            max_epochs=0 if interrupted else finetune_epochs,
            sparsity=model._arguments()["sparsity"],
        )


def prepare(
    model: SpikeSlabVAE,
    arguments: TrainingArguments,
    *,
    max_epochs: int | None,
    n_init: int,
    n_starts: int,
) -> bool:
    """Train an autoencoder and rotate its latents; shifts are then the effects of the rotation.

    Parameters
    ----------
    model, arguments, max_epochs, n_init, n_starts
        As in :func:`train_in_stages`.

    Returns
    -------
    Whether Ctrl-C ended the training.
    """
    rotation, criteria, interrupted = _train_autoencoders(
        model, arguments, max_epochs=max_epochs, n_init=n_init, n_starts=n_starts
    )
    _absorb(model, rotation)
    model.rotation = RotationRecord.of(rotation, model.perturbations, criteria)
    _start_shifts(model)
    return interrupted


def finetune(
    model: SpikeSlabVAE,
    arguments: TrainingArguments,
    *,
    max_epochs: int | None,
    sparsity: float | None,
) -> bool:
    """Fine-tune a model after :func:`prepare`.

    Parameters
    ----------
    model, arguments
        As in :func:`train_in_stages`.
    max_epochs
        Number of epochs; with 0, masks are the targets of the rotation.
    sparsity
        K; if not given, it follows from the threshold of the rotation.

    Returns
    -------
    Whether Ctrl-C ended the training.
    """
    record = model.rotation
    assert record is not None
    if sparsity is None:
        # `adapt` takes the shift that K includes as the threshold of new perturbations.
        share = 1.0 if max_epochs == 0 else SHIFT_TRAIN.threshold_share
        n_cells = model._n_cells_per_trained
        shift = smallest_shift(share * record.threshold, n_cells, model.n_controls_)
        sparsity = sparsity_of(shift, n_cells, model.module.beta)
        logger.info(f"Sparsity of the masks: K = {sparsity:.0f}.")
    model.module.sparsity.fill_(sparsity)
    if max_epochs == 0:
        _fix_masks(model, record)
        return False
    return run_stage(model, SHIFT_TRAIN.finetuning, arguments, max_epochs=max_epochs)


def choose_stages(
    model: SpikeSlabVAE,
    arguments: TrainingArguments,
    *,
    max_epochs: int | None,
    rotate: bool,
    finetune_epochs: int | None,
    n_init: int,
    n_starts: int,
) -> None:
    """Train a model by the stages that are left to it.

    Parameters
    ----------
    model
        Model to train.
    arguments
        Arguments of all stages.
    max_epochs, rotate, finetune_epochs, n_init, n_starts
        As in :meth:`SpikeSlabVAE.train`.
    """
    prior = model.module.prior
    objective: Objective = "standard" if prior == "none" else "expected"
    if model.surgery is not None:
        with only_new_columns(model.module, model.surgery.n_known):
            run_stage(
                model,
                replace(SHIFT_TRAIN.query, objective=objective),
                replace(arguments, plan={**arguments.plan, "weight_decay": 0.0}),
                max_epochs=max_epochs,
                frozen_statistics=True,
            )
    elif not rotate:
        if not model.is_trained_:
            _start_published(model)
        run_stage(model, SHIFT_TRAIN.published, arguments, max_epochs=max_epochs)
    elif model.rotation is not None:
        with all_or_nothing(model):
            finetune(
                model,
                arguments,
                max_epochs=finetune_epochs if max_epochs is None else max_epochs,
                sparsity=model._arguments()["sparsity"],
            )
    elif model.is_trained_:
        stage = replace(SHIFT_TRAIN.finetuning, objective=objective)
        run_stage(model, stage, arguments, max_epochs=max_epochs or finetune_epochs)
    elif prior != "spike_slab":
        stage = replace(SHIFT_TRAIN.autoencoder, objective=objective)
        run_stage(model, stage, arguments, max_epochs=max_epochs)
    else:
        train_in_stages(
            model,
            arguments,
            max_epochs=max_epochs,
            finetune_epochs=finetune_epochs,
            n_init=n_init,
            n_starts=n_starts,
        )


def _start_published(model: SpikeSlabVAE) -> None:
    """Set the sparsity, if it is not given, by the number of cells per perturbation."""
    if model.module.prior == "spike_slab" and model._arguments()["sparsity"] is None:
        counts = count_cells(model._codes(model.adata), len(model.perturbations))
        n_cells = float(np.median(counts))
        sparsity = sparsity_of(SHIFT_TRAIN.threshold, n_cells, model.module.beta)
        model.module.sparsity.fill_(sparsity)


def run_stage(
    model: SpikeSlabVAE,
    stage: ShiftStageConfig,
    arguments: TrainingArguments,
    *,
    max_epochs: int | None,
    frozen_statistics: bool = False,
) -> bool:
    """Train by gradient descent.

    Parameters
    ----------
    model
        Model to train; only parameters with ``requires_grad`` change.
    stage
        Hyperparameters.
    arguments
        Arguments of all stages.
    max_epochs
        Number of epochs, if not that of the stage.
    frozen_statistics
        As in :class:`SpikeSlabTrainingPlan`.

    Returns
    -------
    Whether Ctrl-C ended it, after at least one epoch.
    """
    size = arguments.train_size
    if size is None:
        size = SHIFT_TRAIN.train_size if arguments.early_stopping else 1.0
    splitter = model._splitter(
        train_size=size,
        batch_size=(
            min(stage.batch_size, model.adata.n_obs)
            if arguments.batch_size is None
            else arguments.batch_size
        ),
        **{"seed": seed(), **arguments.splitter},
    )
    n_epochs = max_epochs or stage.n_epochs(len(splitter.train_dataloader()))
    plan = model._training_plan_cls(
        model.module,
        splitter.n_train,
        stage,
        frozen_statistics=frozen_statistics,
        **arguments.plan,
    )
    trainer = dict(arguments.trainer)
    if splitter.n_val and arguments.early_stopping:
        trainer = watch_validation(
            trainer,
            "validation_loss",
            "min",
            early_stopping=True,
            patience=stage.patience(n_epochs),
        )
    elif splitter.n_val:
        trainer = {"check_val_every_n_epoch": 1, **trainer}
    interrupted = fit(model, plan, splitter, n_epochs, **trainer)
    if model.surgery is None:
        _count_trained(model)
    return interrupted


def _count_trained(model: SpikeSlabVAE) -> None:
    """Record the numbers of training cells, on which the errors of shifts depend."""
    codes = model._codes(model.adata)[np.asarray(model.train_indices)]
    model.n_cells_ = count_cells(codes, len(model.perturbations))
    model.n_trained_, model.n_controls_ = len(model.perturbations), count_controls(codes)


def _train_autoencoders(
    model: SpikeSlabVAE,
    arguments: TrainingArguments,
    *,
    max_epochs: int | None,
    n_init: int,
    n_starts: int,
) -> tuple[SparseRotation, tuple[float, ...], bool]:
    """Train autoencoders from several starts, and keep the one with the sparsest rotation."""
    best: tuple[SparseRotation, Any, Any] | None = None
    criteria: list[float] = []
    interrupted = False
    for start in range(n_init):
        if start:
            model.is_trained_, model.history_ = False, None
            with single_precision():
                model.module = model._build_module()
        interrupted = run_stage(model, SHIFT_TRAIN.autoencoder, arguments, max_epochs=max_epochs)
        rotation = _rotate(model, n_starts)
        criteria.append(rotation.criterion)
        if best is None or rotation.criterion < best[0].criterion:
            best = rotation, model.module, model.history_
        if interrupted:
            break
    assert best is not None
    rotation, model.module, model.history_ = best
    if n_init > 1:
        logger.info(
            "Criteria of the autoencoders: "
            f"{', '.join(f'{value:.1f}' for value in criteria)}; the lowest was kept."
        )
    return rotation, tuple(criteria), interrupted


def _rotate(model: SpikeSlabVAE, n_starts: int) -> SparseRotation:
    """Find the sparse rotation of the training cells with at most one perturbation."""
    positions = np.asarray(model.train_indices)
    means, variances = model._posterior(model._select(None, positions))
    labels, control = rotation_labels(model._guides.read(model.adata), model.control)
    labels = labels[positions]
    counts = count_labels(labels)
    single = np.array([counts[label] > 1 for label in labels])
    if control is not None and counts[control] < 2:
        control = None
    return sparse_rotation(
        means[single],
        labels[single].astype(str),
        control,
        variances=variances[single],
        n_starts=n_starts,
        seed=seed(),
    )


def count_labels(labels: NDArray[np.object_]) -> Counter[str]:
    """Count the cells of each label; those without one do not count.

    Parameters
    ----------
    labels
        ``(n_cells,)``, as of :func:`rotation_labels`.
    """
    return Counter(label for label in labels if label is not None)


def _require_perturbations(model: SpikeSlabVAE) -> None:
    """Raise an error if a rotation could not be found after the training of the autoencoder."""
    labels, control = rotation_labels(model._guides.read(model.adata), model.control)
    counts = count_labels(labels)
    found = sorted(name for name, n in counts.items() if name != control and n > 1)
    if len(found) < 2:
        raise ValueError(
            "A sparse rotation takes two perturbations that several cells have alone; "
            f"{model._guides.place} has {list_names(found) or 'none'}. Train without it: "
            "`model.train(rotate=False)`."
        )


def rotation_labels(
    guides: list[list[str]], control: str | None
) -> tuple[NDArray[np.object_], str | None]:
    """Name the perturbation of each cell.

    Parameters
    ----------
    guides
        Perturbations of each cell.
    control
        Name of unperturbed cells.

    Returns
    -------
    Names ``(n_cells,)``, ``None`` for cells with several perturbations, and that of unperturbed
    cells, ``None`` if there are none.

    Examples
    --------
    >>> labels, control = rotation_labels([["A"], [], ["A", "B"]], None)
    >>> labels.tolist(), control
    (['A', 'control', None], 'control')
    """
    known = {name for names in guides for name in names}
    control = control or next(
        name for name in ("control", "unperturbed", "no perturbation", "") if name not in known
    )
    labels = np.full(len(guides), None, dtype=object)
    for cell, names in enumerate(guides):
        if len(names) < 2:
            labels[cell] = names[0] if names else control
    return labels, control if (labels == control).any() else None


@torch.no_grad()
def _absorb(model: SpikeSlabVAE, rotation: SparseRotation) -> None:
    """Rotate the latents within the weights; the posterior gets a constant variance."""
    module = model.module
    _, variances = model._posterior(model._select(None, model.train_indices))
    rotate_encoder(module.encoder.mean_encoder, rotation)
    rotate_decoder(module.decoder_layer, rotation)
    average = variances.mean(axis=0, dtype=np.float64)
    set_constant_variance(
        module.encoder.var_encoder, rotation.transform_variances(average), module.encoder.var_eps
    )


@torch.no_grad()
def _start_shifts(model: SpikeSlabVAE) -> None:
    """Set shifts to effects."""
    positions, module = np.asarray(model.train_indices), model.module
    means, _ = model._posterior(model._select(None, positions))
    codes = model._codes(model.adata)[positions]
    shifts = least_squares_shifts(means, codes, len(model.perturbations))
    module.shift.copy_(torch.from_numpy(shifts))
    module.inclusion_logit.fill_(SHIFT_TRAIN.initial_logit)


@torch.no_grad()
def _fix_masks(model: SpikeSlabVAE, record: RotationRecord) -> None:
    """Take the targets of the rotation as masks; of unlisted perturbations, by the threshold."""
    shift = model.module.shift.cpu().numpy()
    targets = np.abs(shift) > record.threshold
    position = {name: row for row, name in enumerate(model.perturbations)}
    rows = [position[name] for name in record.targets.index]
    targets[rows] = record.targets.to_numpy()
    logits = torch.from_numpy(np.where(targets, _CERTAIN, -_CERTAIN)).float()
    model.module.inclusion_logit.copy_(logits)


def smallest_shift(threshold: float, n_cells: float, n_controls: int) -> float:
    """Compute the smallest shift to include, which is above the noise.

    Where no perturbation acts, the threshold of the rotation is the noise floor, and a share of it
    would be noise.

    Parameters
    ----------
    threshold
        Threshold, in standard deviations.
    n_cells, n_controls
        Number of cells of a perturbation, and of unperturbed cells.

    Examples
    --------
    >>> smallest_shift(1.3, 100, 0), smallest_shift(0.3, 100, 0)
    (1.3, 0.45)
    """
    return max(threshold, ROTATION.noise_floor * float(standard_errors(n_cells, n_controls)))
