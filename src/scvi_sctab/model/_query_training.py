"""Training of a query model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scipy.special import logsumexp

from scvi_sctab._config import GUARD, PRESETS, QUERY, SELF_TRAINING
from scvi_sctab._logging import logger
from scvi_sctab._messages import warn
from scvi_sctab.annotation import predict_labels
from scvi_sctab.base import draw_cells, steps_per_epoch
from scvi_sctab.data import class_weights
from scvi_sctab.model._query_guard import (
    TOO_FEW,
    Refusal,
    refuse_query,
    resembling_cells,
)
from scvi_sctab.model._records import QueryRecord, QueryTraining, ReferenceStatistics
from scvi_sctab.model._surgery_report import AS_REFERENCE, movement
from scvi_sctab.nn import frozen_but
from scvi_sctab.sparse import to_scipy
from scvi_sctab.train import (
    QueryCells,
    QueryFit,
    SelfTraining,
    diversity,
    fit_query_path,
    select_confident,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from scvi_sctab._types import TrainingCells
    from scvi_sctab.model._sctab import SCTAB
    from scvi_sctab.nn import GeneLinear
    from scvi_sctab.train import ClassifierTrainingPlan

# Enough cells for a quantile and for the shares of the labels.
_N_DESCRIBED = 5000


def describe_reference(model: SCTAB) -> ReferenceStatistics:
    """Compute energy and diversity of the cells that a model was trained on.

    Parameters
    ----------
    model
        Trained model with its AnnData.
    """
    codes = model._label_codes()
    cells = draw_cells(np.flatnonzero(codes < len(model.labels)), _N_DESCRIBED)
    energy = logsumexp(read_query_cells(model, cells).linear, axis=1)
    return ReferenceStatistics(
        energy_floor=float(np.quantile(energy, SELF_TRAINING.energy_quantile)),
        diversity=diversity(predictable_codes(model), len(model.labels)),
    )


def predictable_codes(model: SCTAB) -> NDArray[np.int64]:
    """Return codes of the predictable labels of the model's AnnData, ``(n_cells,)``.

    Cells with a coarse label count as unlabelled, with the code ``n_labels``.

    Parameters
    ----------
    model
        Model with its AnnData.
    """
    codes = model._label_codes()
    masked = np.append(~model.annotation.predictable, True)[np.minimum(codes, len(model.labels))]
    return np.where(masked, len(model.labels), codes)


def read_query_cells(model: SCTAB, cells: NDArray[np.intp]) -> QueryCells:
    """Read cells of the model's AnnData, with the inputs and logits for the query adapter.

    Parameters
    ----------
    model
        Model with its AnnData.
    cells
        Positions, ``(n_cells,)``.
    """

    def inspect(tensors: dict[str, Tensor]) -> tuple[Any, NDArray[Any], NDArray[Any]]:
        inputs, outputs = model.module(tensors, compute_loss=False)
        x = inputs["x"]
        return (
            to_scipy(x) if model.module.reads_genes else x.cpu().numpy(),
            outputs["paths"][0].cpu().numpy(),
            outputs["reference_logits"].cpu().numpy(),
        )

    parts = list(model._map_cells(inspect, model._select(None, cells)))
    x, linear, logits = zip(*parts, strict=True)
    stack = sparse.vstack if sparse.issparse(x[0]) else np.concatenate
    return QueryCells(
        stack(list(x)),
        np.concatenate(linear),
        np.concatenate(logits),
        predictable_codes(model)[cells],
    )


@dataclass(frozen=True)
class QueryTrainer:
    """Training of the parameters that a query added, and of those that its policy names.

    Parameters
    ----------
    model
        Query model; only its weights and history are changed.
    record
        Record of the query.
    """

    model: SCTAB
    record: QueryRecord

    def train(
        self,
        max_epochs: int | None,
        batch_size: int | None,
        datasplitter_kwargs: dict[str, Any],
        plan_kwargs: dict[str, Any],
        trainer_kwargs: dict[str, Any],
    ) -> QueryRecord:
        """Train the parameters of the policy, then fit the query adapter.

        Parameters
        ----------
        max_epochs, batch_size, datasplitter_kwargs, plan_kwargs, trainer_kwargs
            As in :meth:`scvi_sctab.SCTAB.train`.

        Returns
        -------
        A new record.
        """
        module = self.model.module
        before = {name: t.detach().clone() for name, t in module.state_dict().items()}
        unadapted = self._reference_labels()
        arguments: dict[str, Any] = {
            "max_epochs": max_epochs,
            "batch_size": batch_size,
            "datasplitter_kwargs": datasplitter_kwargs,
            "plan_kwargs": plan_kwargs,
        }
        if self.has_objective:
            self._fit_policy(**arguments, trainer_kwargs=trainer_kwargs)
        else:
            _warn_about_unused(arguments)
        fitted, refusal = self._fit_adapter()
        if refusal.reason:
            warn(f"Not adapted: {refusal.reason}. {AS_REFERENCE}")
        changed = float((self._labels() != unadapted).mean())
        if fitted or self.has_objective:
            logger.info(
                f"Adapted to {len(unadapted):,} cells; {changed:.1%} of the labels changed."
            )
        moved = movement(before, module.state_dict(), self.record.new_entries)
        return self.record.after(
            QueryTraining(True, changed, refusal.is_narrow, moved, refusal.reason)
        )

    @property
    def has_objective(self) -> bool:
        """Whether there are parameters to train beside the query adapter."""
        learns = bool(self.record.patterns) or self.n_new_labels > 0
        return learns or self.model.module.has_unsupervised_loss

    @property
    def n_new_labels(self) -> int:
        """Number of labels that the query added."""
        return len(self.model.labels) - len(self.record.reference_labels)

    @property
    def adapter(self) -> GeneLinear | None:
        """Query adapter of the query of this model, if it has new batches."""
        paths = self.model.module.query_paths
        last = "" if paths is None else f"query_paths.paths.{len(paths.paths) - 1}.weight"
        # Whole, not grown by new labels: that of an earlier query stays as it is.
        new = self.record.new_entries
        return paths.paths[-1] if last in new and new[last] is None else None

    @property
    def frozen(self) -> list[str]:
        """Patterns of parameters that gradient descent does not change."""
        return ["query_paths.*", *self.model.module.frozen]

    def _labels(self) -> NDArray[np.str_]:
        """Predict labels of all cells, without the calibration if the reference has changed."""
        model, state = self.model, self.model.annotation
        state = replace(state, calibration=None) if self.record.patterns else state
        return predict_labels(state, model._logits_of(model._select(None)))

    def _reference_labels(self) -> NDArray[np.str_]:
        """Predict labels of all cells by the reference logits."""
        model = self.model
        parts = [
            model.annotation.probabilities(logits.reference_logits).argmax(axis=1)
            for logits in model._logits_of(model._select(None))
        ]
        return model.labels[np.concatenate(parts)]

    def _fit_policy(
        self,
        max_epochs: int | None,
        batch_size: int | None,
        datasplitter_kwargs: dict[str, Any],
        plan_kwargs: dict[str, Any],
        trainer_kwargs: dict[str, Any],
    ) -> None:
        """Train the parameters of the policy and of new labels by the losses of the module."""
        model = self.model
        self._check_plan(plan_kwargs)
        splitter = model._training_cells(
            **{
                "train_size": 1.0,
                "external_indexing": [model._select(None).positions, [], []],
                "require_labels": False,
                "batch_size": batch_size or QUERY.batch_size,
                **datasplitter_kwargs,
            },
        )
        if max_epochs is None:
            max_epochs = ceil(QUERY.max_steps / steps_per_epoch(splitter, trainer_kwargs))
        defaults = {**PRESETS[model.preset_].plan.to_kwargs(), **QUERY.plan.to_kwargs()}
        plan = model._training_plan_cls(model.module, **{**defaults, **plan_kwargs})
        rounds = SelfTraining(
            lambda: self._relabel(splitter, plan), max(1, ceil(max_epochs / QUERY.rounds))
        )
        callbacks = [rounds, *trainer_kwargs.get("callbacks", ())]
        patterns, new = self.record.patterns, self.record.new_entries
        with frozen_but(model.module, patterns, new, self.frozen):
            model._fit(plan, splitter, max_epochs, {**trainer_kwargs, "callbacks": callbacks})

    def _check_plan(self, plan_kwargs: dict[str, Any]) -> None:
        """Refuse arguments that would change parameters outside of the policy."""
        decays = [k for k in ("weight_decay", "skip_weight_decay") if plan_kwargs.get(k)]
        if decays and not self.record.patterns:
            raise ValueError(
                f"{decays[0]} would shrink the reference's rows, too; leave it at 0, or train them "
                "by a policy."
            )
        if not plan_kwargs.get("frozen_statistics", True):
            raise ValueError(
                "Running statistics are the reference's; frozen_statistics stays set."
            )

    def _relabel(self, cells: TrainingCells, plan: ClassifierTrainingPlan) -> None:
        """Give unlabelled cells the labels that are predicted with the highest probability.

        Not in the first epoch with new labels, for which predictions would still be wrong.
        """
        model, n_labels = self.model, len(self.model.labels)
        if plan.current_epoch or not self.n_new_labels:
            unlabelled = np.flatnonzero(cells.labels >= n_labels)
            logits = model._logits_of(model._select(None, unlabelled))
            batches = (torch.from_numpy(part.logits).softmax(dim=1).numpy() for part in logits)
            empty = np.zeros((0, n_labels), np.float32)
            codes = select_confident(np.concatenate([empty, *batches]), QUERY.share)
            cells.assign(unlabelled, codes)
        weights = class_weights(cells.assigned(), n_labels, QUERY.class_weight_power)
        plan.class_weights = torch.from_numpy(weights).to(plan.device)

    def _fit_adapter(self) -> tuple[bool, Refusal]:
        """Fit the query adapter by self-training, starting at the reference.

        Returns
        -------
        Whether it was fitted, and the reason if the query must not be adapted to.
        """
        model, adapter = self.model, self.adapter
        if adapter is None:
            return False, Refusal()
        batch = model._conditions_of(model._select(None).adata)[:, 0]
        own = np.flatnonzero(batch >= model.module.query_paths.first_batches[-1])
        if not len(own):
            warn(
                "None of these cells is of the query's batches, so that the query adapter was not fitted. "
                "Load the model with the cells of the query: `SCTAB.load(path, query)`."
            )
            return False, Refusal()
        with torch.no_grad():
            adapter.weight.zero_()
            adapter.bias.zero_()
        positions = draw_cells(own, SELF_TRAINING.max_cells)
        fit = self._self_train(positions)
        if isinstance(fit, Refusal):
            return False, fit
        with torch.no_grad():
            adapter.weight.copy_(torch.from_numpy(fit.weight))
            adapter.bias.copy_(torch.from_numpy(fit.bias))
        losses = pd.DataFrame({"self_training_loss": fit.losses})
        losses.index.name = "step"
        model.history_ = {**(model.history_ or {}), "self_training_loss": losses}
        return True, Refusal()

    def _self_train(self, positions: NDArray[np.intp]) -> QueryFit | Refusal:
        """Fit the adapter to cells at some positions, unless the query must not be adapted to."""
        model, skip = self.model, self.model.module.linear_skip
        cells = read_query_cells(model, positions)
        weight = None if skip is None else skip.weight.detach().cpu().numpy()
        if (cells.labels < len(model.labels)).any():
            # Labels of the query's own show what it holds, so that no guard is needed.
            fit = fit_query_path(cells, weight, SELF_TRAINING)
            return fit if fit.losses else TOO_FEW
        # A reference whose own parameters were trained is not calibrated any more.
        is_calibrated = model.annotation.calibration is not None and not self.record.patterns
        resembling = resembling_cells(model, positions, cells, is_calibrated=is_calibrated)
        probabilities = model.annotation.probabilities(cells.logits) if is_calibrated else None
        refusal = refuse_query(cells, resembling, probabilities, model.reference_statistics)
        if refusal is not None:
            return refusal
        fit = fit_query_path(
            cells, weight, SELF_TRAINING, eligible=resembling, min_cells=GUARD.min_cells
        )
        return fit.times(GUARD.strength) if fit.losses else TOO_FEW


def _warn_about_unused(arguments: dict[str, Any]) -> None:
    given = [name for name, value in arguments.items() if value]
    if given:
        warn(
            f"{', '.join(given)} had no effect: without labels or a loss that needs none, only "
            "the query adapter is fitted, which has no epochs."
        )
