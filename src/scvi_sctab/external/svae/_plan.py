"""Training plan of sparse shifts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import OneCycleLR

if TYPE_CHECKING:
    from scvi.module.base import LossOutput

    from scvi_sctab._config import ShiftStageConfig
    from scvi_sctab.external.svae._module import SpikeSlabModule

# Devices with a fused Adam, which updates all weights in one pass.
_FUSED = {"cpu", "cuda"}


class SpikeSlabTrainingPlan(pl.LightningModule):
    """Training plan of one stage.

    Adam with ``eps=1e-8``; the host's ``eps=0.01`` would damp the gradient of masks. The plan logs
    ``train_loss``, ``validation_loss``, and of both ``reconstruction_loss`` and ``kl_local``.

    Parameters
    ----------
    module
        Module to train.
    n_obs
        Number of training cells.
    stage
        Hyperparameters of the stage.
    frozen_statistics
        Whether the module is trained in evaluation mode, with fixed running statistics of batch
        norm and without dropout.
    lr, shift_lr_factor
        In place of those of the stage.
    weight_decay
        L2 penalty of all weights but shifts and masks.
    """

    def __init__(
        self,
        module: SpikeSlabModule,
        n_obs: int,
        stage: ShiftStageConfig,
        *,
        frozen_statistics: bool = False,
        lr: float | None = None,
        shift_lr_factor: float | None = None,
        weight_decay: float = 0.0,
    ):
        super().__init__()
        self.module, self.n_obs, self.stage = module, n_obs, stage
        self.frozen_statistics = frozen_statistics
        self.lr = stage.lr if lr is None else lr
        factor = stage.shift_lr_factor if shift_lr_factor is None else shift_lr_factor
        self.shift_lr, self.weight_decay = factor * self.lr, weight_decay
        self._totals: list[Tensor] = []

    @property
    def kl_weight(self) -> float:
        """Weight of the KL divergence, which increases linearly by steps."""
        n_epochs, trainer = self.stage.kl_warmup, self.trainer
        n_epochs = trainer.max_epochs if n_epochs is None else n_epochs
        n_steps = (n_epochs or 0) * int(trainer.num_training_batches)
        return min(1.0, (self.global_step + 1) / n_steps) if n_steps else 1.0

    def _loss(self, batch: dict[str, Tensor], kl_weight: float) -> LossOutput:
        arguments = {
            "objective": self.stage.objective,
            "kl_weight": kl_weight,
            "n_obs": self.n_obs,
        }
        *_, output = self.module(batch, loss_kwargs=arguments)
        return output

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        output = self._loss(batch, self.kl_weight)
        # Logging at each step would take as long as the optimiser.
        self._totals.append(_totals(output))
        if self.trainer.is_last_batch:
            self._log_totals()
        return output.loss

    def _log_totals(self) -> None:
        means = torch.stack(self._totals).mean(dim=0)
        self._totals.clear()
        self._log("train", means, batch_size=1)

    def _log(self, prefix: str, values: Tensor, batch_size: int) -> None:
        loss, reconstruction, kl = values
        named = {
            f"{prefix}_loss": loss,
            f"reconstruction_loss_{prefix}": reconstruction,
            f"kl_local_{prefix}": kl,
        }
        self.log_dict(
            named,
            on_step=False,
            on_epoch=True,
            batch_size=batch_size,
            prog_bar=True,
            sync_dist=True,
        )

    def on_train_epoch_start(self) -> None:
        """Drop the losses of an interrupted epoch, and set the training mode of the module."""
        self._totals.clear()
        self.module.train(not self.frozen_statistics)

    def on_train_epoch_end(self) -> None:
        """Log the losses of an epoch that ended early."""
        if self._totals:
            self._log_totals()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Score held-out cells, with the full weight of the KL divergence."""
        output = self._loss(batch, 1.0)
        self._log("validation", _totals(output), batch_size=output.n_obs_minibatch)

    def configure_optimizers(self) -> Any:
        """Build Adam with a learning rate of shifts and masks, and the schedule."""
        shifts = [p for p in self.module.shift_parameters if p.requires_grad]
        ids = {id(p) for p in self.module.shift_parameters}
        network = [p for p in self.module.parameters() if p.requires_grad and id(p) not in ids]
        groups: list[dict[str, Any]] = [
            {"params": network, "lr": self.lr, "weight_decay": self.weight_decay},
            {"params": shifts, "lr": self.shift_lr},
        ]
        groups = [group for group in groups if group["params"]]
        optimizer = Adam(groups, lr=self.lr, fused=self.device.type in _FUSED)
        if self.stage.schedule == "constant":
            return optimizer
        scheduler = OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in groups],
            total_steps=int(self.trainer.estimated_stepping_batches),
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def _totals(output: LossOutput) -> Tensor:
    """Collect the loss and means over cells of its parts, ``(3,)``."""
    n = output.n_obs_minibatch
    parts = (output.loss, output.reconstruction_loss_sum / n, output.kl_local_sum / n)
    return torch.stack([part.detach() for part in parts])
