"""Training plan with separate optimisers for a network and the linear paths beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from torch.nn.utils import clip_grad_norm_

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter


class TwoSpeedPlan(pl.LightningModule):
    """Base of training plans with one optimiser for the network and one for the linear paths.

    A subclass sets ``module``, whose ``linear_parts`` are the linear paths, and
    ``gradient_clip_norm``, the largest norm of the gradient of the network.
    """

    module: Any
    gradient_clip_norm: float

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False

    def _linear_parameters(self) -> list[Parameter]:
        """List the trained parameters of the linear paths."""
        return [
            p for part in self.module.linear_parts for p in part.parameters() if p.requires_grad
        ]

    def _deep_parameters(self) -> list[Parameter]:
        """List the trained parameters of everything but the linear paths."""
        linear = {id(p) for p in self._linear_parameters()}
        return [p for p in self.module.parameters() if p.requires_grad and id(p) not in linear]

    def _take_step(self, loss: Tensor) -> None:
        """Take a step with both optimisers; only the gradient of the network is clipped."""
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        clip_grad_norm_(self._deep_parameters(), self.gradient_clip_norm)
        for optimizer in optimizers:
            optimizer.step()

    def _step_schedulers(self) -> None:
        schedulers: Any = self.lr_schedulers()
        for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
            scheduler.step()
