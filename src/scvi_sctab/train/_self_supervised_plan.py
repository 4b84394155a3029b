"""Training plan of encoders without labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torch import Generator, Tensor
from torch.nn import Parameter
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LRScheduler, StepLR

from scvi_sctab.train._optimizer import fused_adamw
from scvi_sctab.train._processes import CellMeans

if TYPE_CHECKING:
    from scvi.module.base import BaseModuleClass, LossOutput


class SelfSupervisedTrainingPlan(pl.LightningModule):
    """Training plan of a module whose loss draws masks or views of cells.

    AdamW with a learning rate that decreases in steps, as in :cite:t:`Richter24`. The plan logs
    ``train_loss``, ``validation_loss``, and further metrics of the module with the same prefixes.
    Held-out cells get the same masks in every epoch, so that losses can be compared.

    Parameters
    ----------
    module
        Module to train. ``module(batch, get_inference_input_kwargs={"generator": generator})``
        returns a :class:`~scvi.module.base.LossOutput` last.
    lr, weight_decay
        Learning rate and weight decay of AdamW.
    lr_decay, lr_decay_every
        Factor of the learning rate, and number of epochs after which it is applied.
    gradient_clip_norm
        Largest norm of the gradient.
    validation_seed
        Seed of the masks of held-out cells.
    """

    module: BaseModuleClass

    def __init__(
        self,
        module: BaseModuleClass,
        *,
        lr: float,
        weight_decay: float,
        lr_decay: float,
        lr_decay_every: int,
        gradient_clip_norm: float,
        validation_seed: int = 0,
    ):
        super().__init__()
        self.module = module
        self.lr, self.weight_decay = lr, weight_decay
        self.lr_decay, self.lr_decay_every = lr_decay, lr_decay_every
        self.gradient_clip_norm = gradient_clip_norm
        self.validation_seed = validation_seed
        self._validation_means = CellMeans()

    def _loss(self, batch: dict[str, Tensor], generator: Generator | None = None) -> LossOutput:
        *_, output = self.module(batch, get_inference_input_kwargs={"generator": generator})
        return output

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        output = self._loss(batch)
        self.log_dict(
            _named(output, "train"),
            on_step=False,
            on_epoch=True,
            batch_size=output.n_obs_minibatch,
            prog_bar=True,
            sync_dist=True,
        )
        return output.loss

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        """Clip the norm over all parameters."""
        clip_grad_norm_(self.module.parameters(), self.gradient_clip_norm)

    def on_validation_epoch_start(self) -> None:
        """Draw the same masks as in the last epoch."""
        self._validation_means.reset()
        # On the module's device; sparse minibatches, which draw on the CPU, exist only there.
        self._generator = Generator(self.device).manual_seed(self.validation_seed)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Score held-out cells."""
        output = self._loss(batch, self._generator)
        self._validation_means.add(_named(output, "validation"), output.n_obs_minibatch)

    def on_validation_epoch_end(self) -> None:
        """Log means over the held-out cells."""
        means = self._validation_means.compute(self.trainer)
        self.log_dict(means, prog_bar=True, sync_dist=True)

    def _deep_parameters(self) -> list[Parameter]:
        """List the parameters that AdamW trains."""
        return [p for p in self.module.parameters() if p.requires_grad]

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[LRScheduler]]:
        """Build AdamW with a learning rate that decreases in steps."""
        optimizer = fused_adamw(
            self._deep_parameters(), self.device, lr=self.lr, weight_decay=self.weight_decay
        )
        return [optimizer], [StepLR(optimizer, self.lr_decay_every, self.lr_decay)]


def _named(output: LossOutput, prefix: str) -> dict[str, Tensor]:
    named = {"loss": output.loss, **output.extra_metrics}
    return {f"{prefix}_{name}": value.detach() for name, value in named.items()}
