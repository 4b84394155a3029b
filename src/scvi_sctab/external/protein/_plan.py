"""Training plan of a protein network and the linear path beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from scvi_sctab.train import SelfSupervisedTrainingPlan, TwoSpeedPlan

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim.lr_scheduler import LRScheduler

    from scvi_sctab.external.protein._module import ProteinModule


class ProteinTrainingPlan(TwoSpeedPlan, SelfSupervisedTrainingPlan):
    """Training plan of a :class:`ProteinModule`.

    AdamW trains the network. Gradient descent with momentum trains the linear path: it first
    learns directions that many genes share and, stopped early, resembles a ridge regression. AdamW
    would take equally large steps for every gene, and fit the noise of rare ones. The shifts of
    batches, which AdamW would hardly change in a few hundred steps, are trained with the linear
    path.

    Parameters
    ----------
    module
        Module to train.
    linear_lr, linear_momentum
        Learning rate and momentum of the linear path and the shifts; the input of the path has a
        total variance of 1, so that rates below 1 are stable.
    **kwargs
        Arguments of :class:`~scvi_sctab.train.SelfSupervisedTrainingPlan`.
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
        """Step the scheduler of the network's learning rate."""
        self._step_schedulers()

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[LRScheduler]]:
        """Build AdamW for the network and SGD for the linear path."""
        optimizers, schedulers = super().configure_optimizers()
        linear = self._linear_parameters()
        if linear:
            # The loss is a mean over proteins; the factor makes steps independent of their number.
            lr = self.linear_lr * len(self.module.mean)
            optimizers.append(torch.optim.SGD(linear, lr, self.linear_momentum))
        return optimizers, schedulers
