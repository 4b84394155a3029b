"""How a query model is trained."""

from __future__ import annotations

import logging
import warnings
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scipy.special import logsumexp
from scvi import REGISTRY_KEYS

from scvi_sctab._config import PRESETS, QUERY, SELF_TRAINING
from scvi_sctab.base import draw_cells
from scvi_sctab.data import class_weights
from scvi_sctab.model._surgery_report import movement
from scvi_sctab.module import LatentClassifier
from scvi_sctab.nn import frozen_but
from scvi_sctab.sparse import to_scipy
from scvi_sctab.train import (
    QueryCells,
    SelfTraining,
    diversity,
    fit_query_path,
    select_confident,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from scvi_sctab.data import LabeledDataSplitter
    from scvi_sctab.nn import GeneLinear
    from scvi_sctab.train import ClassifierTrainingPlan

# A child of the host's logger, so that `scvi.settings.verbosity` governs it.
logger = logging.getLogger("scvi.sctab")

# Enough cells for a quantile and for the shares of the labels.
_N_DESCRIBED = 5000


class AdaptationMixin:
    """Training of a model that :meth:`load_query_data` made."""

    # Set by training: what a query is compared with. None where the model was trained elsewhere.
    reference_: dict[str, float] | None = None

    def _describe_reference(self) -> None:
        """Remember how sure of, and how diverse, the reference is."""
        codes = self._label_codes()
        cells = draw_cells(np.flatnonzero(codes < len(self.labels)), _N_DESCRIBED)
        described = self._read_cells(cells)
        energy = logsumexp(described.linear, axis=1)
        self.reference_ = {
            "energy_floor": float(np.quantile(energy, SELF_TRAINING.energy_quantile)),
            "diversity": diversity(self._open_codes(), len(self.labels)),
        }

    def _open_codes(self) -> NDArray[np.int64]:
        """Codes of labels; those that only stand for others count as none."""
        codes = self._label_codes()
        closed = np.append(~self._open_labels, True)[np.minimum(codes, len(self.labels))]
        return np.where(closed, len(self.labels), codes)

    def _label_codes(self) -> NDArray[np.int64]:
        codes = self.adata_manager.get_from_registry(REGISTRY_KEYS.LABELS_KEY)
        return np.asarray(codes).ravel().astype(np.int64)

    def _read_cells(self, cells: NDArray[np.intp]) -> QueryCells:
        """Read cells of the model's AnnData as its linear path and its reference see them."""
        parts = list(self._map_cells(self._inspect, self._select(None, cells), None))
        x, linear, logits = zip(*parts, strict=True)
        stack = sparse.vstack if sparse.issparse(x[0]) else np.concatenate
        return QueryCells(
            stack(list(x)),
            np.concatenate(linear),
            np.concatenate(logits),
            self._open_codes()[cells],
        )

    def _inspect(
        self, tensors: dict[str, Tensor]
    ) -> tuple[Any, NDArray[np.float32], NDArray[np.float32]]:
        inputs, outputs = self.module(tensors, compute_loss=False)
        x, of_genes = inputs["x"], not isinstance(self.module, LatentClassifier)
        return (
            to_scipy(x) if of_genes else x.cpu().numpy(),
            outputs["paths"][0].cpu().numpy(),
            outputs["reference_logits"].cpu().numpy(),
        )

    def _train_on_query(
        self,
        max_epochs: int | None,
        batch_size: int | None,
        datasplitter_kwargs: dict[str, Any],
        plan_kwargs: dict[str, Any],
        trainer_kwargs: dict[str, Any],
    ) -> None:
        """Adapt what the policy allows, then the query's own path to the logits."""
        before = {name: t.detach().clone() for name, t in self.module.state_dict().items()}
        everyone = np.arange(self.adata.n_obs)
        unadapted = self._labels_of_reference(everyone)
        arguments = {
            "max_epochs": max_epochs,
            "batch_size": batch_size,
            "datasplitter_kwargs": datasplitter_kwargs,
            "plan_kwargs": plan_kwargs,
        }
        try:
            if self._has_objective():
                self._fit_query(**arguments, trainer_kwargs=trainer_kwargs)
            else:
                _warn_of_unused(arguments)
            fitted = self._fit_query_path()
        finally:
            moved = movement(before, self.module.state_dict(), self._new_entries())
            self.surgery_["training"] |= {"trained": True, "parameters": moved}
        if self._patterns():  # the reference that was calibrated is not this one
            self.calibration_ = None
        changed = float((self.predict() != unadapted).mean())
        self.surgery_["training"]["changed_labels"] = changed
        if fitted or self._has_objective():
            logger.info(
                f"Adapted to {len(everyone):,} cells; {changed:.1%} of the labels changed."
            )

    def _labels_of_reference(self, cells: NDArray[np.intp]) -> NDArray[np.str_]:
        """Labels without what is adapted."""
        parts = map(self._calibrated_reference, self._evidence(self._select(None, cells), None))
        return self.labels[np.concatenate([part.argmax(axis=1) for part in parts])]

    def _own_path(self) -> GeneLinear | None:
        """Linear path of the query that this model was made for, if it has batches of its own."""
        paths = self.module.query_paths
        last = "" if paths is None else f"query_paths.paths.{len(paths.paths) - 1}.weight"
        return paths.paths[-1] if last in self.surgery_["new_entries"] else None

    def _has_objective(self) -> bool:
        """Whether there is anything to learn beside the query's own path."""
        latent = getattr(self.module, "space", None)
        unsupervised = self.module.reconstruction is not None or (
            latent is not None and not latent.frozen
        )
        return bool(self._patterns()) or self._n_new_labels() > 0 or unsupervised

    def _n_new_labels(self) -> int:
        return len(self.labels) - len(self.surgery_["reference_labels"])

    def _fit_query(
        self,
        max_epochs: int | None,
        batch_size: int | None,
        datasplitter_kwargs: dict[str, Any],
        plan_kwargs: dict[str, Any],
        trainer_kwargs: dict[str, Any],
    ) -> None:
        """Train what the policy allows by the losses that the module has."""
        self._check_plan(plan_kwargs)
        splitter = self._data_splitter_cls(
            self.adata_manager,
            len(self.labels),
            **{
                "train_size": 1.0,
                "external_indexing": [np.arange(self.adata.n_obs), [], []],
                "require_labels": False,
                "batch_size": batch_size or QUERY.batch_size,
                **datasplitter_kwargs,
            },
        )
        if max_epochs is None:
            max_epochs = ceil(QUERY.max_steps / len(splitter.train_dataloader()))
        defaults = {**PRESETS[self.preset_].plan.to_kwargs(), **QUERY.plan.to_kwargs()}
        plan = self._training_plan_cls(self.module, **{**defaults, **plan_kwargs})
        rounds = SelfTraining(
            lambda: self._relabel(splitter, plan), max(1, ceil(max_epochs / QUERY.rounds))
        )
        callbacks = [rounds, *trainer_kwargs.get("callbacks", ())]
        # The host would add to the history of a model that was trained; this one has none yet.
        self.is_trained_ = self.history_ is not None
        try:
            frozen = ["query_paths.*", *self.module.frozen]
            with frozen_but(self.module, self._patterns(), self._new_entries(), frozen):
                self._fit(plan, splitter, max_epochs, {**trainer_kwargs, "callbacks": callbacks})
        finally:
            self.is_trained_ = True
            self.module.eval()

    def _check_plan(self, plan_kwargs: dict[str, Any]) -> None:
        """Refuse what would move parts of the reference that the policy does not name."""
        decays = [k for k in ("weight_decay", "skip_weight_decay") if plan_kwargs.get(k)]
        if decays and not self._patterns():
            raise ValueError(
                f"{decays[0]} would shrink the reference's rows, too; leave it at 0, or train them "
                "by a policy."
            )
        if not plan_kwargs.get("frozen_statistics", True):
            raise ValueError(
                "Running statistics are the reference's; frozen_statistics stays set."
            )

    def _relabel(self, splitter: LabeledDataSplitter, plan: ClassifierTrainingPlan) -> None:
        """Give cells without a label the model's own, where it is sure.

        As long as it has not learnt new labels it would be sure of the wrong ones.
        """
        labels = splitter.cells.labels
        if plan.current_epoch or not self._n_new_labels():
            cells = np.flatnonzero(splitter.labels >= len(self.labels))
            batches = self._map_cells(self._probabilities, self._select(None, cells), None)
            empty = np.zeros((0, len(self.labels)), np.float32)
            labels[cells] = select_confident(np.concatenate([empty, *batches]), QUERY.share)
        weights = class_weights(labels, len(self.labels), QUERY.class_weight_power)
        plan.class_weights = torch.from_numpy(weights).to(plan.device)

    def _fit_query_path(self) -> bool:
        """Fit the query's own path by self-training, from the reference anew, if that is possible."""
        path = self._own_path()
        if path is None:
            return False
        with torch.no_grad():
            path.weight.zero_()
            path.bias.zero_()
        batch = self._conditions_of(self.adata)[:, 0]
        own = np.flatnonzero(batch >= self.module.query_paths.first_batches[-1])
        cells = self._read_cells(draw_cells(own, SELF_TRAINING.max_cells))
        skip = self.module.linear_skip
        careful = self._seems_sorted(cells)
        self.surgery_["training"]["seems_sorted"] = careful
        fit = fit_query_path(
            cells,
            None if skip is None else skip.weight.detach().cpu().numpy(),
            SELF_TRAINING,
            energy_floor=self.reference_["energy_floor"] if careful else -np.inf,
            class_weight_power=0.0 if careful else SELF_TRAINING.class_weight_power,
        )
        with torch.no_grad():
            path.weight.copy_(torch.from_numpy(fit.weight))
            path.bias.copy_(torch.from_numpy(fit.bias))
        if not fit.losses:
            warnings.warn(
                "The model is sure of too few of the query's cells, or of one label only, to "
                "adapt to: predictions are those of the reference for an unknown batch.",
                UserWarning,
                stacklevel=4,
            )
            return False
        losses = pd.DataFrame({"self_training_loss": fit.losses})
        losses.index.name = "step"
        self.history_ = {**(self.history_ or {}), "self_training_loss": losses}
        return True

    def _seems_sorted(self, cells: QueryCells) -> bool:
        """Whether the query holds much fewer types than the reference.

        Balanced labels then are those that it lacks: every cell weighs the same, and those that
        look like nothing in the reference do not count.
        """
        predicted = diversity(cells.logits.argmax(axis=1), len(self.labels))
        expected = (self.reference_ or {}).get("diversity", predicted)
        return predicted < SELF_TRAINING.min_diversity * expected


def _warn_of_unused(arguments: dict[str, Any]) -> None:
    given = [name for name, value in arguments.items() if value]
    if given:
        warnings.warn(
            f"{', '.join(given)} had no effect: without labels or a loss that needs none, only "
            "the query's own path is fitted, which takes no epochs.",
            UserWarning,
            stacklevel=4,
        )
