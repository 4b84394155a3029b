"""State of a training on disk, from which a killed training continues.

A training continues at a batch: the order of cells depends on a seed and the epoch
(:class:`~scvi_sctab.data.BatchOrder`), so that batches that are done are skipped, not read. The
state is written before a batch, when all that belongs to the batches before is done: steps,
validation, callbacks, history.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from scvi.train._logger import SimpleLogger

from scvi_sctab._constants import TRAINING_FILE
from scvi_sctab._logging import logger
from scvi_sctab.base._digest import hash_json, hash_tensors, read_checked, write_checked
from scvi_sctab.base._files import move_files, remove_leftovers, temporary_folder
from scvi_sctab.base._serialization import decode, encode
from scvi_sctab.train import align_state, average_statistics

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from torch import Tensor

    from scvi_sctab._types import TrainingCells
    from scvi_sctab.base._host import HostModel

_FORMAT = "scvi-sctab-training-1"
_TENSOR = "__tensor__"
_N_CELLS_COMPARED = 32


@dataclass(frozen=True)
class Checkpoints:
    """Where and how often the state of a training is written.

    Parameters
    ----------
    folder
        Folder of the state.
    every_n_steps
        Number of batches between two states.
    resume
        Whether to continue from the state in the folder, if there is one.
    """

    folder: Path
    every_n_steps: int
    resume: bool

    @property
    def file(self) -> Path:
        """File with the state."""
        return self.folder / TRAINING_FILE

    @classmethod
    def of(
        cls, checkpoint_dir: str | os.PathLike[str] | None, every_n_steps: int, resume: bool
    ) -> Checkpoints | None:
        """Check the arguments of ``train``.

        Parameters
        ----------
        checkpoint_dir, every_n_steps, resume
            Arguments ``checkpoint_dir``, ``checkpoint_every_n_steps`` and ``resume``.

        Returns
        -------
        ``None`` if no state is to be written.

        Raises
        ------
        ValueError
            If ``every_n_steps`` is not a whole number of at least 1, or there is no folder to
            resume from.
        """
        if checkpoint_dir is None:
            if resume:
                raise ValueError(
                    "resume=True continues a training from its folder: "
                    "`train(checkpoint_dir='...', resume=True)`."
                )
            return None
        if not isinstance(every_n_steps, Integral) or every_n_steps < 1:
            raise ValueError(
                f"checkpoint_every_n_steps={every_n_steps!r}: give a whole number of at least 1."
            )
        return cls(Path(checkpoint_dir), int(every_n_steps), bool(resume))


class KeepTraining(Callback):
    """Callback that writes the state of a training, and continues from one.

    Parameters
    ----------
    checkpoints
        Where and how often.
    description
        What the training depends on, by name.
    state
        State to continue from.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        description: dict[str, Any],
        state: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.checkpoints, self.description = checkpoints, description
        self._state = state
        self._n_written = 0 if state is None else int(state["n_done"])

    @classmethod
    def start(
        cls,
        checkpoints: Checkpoints,
        model: HostModel,
        plan: pl.LightningModule,
        cells: Any,
        trainer: Any,
    ) -> KeepTraining:
        """Read the state to continue from, if there is one, and tell the cells the position.

        Parameters
        ----------
        checkpoints
            Where, and whether to continue.
        model, plan, cells, trainer
            Model, training plan, cells and trainer of the training.

        Raises
        ------
        FileExistsError
            If there is a state, and the training is not to continue from it.
        ValueError
            If the state is damaged or that of another training, or the cells have no order that
            can be continued.
        """
        if not hasattr(cells, "order_seed"):
            raise ValueError(
                f"A training on a {type(cells).__name__} cannot be continued, since its order of "
                "cells is not known: leave out `checkpoint_dir`."
            )
        description = describe(model, plan, cells, trainer)
        file = checkpoints.file
        if not file.exists():
            if checkpoints.resume:
                logger.info(f"There is no state in {checkpoints.folder}: training starts anew.")
            cells.order_seed = int(torch.randint(2**31, ()))
            return cls(checkpoints, description)
        if not checkpoints.resume:
            raise FileExistsError(
                f"{checkpoints.folder} holds the state of a training. Pass `resume=True` to "
                "continue it, or choose another folder."
            )
        remove_leftovers(checkpoints.folder)  # there may be no further state to write
        state, before = read_state(file)
        check_same(before, description, checkpoints.folder)
        cells.order_seed = int(state["order_seed"])
        cells.start = (int(state["epoch"]), int(state["n_batches_done"]))
        logger.info(
            f"Training continues from {checkpoints.folder} after {state['n_done']:,} steps, in "
            f"epoch {state['epoch'] + 1} of {trainer.max_epochs}."
        )
        return cls(checkpoints, description, state)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore weights, optimisers, schedules, callbacks, history and epoch."""
        if self._state is not None:
            _restore(self._state, trainer, pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Skip the batches that are done, or write the state before this one."""
        if self._state is not None:
            _skip(self._state, trainer, pl_module)
            self._state = None
        n_in_epoch = trainer.fit_loop.epoch_loop.batch_progress.current.ready - 1
        n_done = trainer.current_epoch * int(trainer.num_training_batches) + n_in_epoch
        if n_done > self._n_written and n_done % self.checkpoints.every_n_steps == 0:
            self._n_written = n_done
            self._write(trainer, pl_module, n_in_epoch, n_done)

    def _write(
        self, trainer: pl.Trainer, plan: pl.LightningModule, n_in_epoch: int, n_done: int
    ) -> None:
        average_statistics(trainer, plan)
        own = {"random": _random_state(), **_epoch_state(plan)}
        of_processes = [own]
        if trainer.world_size > 1:
            of_processes *= trainer.world_size
            torch.distributed.all_gather_object(of_processes, own)
        if trainer.is_global_zero:
            cells: Any = trainer.datamodule  # type: ignore[attr-defined]
            state = {
                "epoch": trainer.current_epoch,
                "n_batches_done": n_in_epoch,
                "n_done": n_done,
                "order_seed": cells.order_seed,
                "of_processes": of_processes,
                **_collect(trainer, plan),
            }
            write_state(self.checkpoints.file, state, self.description)


def _epoch_state(plan: Any) -> dict[str, Any]:
    return {"epoch_state": plan.epoch_state()} if hasattr(plan, "epoch_state") else {}


def _collect(trainer: Any, plan: pl.LightningModule) -> dict[str, Any]:
    """Collect what is the same in all processes."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    callbacks = {c.state_key: c.state_dict() for c in trainer.callbacks}
    history = trainer.logger.history if isinstance(trainer.logger, SimpleLogger) else {}
    return {
        "weights": plan.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedulers": [c.scheduler.state_dict() for c in trainer.lr_scheduler_configs],
        "precision": trainer.precision_plugin.state_dict(),
        "callbacks": {key: state for key, state in callbacks.items() if state},
        # Lightning does not count it as state.
        "n_validations": [getattr(c, "_current_step", 0) for c in _early_stopping(trainer)],
        "history": history,
        "optimizer_steps": progress.total.completed,
    }


def _early_stopping(trainer: Any) -> list[Any]:
    return [c for c in trainer.callbacks if isinstance(c, EarlyStopping)]


def _restore(state: dict[str, Any], trainer: Any, plan: pl.LightningModule) -> None:
    """Restore all but random states and the position in the epoch."""
    plan.load_state_dict(state["weights"])
    for optimizer, saved in zip(trainer.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
        align_state(optimizer)
    schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
    for scheduler, saved in zip(schedulers, state["schedulers"], strict=True):
        scheduler.load_state_dict(saved)
    trainer.precision_plugin.load_state_dict(state["precision"])
    for callback in trainer.callbacks:
        if callback.state_key in state["callbacks"]:
            callback.load_state_dict(state["callbacks"][callback.state_key])
    for callback, n_validations in zip(
        _early_stopping(trainer), state["n_validations"], strict=True
    ):
        callback._current_step = n_validations
    if trainer.is_global_zero and isinstance(trainer.logger, SimpleLogger):
        trainer.logger.experiment.data.update(state["history"])
    loop = trainer.fit_loop
    for count in (loop.epoch_progress.current, loop.epoch_progress.total):
        count.ready = count.started = count.processed = count.completed = state["epoch"]
    steps = loop.epoch_loop.manual_optimization.optim_step_progress.total
    steps.ready = steps.completed = state["optimizer_steps"]
    loop.epoch_loop._batches_that_stepped = state["n_done"]


def _skip(state: dict[str, Any], trainer: Any, plan: Any) -> None:
    """Count the batches that are done, and restore random states."""
    loop, n_done = trainer.fit_loop, state["n_batches_done"]
    progress = loop.epoch_loop.batch_progress
    for count in (progress.current, progress.total):
        count.ready += n_done
        for name in ("started", "processed", "completed"):
            setattr(count, name, getattr(count, name) + n_done)
    fetcher = loop._data_fetcher
    if fetcher is not None:
        fetcher.fetched += n_done
        if fetcher.length is not None:
            fetcher.done = fetcher.fetched >= fetcher.length
        progress.is_last_batch = fetcher.done
    own = state["of_processes"][trainer.global_rank]
    if "epoch_state" in own:
        plan.load_epoch_state(own["epoch_state"])
    _set_random_state(own["random"])


def _random_state() -> dict[str, Any]:
    """Return the random states of torch on all devices, numpy and Python."""
    version, words, gauss = random.getstate()
    numpy_state = dict(np.random.get_state(legacy=False))  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": {**numpy_state, "state": _as_int64(numpy_state["state"])},
        "python": (version, np.array(words, dtype=np.int64), gauss),
    }


def _as_int64(state: Mapping[str, Any]) -> dict[str, Any]:
    return {**state, "key": np.asarray(state["key"]).astype(np.int64)}


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
    of_numpy = state["numpy"]
    key = of_numpy["state"]["key"].astype(np.uint32)
    np.random.set_state({**of_numpy, "state": {**of_numpy["state"], "key": key}})  # noqa: NPY002
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))


def write_state(file: Path, state: dict[str, Any], description: dict[str, Any]) -> None:
    """Write the state of a training beside the last one, which it then replaces.

    Parameters
    ----------
    file
        File to write.
    state
        Numbers, strings, tensors, arrays and tables in lists and dictionaries.
    description
        What the training depends on, by name.

    Raises
    ------
    NotPortableError
        If a callback has a state of another kind.
    """
    tensors: dict[str, Tensor] = {}
    arrays: dict[str, Any] = {}
    encoded = encode(_take_tensors(state, tensors, {}), arrays)
    tensors |= {name: torch.from_numpy(array) for name, array in arrays.items()}
    metadata = {
        "format": _FORMAT,
        "state": json.dumps(encoded),
        "description": json.dumps(description),
    }
    target = Path(os.path.realpath(file.parent))
    with temporary_folder(target) as beside:
        write_checked(beside / file.name, tensors, metadata)
        move_files(beside, target)


def read_state(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the state of a training; no code is executed.

    Parameters
    ----------
    file
        File of :func:`write_state`.

    Returns
    -------
    State and description.

    Raises
    ------
    ValueError
        If the file is damaged or holds something else.
    """
    try:
        tensors, metadata = read_checked(file, "the state of a training", _FORMAT, _FORMAT)
    except ValueError as error:
        raise ValueError(f"{error} Or remove this file to train from the beginning.") from error
    arrays = {name: t.numpy() for name, t in tensors.items() if not name.startswith(_TENSOR)}
    state = _put_tensors(decode(json.loads(metadata["state"]), arrays), tensors)
    return state, json.loads(metadata["description"])


def _take_tensors(value: Any, tensors: dict[str, Tensor], names: dict[Any, str]) -> Any:
    """Replace tensors by their names; those that share memory have one name."""
    if isinstance(value, torch.Tensor):
        key = (value.data_ptr(), value.shape, value.stride(), value.dtype)
        name = names.get(key) if value.numel() else None
        if name is None:
            name = f"{_TENSOR}{len(tensors)}"
            tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
            names[key] = name
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        return {key: _take_tensors(item, tensors, names) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_take_tensors(item, tensors, names) for item in value])
    return value


def _put_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if _TENSOR in value:
            return tensors[value[_TENSOR]]
        return {key: _put_tensors(item, tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_put_tensors(item, tensors) for item in value])
    return value


def describe(
    model: HostModel, plan: pl.LightningModule, cells: TrainingCells, trainer: pl.Trainer
) -> dict[str, Any]:
    """Describe what a training depends on, by name: values to show, and hashes of long ones.

    Parameters
    ----------
    model, plan, cells, trainer
        Model, training plan, cells and trainer of the training.
    """
    network = {
        name: [list(p.shape), p.requires_grad] for name, p in model.module.named_parameters()
    }
    of_plan = {name: getattr(plan, name, None) for name in signature(type(plan)).parameters}
    settings = {**model._arguments(), **of_plan}
    batches = [[str(name) for name in c.categories] for c in getattr(model, "conditions", ())]
    tensors = {
        name: buffer for name, buffer in plan.named_buffers() if not name.startswith("module.")
    }
    stopping = [[c.monitor, c.patience, c.min_delta] for c in _early_stopping(trainer)]
    return {
        "class of the model": type(model).__name__,
        "network": hash_json(network),
        "genes": hash_json([str(name) for name in getattr(model, "gene_names", ())]),
        "labels": hash_json([str(name) for name in getattr(model, "labels", ())]),
        "batches": hash_json(batches),
        "training before": bool(model.is_trained_),
        "cells to train on": _hash_array(cells.train_idx),
        "held-out cells": _hash_array(cells.val_idx),
        "labels of cells": _hash_array(cells.assigned()),
        "counts": _hash_counts(cells),
        "weights of labels and augmentation": hash_json(hash_tensors(tensors)),
        "batch_size": getattr(cells, "batch_size", None),
        "number of processes": trainer.world_size,
        "max_epochs": trainer.max_epochs,
        "max_steps": trainer.max_steps,
        "precision": str(trainer.precision),
        "check_val_every_n_epoch": trainer.check_val_every_n_epoch,
        "limits of batches": [trainer.limit_train_batches, trainer.limit_val_batches],
        "early stopping": stopping,
        **{name: v for name, v in settings.items() if isinstance(v, bool | int | float | str)},
    }


def check_same(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Refuse to continue another training.

    Parameters
    ----------
    before, now
        Descriptions of the training that wrote the state, and of the one that is to continue.
    folder
        Folder of the state.

    Raises
    ------
    ValueError
        If they differ.
    """
    differing = []
    for name in sorted(before.keys() | now.keys()):
        values = before.get(name), now.get(name)
        if values[0] != values[1]:
            is_hash = any(isinstance(v, str) and len(v) == 64 for v in values)
            differing.append(
                name if is_hash else f"{name} ({values[0]!r} then, {values[1]!r} now)"
            )
    if differing:
        raise ValueError(
            f"{folder} holds the state of another training, which differs in: "
            f"{', '.join(differing)}. Repeat its lines as they were, from the model with its "
            "cells to `train`, or choose another `checkpoint_dir`."
        )


def _hash_array(array: Any) -> str:
    return hash_json(hash_tensors({"": torch.from_numpy(np.array(array, dtype=np.int64))}))


def _hash_counts(cells: TrainingCells) -> str:
    """Hash the counts of some cells."""
    every = np.sort(cells.train_idx)
    some = np.linspace(0, len(every) - 1, min(_N_CELLS_COMPARED, len(every))).astype(np.intp)
    hashes = []
    for block in cells.read(np.unique(every[some])):
        rows = block.tocsr().copy()
        rows.sum_duplicates()
        values = torch.from_numpy(rows.data.astype(np.float64))
        hashes.append(
            [_hash_array(rows.indptr), _hash_array(rows.indices), hash_tensors({"": values})]
        )
    return hash_json(hashes)
