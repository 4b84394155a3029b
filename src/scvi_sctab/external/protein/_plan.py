"""Training of a protein network and the linear path beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LRScheduler

from scvi_sctab.train import SelfSupervisedTrainingPlan

if TYPE_CHECKING:
    from scvi_sctab.external.protein._module import ProteinModule


class ProteinTrainingPlan(SelfSupervisedTrainingPlan):
    """Train a :class:`ProteinModule`.

    The network by AdamW; the linear path by gradient descent with momentum, which learns first
    what many genes say together and, stopped early, resembles a ridge regression. AdamW takes as
    large a step for every gene, and fits the noise of rare ones. Shifts of batches, which AdamW
    would hardly move in a few hundred steps, go with the linear path.

    Parameters
    ----------
    module
        What to train.
    linear_lr, linear_momentum
        Of the linear path and the shifts; the input of the path has variance 1 in all, so that
        rates below 1 are stable.
    **kwargs
        Of :class:`SelfSupervisedTrainingPlan`.
    """

    def __init__(
        self, module: ProteinModule, *, linear_lr: float, linear_momentum: float, **kwargs: Any
    ):
        super().__init__(module, **kwargs)
        self.automatic_optimization = False
        self.linear_lr, self.linear_momentum = linear_lr, linear_momentum

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Take one step with both optimisers."""
        loss = super().training_step(batch, batch_idx)
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        clip_grad_norm_(self._deep_parameters(), self.gradient_clip_norm)
        for optimizer in optimizers:
            optimizer.step()
        return loss.detach()

    def on_train_epoch_end(self) -> None:
        """Lower the learning rate of the network."""
        self.lr_schedulers().step()

    def _deep_parameters(self) -> list[Parameter]:
        linear = {id(p) for p in self._linear_parameters()}
        return [p for p in self.module.parameters() if p.requires_grad and id(p) not in linear]

    def _linear_parameters(self) -> list[Parameter]:
        parts = (self.module.linear_path, self.module.batch_shift)
        return [p for part in parts if part is not None for p in part.parameters()]

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[LRScheduler]]:
        """AdamW for the network, SGD for the linear path."""
        optimizers, schedulers = super().configure_optimizers()
        linear = self._linear_parameters()
        if linear:
            # The loss is a mean over proteins; one learns as fast among many as alone.
            lr = self.linear_lr * len(self.module.mean)
            optimizers.append(torch.optim.SGD(linear, lr, self.linear_momentum))
        return optimizers, schedulers
