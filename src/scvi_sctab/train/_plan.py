"""Training plan of a classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from scvi import REGISTRY_KEYS
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, StepLR
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from scvi_sctab.nn import UNLABELED_CODE
from scvi_sctab.train._augmentation import DonorDifferences, RandomDepths
from scvi_sctab.train._optimizer import fused_adamw
from scvi_sctab.train._processes import CellMeans
from scvi_sctab.train._two_speed_plan import TwoSpeedPlan

if TYPE_CHECKING:
    from scvi.module.base import LossOutput

    from scvi_sctab._config import DepthConfig
    from scvi_sctab.module import CellTypeClassifier
    from scvi_sctab.nn import Reduction
    from scvi_sctab.sparse import CSR

# Devices with a fused SGD, which updates all weights in one pass.
_FUSED = {"cpu", "cuda"}

Schedule = Literal["one_cycle", "step"]


class ClassifierTrainingPlan(TwoSpeedPlan):
    """Training plan of a :class:`~scvi_sctab.module.CellTypeClassifier`.

    AdamW trains the encoder and its head; SGD with momentum trains the linear path, if there is
    one. The plan logs ``train_loss``, ``validation_loss``, ``validation_f1_macro`` and
    ``validation_accuracy``. NOTE[DIFF] In scores and validation loss scTab counts a descendant of
    the label as right; this plan does not.

    Parameters
    ----------
    module
        Module to train.
    class_weights
        Weight of each label in the loss, ``(n_labels,)``.
    augmentation_vectors
        Differences between donors for augmentation, ``(n_vectors, n_genes)``.
    depths
        Depths to which a share of the training cells is thinned; none if not given.
    lr, weight_decay
        Learning rate and weight decay of AdamW.
    skip_lr, skip_momentum, skip_weight_decay
        Learning rate, momentum and weight decay of SGD.
    schedule
        ``"one_cycle"`` by steps over the whole training, or ``"step"``: multiplied by ``lr_decay``
        after each epoch, as in scTab.
    lr_decay
        See ``schedule``.
    warmup
        Share of a one-cycle schedule in which the learning rate increases.
    gradient_clip_norm
        Largest norm of the gradient of the parameters that AdamW trains.
    reduction
        Average of the loss over a minibatch, see :func:`~scvi_sctab.nn.weighted_cross_entropy`.
    frozen_statistics
        Whether the module is trained in evaluation mode, with fixed running statistics of batch
        norm and without dropout.
    """

    def __init__(
        self,
        module: CellTypeClassifier,
        *,
        class_weights: Tensor | None = None,
        augmentation_vectors: CSR | None = None,
        depths: DepthConfig | None = None,
        lr: float,
        weight_decay: float,
        skip_lr: float,
        skip_momentum: float,
        skip_weight_decay: float,
        schedule: Schedule,
        lr_decay: float,
        warmup: float,
        gradient_clip_norm: float,
        reduction: Reduction,
        frozen_statistics: bool,
    ):
        super().__init__()
        self.module = module
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.augmentation = (
            None if augmentation_vectors is None else DonorDifferences(augmentation_vectors)
        )
        self.thinning = None if depths is None else RandomDepths(depths)
        self.lr, self.weight_decay = lr, weight_decay
        self.skip_lr, self.skip_momentum = skip_lr, skip_momentum
        self.skip_weight_decay = skip_weight_decay
        self.schedule, self.lr_decay, self.warmup = schedule, lr_decay, warmup
        self.reduction = reduction
        self.frozen_statistics = frozen_statistics
        self.gradient_clip_norm = gradient_clip_norm
        self._losses: list[Tensor] = []
        self._validation_means = CellMeans()
        # Counts are summed over the processes of this training, not of an earlier one.
        scored: dict[str, Any] = {
            "ignore_index": UNLABELED_CODE,
            "distributed_available_fn": self._has_others,
        }
        self.validation_metrics = MetricCollection(
            {
                "f1_macro": MulticlassF1Score(module.n_labels, **scored),
                "accuracy": MulticlassAccuracy(module.n_labels, average="micro", **scored),
            },
            prefix="validation_",
        )

    def _loss(self, batch: dict[str, Tensor], *, training: bool) -> LossOutput:
        if training and self.thinning is not None:
            key = REGISTRY_KEYS.X_KEY
            batch = {**batch, key: self.thinning(batch[key])}
        transform = self.augmentation if training else None
        weights = self.class_weights if training else None
        loss_kwargs: dict[str, Any] = {"class_weights": weights, "reduction": self.reduction}
        if training and self._has_others():
            loss_kwargs["mean_total"] = self._mean_over_processes
        *_, output = self.module(
            batch,
            get_inference_input_kwargs={"transform": transform},
            loss_kwargs=loss_kwargs,
        )
        return output

    def _has_others(self) -> bool:
        """Whether other processes train the same model."""
        return self._trainer is not None and self.trainer.world_size > 1

    def _mean_over_processes(self, total: Tensor) -> Tensor:
        """Average a total weight, so that every cell of a batch of all processes counts alike."""
        mean = self.trainer.strategy.reduce(total.float(), reduce_op="mean")
        return cast("Tensor", mean)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Take one step with every optimiser; return the loss for callbacks of scvi-tools."""
        loss = self._loss(batch, training=True).loss
        self._take_step(loss)
        if self.schedule == "one_cycle":
            self._step_schedulers()
        # Logging at each step would take as long as the optimisers.
        self._losses.append(loss.detach())
        if self.trainer.is_last_batch:
            self._log_loss()
        return loss.detach()

    def _log_loss(self) -> None:
        mean = torch.stack(self._losses).mean()
        self._losses.clear()
        self.log("train_loss", mean, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)

    def epoch_state(self) -> dict[str, Any]:
        """Return the losses of the epoch so far, to continue a training."""
        return {"losses": list(self._losses)}

    def load_epoch_state(self, state: dict[str, Any]) -> None:
        """Continue with the losses of :meth:`epoch_state`."""
        self._losses = [loss.to(self.device) for loss in state["losses"]]

    def on_train_epoch_start(self) -> None:
        """Drop the losses of an interrupted epoch, and set the training mode of the module."""
        self._losses.clear()
        self.module.train(not self.frozen_statistics)

    def on_train_epoch_end(self) -> None:
        """Log the loss of an epoch that ended early; step the schedulers of epochs."""
        if self._losses:
            self._log_loss()
        if self.schedule == "step":
            self._step_schedulers()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Score held-out cells."""
        output = self._loss(batch, training=False)
        self._validation_means.add({"validation_loss": output.loss}, output.n_obs_minibatch)
        self.validation_metrics.update(output.logits, output.true_labels)

    def on_validation_epoch_start(self) -> None:
        """Drop the losses of an interrupted validation."""
        self._validation_means.reset()

    def on_validation_epoch_end(self) -> None:
        """Log the loss and the scores of the epoch, over the cells of all processes."""
        scores = {
            **self._validation_means.compute(self.trainer),
            **self.validation_metrics.compute(),
        }
        self.log_dict(scores, prog_bar=True, sync_dist=True)
        self.validation_metrics.reset()

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[LRScheduler]]:
        """Build AdamW for the network and SGD for the linear paths, each with its schedule."""
        fused = self.device.type in _FUSED
        optimizers: list[torch.optim.Optimizer] = []
        deep = self._deep_groups()
        if deep:
            optimizers.append(fused_adamw(deep, self.device, lr=self.lr))
        skip = self._linear_parameters()
        if skip:
            optimizers.append(
                torch.optim.SGD(
                    skip,
                    lr=self.skip_lr,
                    momentum=self.skip_momentum,
                    weight_decay=self.skip_weight_decay,
                    fused=fused,
                )
            )
        return optimizers, [self._scheduler(optimizer) for optimizer in optimizers]

    def _deep_groups(self) -> list[dict[str, Any]]:
        """Group the parameters that AdamW trains; only encoder and head have weight decay."""
        modules = (self.module.encoder, self.module.final_mapping)
        decaying = {id(p) for module in modules for p in module.parameters()}
        deep = self._deep_parameters()
        groups = [
            {"params": [p for p in deep if id(p) in decaying], "weight_decay": self.weight_decay},
            {"params": [p for p in deep if id(p) not in decaying], "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]

    def _scheduler(self, optimizer: torch.optim.Optimizer) -> LRScheduler:
        if self.schedule == "step":
            return StepLR(optimizer, step_size=1, gamma=self.lr_decay)
        return OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=int(self.trainer.estimated_stepping_batches),
            # torch divides by zero if the warm-up is exactly one step.
            pct_start=self.warmup * (1 + 1e-6),
            cycle_momentum=False,
        )
