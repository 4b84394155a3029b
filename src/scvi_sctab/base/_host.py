"""Base class over that of scvi-tools, with all uses of its internals but the fields of `data`.

If a release of scvi-tools changes one of these internals, only this file has to follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar

from lightning.pytorch.loggers import Logger
from scvi import settings
from scvi.model._utils import parse_device_args
from scvi.model.base import BaseModelClass
from scvi.train._logger import SimpleLogger

from scvi_sctab.data import make_manager

if TYPE_CHECKING:
    from typing import Self

    import numpy as np
    import torch
    from anndata import AnnData
    from numpy.typing import NDArray
    from scvi.data import AnnDataManager
    from scvi.data.fields import AnnDataField
    from scvi.train import TrainRunner

# Attributes of scvi-tools on a run and on positions of cells, which are not part of the digest.
NOTES_OF_HOST = (
    *("registry_", "run_id_", "run_name_", "get_normalized_function_name_"),
    *("train_indices_", "validation_indices_", "test_indices_"),
)


def seed() -> int:
    """Return the seed of scvi-tools, ``scvi.settings.seed``; 0 if none is set."""
    return 0 if settings.seed is None else int(settings.seed)


def choose_device(accelerator: str, device: int | str) -> torch.device:
    """Resolve a device as scvi-tools does.

    Parameters
    ----------
    accelerator, device
        As in :meth:`scvi.model.base.BaseModelClass.load`.
    """
    *_, torch_device = parse_device_args(accelerator, device, return_device="torch")
    return torch_device


def require_trained(model: BaseModelClass, message: str) -> None:
    """Raise an error if a model of scvi-tools is not trained.

    Parameters
    ----------
    model
        Any model of scvi-tools.
    message
        Message of the error.

    Raises
    ------
    RuntimeError
        If the model is not trained.
    """
    model._check_if_trained(warn=False, message=message)


def setup_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``setup_anndata`` that a registry records.

    Parameters
    ----------
    given
        ``locals()`` at the start of the method.
    """
    return {k: v for k, v in given.items() if k not in ("cls", "adata", "kwargs", "__class__")}


class _HistoryLogger(SimpleLogger):  # type: ignore[misc]
    """Logger of scvi-tools, which removes the epoch from metrics that other loggers are given."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        super().log_metrics(dict(metrics), step)


def keep_history(trainer_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Add the logger that fills ``model.history`` to the loggers of the user.

    Parameters
    ----------
    trainer_kwargs
        Arguments of the trainer; scvi-tools adds that logger only if no other one is given.
    """
    given = trainer_kwargs.get("logger")
    loggers = [given] if isinstance(given, Logger) else given
    if not isinstance(loggers, list | tuple) or any(isinstance(x, SimpleLogger) for x in loggers):
        return trainer_kwargs
    # The host reads the history of the first one.
    return {**trainer_kwargs, "logger": [_HistoryLogger(), *loggers]}


class HostModel(BaseModelClass):  # type: ignore[misc]
    """Model of scvi-tools, with names of this package for its internals.

    A subclass may add arguments to ``__init__`` if it records them as its parent does, by
    ``self.init_params_ = self._get_init_params(locals())`` after the call to its parent.
    """

    _module_cls: ClassVar[Any]
    _training_plan_cls: ClassVar[Any]
    _data_splitter_cls: ClassVar[Any]
    _train_runner_cls: ClassVar[Any]

    module: Any
    registry: dict[str, Any]
    history_: dict[str, Any] | None
    is_trained_: bool
    init_params_: dict[str, dict[str, Any]]

    @classmethod
    def _names(cls) -> list[str]:
        """List the names of the class and of its parents, whose files it loads."""
        return [parent.__name__ for parent in cls.__mro__]

    @classmethod
    def _register(
        cls,
        adata: AnnData,
        fields: Sequence[AnnDataField],
        arguments: dict[str, Any],
        **transfer: Any,
    ) -> None:
        """Register cells, so that a model of this class can be built on them."""
        cls.register_manager(make_manager(cls.__name__, adata, fields, arguments, **transfer))

    @classmethod
    def _registry_of(cls, adata: AnnData) -> dict[str, Any]:
        """Return the registry of the last set-up of these cells."""
        return cls._get_most_recent_anndata_manager(adata, required=True).registry

    @classmethod
    def _find_cells(cls, uuid: str | None) -> AnnData | None:
        """Find the cells of a set-up by the id that scvi-tools gave them."""
        manager = cls._setup_adata_manager_store.get(uuid)
        return None if manager is None else manager.adata

    @classmethod
    def _has_set_up(cls, adata: AnnData) -> bool:
        """Return whether this object, not a copy, was set up for a model of this class."""
        return any(manager.adata is adata for manager in cls._setup_adata_manager_store.values())

    def _adopt(self, manager: AnnDataManager) -> None:
        """Take over registered cells, for a model that was made from a registry."""
        self._adata, self._adata_manager = manager.adata, manager
        self._register_manager_for_instance(manager)

    def _register_as_own(self, adata: AnnData) -> AnnDataManager:
        """Register cells with the codes of this model, as when it is loaded with them."""
        setup = self.registry["setup_args"]
        type(self).setup_anndata(adata, source_registry=self.registry, **setup)
        return self._get_most_recent_anndata_manager(adata, required=True)

    def _renew_registration(self) -> None:
        """Register the model's cells again if they were set up for another model since."""
        self._validate_anndata()

    def _build_again(self, **arguments: Any) -> Self:
        """Build a model of these cells as they were set up for this one, not as they were last."""
        newest = self._setup_adata_manager_store
        uuid = self.adata_manager.adata_uuid
        before = newest.get(uuid)
        newest[uuid] = self.adata_manager
        try:
            return type(self)(self.adata, **arguments)
        finally:
            if before is not None:
                newest[uuid] = before

    def _require_trained(self) -> None:
        require_trained(self, "This model is not trained: call `model.train()` first.")

    def _summarize_as(self, summary: str) -> None:
        """Set the text that is printed for the model."""
        self._model_summary_string = summary

    def _get_init_params(self, given: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Select the arguments of the model from ``locals()`` of ``__init__``.

        scvi-tools uses the signature of the class of ``self``, and would lose arguments that a
        subclass passes to its parent as ``**kwargs``. Arguments that a parent has recorded stay as
        it resolved them.
        """
        of_class = given.get("__class__", type(self))
        parameters = [
            parameter
            for parameter in signature(of_class.__init__).parameters.values()
            if parameter.name in given and parameter.name not in ("self", "adata", "registry")
        ]
        of_parent = vars(self).get("init_params_") or {"kwargs": {}, "non_kwargs": {}}
        resolved = arguments_of(of_parent)
        variable = {
            p.name: {k: v for k, v in given[p.name].items() if k not in resolved}
            for p in parameters
            if p.kind is p.VAR_KEYWORD
        }
        fixed = {p.name: given[p.name] for p in parameters if p.kind is not p.VAR_KEYWORD}
        return {
            "kwargs": {**variable, **of_parent["kwargs"]},
            "non_kwargs": {**fixed, **of_parent["non_kwargs"]},
        }

    def _arguments(self) -> dict[str, Any]:
        """Return the arguments that the model was built with, without cells and registry."""
        return arguments_of(self.init_params_)

    def _get_user_attributes(self) -> list[tuple[str, Any]]:
        """List the attributes to save; scvi-tools would evaluate every property as well."""
        names = (name for name in dir(self) if name.endswith("_") and not name.startswith("_"))
        return [(name, getattr(self, name)) for name in names]

    def _start(self, cells: NDArray[np.intp]) -> None:
        """Initialise what depends on the training cells, before the first step."""

    def _finish(self, runner: TrainRunner) -> None:
        """Set the attributes that scvi-tools sets after training, if it was interrupted."""
        splitter = runner.data_splitter
        self.train_indices_ = splitter.train_idx
        self.validation_indices_ = splitter.val_idx
        self.test_indices_ = splitter.test_idx
        self.module.eval()
        self.is_trained_ = True
        self.to_device(runner.device)
        self.trainer = runner.trainer


def arguments_of(init_params: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the arguments that a model was built with.

    Parameters
    ----------
    init_params
        Record of the arguments by scvi-tools.
    """
    variable = (item for part in init_params["kwargs"].values() for item in part.items())
    return {**init_params["non_kwargs"], **dict(variable)}
