"""Training of a protein network and the linear path beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from scvi_sctab.train import SelfSupervisedTrainingPlan, TwoSpeedPlan

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim.lr_scheduler import LRScheduler

    from scvi_sctab.external.protein._module import ProteinModule


class ProteinTrainingPlan(TwoSpeedPlan, SelfSupervisedTrainingPlan):
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
        Of :class:`~scvi_sctab.train.SelfSupervisedTrainingPlan`.
    """

    def __init__(
        self, module: ProteinModule, *, linear_lr: float, linear_momentum: float, **kwargs: Any
    ):
        super().__init__(module, **kwargs)
        self.linear_lr, self.linear_momentum = linear_lr, linear_momentum

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Take one step with both optimisers."""
        loss = super().training_step(batch, batch_idx)
        self._take_step(loss)
        return loss.detach()

    def on_train_epoch_end(self) -> None:
        """Lower the learning rate of the network."""
        self._step_schedulers()

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[LRScheduler]]:
        """AdamW for the network, SGD for the linear path."""
        optimizers, schedulers = super().configure_optimizers()
        linear = self._linear_parameters()
        if linear:
            # The loss is a mean over proteins; one learns as fast among many as alone.
            lr = self.linear_lr * len(self.module.mean)
            optimizers.append(torch.optim.SGD(linear, lr, self.linear_momentum))
        return optimizers, schedulers
