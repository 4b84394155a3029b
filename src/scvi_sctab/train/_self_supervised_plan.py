"""How an encoder is trained without labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning.pytorch as pl
import torch
from torch import Generator, Tensor
from torch.nn import Parameter
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LRScheduler, StepLR

from scvi_sctab.train._optimizer import fused_adamw

if TYPE_CHECKING:
    from scvi.module.base import LossOutput

    from scvi_sctab.module import HostModule


class SelfSupervisedTrainingPlan(pl.LightningModule):
    """Train a module whose loss draws masks or views of cells.

    AdamW with a learning rate that falls by steps, as :cite:t:`Richter24`. Logged: ``train_loss``,
    ``validation_loss``, and both for whatever else the module measures. Held-out cells are masked
    alike in every epoch, so that their losses can be compared.

    Parameters
    ----------
    module
        What to train. ``module(batch, get_inference_input_kwargs={"generator": generator})``
        returns a :class:`~scvi.module.base.LossOutput` last.
    lr, weight_decay
        Of AdamW.
    lr_decay, lr_decay_every
        The learning rate is multiplied by the one after as many epochs as the other says.
    gradient_clip_norm
        Largest norm of the gradient.
    validation_seed
        Seed of the masks of held-out cells.
    """

    module: HostModule

    def __init__(
        self,
        module: HostModule,
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

    def _loss(self, batch: dict[str, Tensor], generator: Generator | None = None) -> LossOutput:
        *_, output = self.module(batch, get_inference_input_kwargs={"generator": generator})
        return output

    def _log(self, output: LossOutput, prefix: str) -> None:
        """Log means over the cells of the epoch."""
        named = {"loss": output.loss, **output.extra_metrics}
        self.log_dict(
            {f"{prefix}_{name}": value.detach() for name, value in named.items()},
            on_step=False,
            on_epoch=True,
            batch_size=output.n_obs_minibatch,
            prog_bar=True,
            sync_dist=True,
        )

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        output = self._loss(batch)
        self._log(output, "train")
        return output.loss

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm over all parameters."""
        clip_grad_norm_(self.module.parameters(), self.gradient_clip_norm)

    def on_validation_epoch_start(self) -> None:
        """Draw the same masks as in the last epoch."""
        # The randomness of a sparse batch is drawn on the CPU, as is all of it where that is all.
        self._generator = Generator(self.device).manual_seed(self.validation_seed)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Score held-out cells."""
        self._log(self._loss(batch, self._generator), "validation")

    def _deep_parameters(self) -> list[Parameter]:
        """List what AdamW trains."""
        return [p for p in self.module.parameters() if p.requires_grad]

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[LRScheduler]]:
        """AdamW, and a learning rate that falls by steps."""
        optimizer = fused_adamw(
            self._deep_parameters(), self.device, lr=self.lr, weight_decay=self.weight_decay
        )
        return [optimizer], [StepLR(optimizer, self.lr_decay_every, self.lr_decay)]
