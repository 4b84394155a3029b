"""Pretext tasks that compare two views of each cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch import Generator, Tensor

from scvi_sctab.nn import (
    CellViews,
    Projector,
    barlow_twins_loss,
    byol_loss,
    embedding_spread,
    frozen_copy,
    normalize_counts,
    update_moving_average,
)

if TYPE_CHECKING:
    from scvi_sctab._types import Encoder
    from scvi_sctab.sparse import CSR

    Cells = Tensor | CSR


class _ContrastiveModule(BaseModuleClass):  # type: ignore[misc]
    """Base of modules that draw two views of each cell, embed and project both.

    NOTE[DIFF] The projector reads the embedding itself. In the BYOL of Richter et al. it reads the
    layer before, so that the last layer is not trained.
    """

    def __init__(self, encoder: Encoder, views: CellViews, widths: Sequence[int]):
        super().__init__()
        self.encoder = encoder
        self.views = views
        self.projector = Projector(encoder.n_output, widths)

    def _get_inference_input(
        self, tensors: dict[str, Tensor], generator: Generator | None = None
    ) -> dict[str, Cells]:
        """Normalise counts and draw the views, with random numbers from ``generator``."""
        first, second = self.views(normalize_counts(tensors[REGISTRY_KEYS.X_KEY]), generator)
        return {"first": first, "second": second}

    @auto_move_data
    def inference(self, first: Cells, second: Cells) -> dict[str, Tensor]:
        """Embed both views."""
        return {"z1": self.encoder(first).embedding, "z2": self.encoder(second).embedding}

    def _get_generative_input(
        self, tensors: dict[str, Tensor], inference_outputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        return inference_outputs

    @auto_move_data
    def embed(self, tensors: dict[str, Tensor]) -> Tensor:
        """Embed cells without hidden genes, ``(n_cells, n_output)``."""
        return self.encoder(normalize_counts(tensors[REGISTRY_KEYS.X_KEY])).embedding

    def _loss_output(self, loss: Tensor, z: Tensor, projection: Tensor) -> LossOutput:
        """Report the spread of embeddings and of projections, either of which may collapse."""
        return LossOutput(
            loss=loss,
            n_obs_minibatch=len(z),
            extra_metrics={
                "embedding_spread": embedding_spread(z),
                "projection_spread": embedding_spread(projection),
            },
        )

    def sample(self, *args: Any, **kwargs: Any) -> None:
        """Raise an error: sampling is not defined for an encoder."""
        raise NotImplementedError("An encoder does not generate cells.")


class BarlowTwinsModule(_ContrastiveModule):
    """Encoder whose dimensions correlate between views, and not with each other.

    As Richter et al. :cite:p:`Richter24` after Zbontar et al. :cite:p:`Zbontar21`. NOTE[DIFF] Any
    optimiser may be used; the published LARS was created at each step and lost its momentum.

    Parameters
    ----------
    encoder
        Embeds log-normalised expression.
    views
        Module that draws the views of a cell.
    widths
        Widths of the projector, see :class:`~scvi_sctab.nn.Projector`.
    off_diagonal
        Weight of correlations between dimensions, see :func:`~scvi_sctab.nn.barlow_twins_loss`.

    Notes
    -----
    - input: raw counts ``(n_cells, n_genes)``, dense or sparse.
    - output: the loss, and the spread of embeddings and projections of the first views, see
      :func:`~scvi_sctab.nn.embedding_spread`.
    - in evaluation batch norm uses its running statistics, but the correlations are those of the
      minibatch, so that the loss is large for few cells.
    """

    def __init__(
        self,
        encoder: Encoder,
        views: CellViews,
        widths: Sequence[int] = (256, 256, 512, 512),
        off_diagonal: float = 0.0051,
    ):
        super().__init__(encoder, views, widths)
        self.off_diagonal = off_diagonal

    @auto_move_data
    def generative(self, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
        """Project both embeddings."""
        return {"first": self.projector(z1), "second": self.projector(z2)}

    def loss(
        self,
        tensors: dict[str, Tensor],
        inference_outputs: dict[str, Tensor],
        generative_outputs: dict[str, Tensor],
    ) -> LossOutput:
        """Compute the distance of the cross-correlation from the identity."""
        loss = barlow_twins_loss(**generative_outputs, off_diagonal=self.off_diagonal)
        return self._loss_output(loss, inference_outputs["z1"], generative_outputs["first"])


class BYOLModule(_ContrastiveModule):
    """Encoder from whose view a moving-average copy's projection of the other view is predicted.

    As Richter et al. :cite:p:`Richter24` after Grill et al. :cite:p:`Grill20`. The copy, called
    target, has no gradient and is changed by :meth:`update_target` only, which
    :class:`~scvi_sctab.train.UpdateMovingAverage` calls after each step. NOTE[DIFF] The published
    target was never updated, so that the outputs of a random network were predicted.

    Parameters
    ----------
    encoder
        Embeds log-normalised expression.
    views
        Module that draws the views of a cell.
    decay
        Weight of the target in the moving average. NOTE[DIFF] Richter et al. give 0.99; this is
        the value of the authors of BYOL.
    n_hidden, n_projection
        Widths of the hidden layer and of the output of projector and predictor. NOTE[DIFF] The
        published hidden layer has 4,096 units, eight times as many.

    Notes
    -----
    - input: raw counts ``(n_cells, n_genes)``, dense or sparse.
    - output: the loss, between 0 and 8, and the spread of embeddings and projections of the first
      views, see :func:`~scvi_sctab.nn.embedding_spread`.
    - the target follows the mode of the module: in training, its batch norm uses the statistics of
      the minibatch, and dropout is on; in evaluation it uses the running statistics that it
      copied, and the loss of a cell does not depend on other cells.
    """

    def __init__(
        self,
        encoder: Encoder,
        views: CellViews,
        decay: float = 0.996,
        n_hidden: int = 512,
        n_projection: int = 256,
    ):
        super().__init__(encoder, views, (n_hidden, n_projection))
        self.decay = decay
        self.predictor = Projector(n_projection, (n_hidden, n_projection))
        self.target_encoder: Any = frozen_copy(self.encoder)  # type: ignore[type-var]
        self.target_projector = frozen_copy(self.projector)

    @auto_move_data
    def inference(self, first: Cells, second: Cells) -> dict[str, Tensor]:
        """Embed both views by the encoder and by the target."""
        with torch.no_grad():
            targets = [self.target_encoder(view).embedding for view in (first, second)]
        embeddings = super().inference(first, second)
        return embeddings | {"target_z1": targets[0], "target_z2": targets[1]}

    @auto_move_data
    def generative(
        self, z1: Tensor, z2: Tensor, target_z1: Tensor, target_z2: Tensor
    ) -> dict[str, Tensor]:
        """Project all embeddings, and predict the targets."""
        with torch.no_grad():
            targets = [self.target_projector(z) for z in (target_z1, target_z2)]
        projections = [self.projector(z) for z in (z1, z2)]
        return {
            "projection1": projections[0],
            "prediction1": self.predictor(projections[0]),
            "prediction2": self.predictor(projections[1]),
            "target1": targets[0],
            "target2": targets[1],
        }

    def loss(
        self,
        tensors: dict[str, Tensor],
        inference_outputs: dict[str, Tensor],
        generative_outputs: dict[str, Tensor],
    ) -> LossOutput:
        """Compute the distance of each prediction from the target of the other view."""
        found = generative_outputs
        loss = byol_loss(found["prediction1"], found["target2"])
        loss = loss + byol_loss(found["prediction2"], found["target1"])
        return self._loss_output(loss, inference_outputs["z1"], found["projection1"])

    def update_target(self) -> None:
        """Move the target towards encoder and projector."""
        encoder: Any = self.encoder
        update_moving_average(self.target_encoder, encoder, self.decay)
        update_moving_average(self.target_projector, self.projector, self.decay)
