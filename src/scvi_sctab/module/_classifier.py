"""Encoder, head, and the linear path beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from scvi import REGISTRY_KEYS
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch import Tensor, nn

from scvi_sctab.nn import (
    UNLABELED_CODE,
    GeneLinear,
    label_head,
    normalize_counts,
    weighted_cross_entropy,
)

if TYPE_CHECKING:
    from scvi_sctab._types import Encoder
    from scvi_sctab.nn import CSR, Reduction

    Cells = Tensor | CSR


class CellTypeClassifier(BaseModuleClass):
    r"""Cell types from raw counts: normalise, encode, classify.

    With :math:`c` the counts of a cell, :math:`z` the encoder and :math:`\ell` the logits,

    .. math:: x = \log(1 + 10^4 c / \textstyle\sum_g c_g), \qquad
              \ell = W_s\, x + b + a\, W_d\, z(x),

    where the linear path :math:`W_s x + b` is there only if ``linear_skip``. Without it, and with
    a TabNet encoder, state-dict keys are those of the published scTab checkpoints.

    Parameters
    ----------
    encoder
        Embeds log-normalised expression.
    n_genes
        Number of genes.
    n_labels
        Number of labels.
    linear_skip
        Whether a linear path leads from genes to logits, beside the encoder. NOTE[DIFF] scTab has
        none. Both paths then learn the whole task, each by its own loss: a common loss leaves to
        the encoder what the linear path got wrong, which is mostly noise of the reference.
    encoder_weight
        :math:`a`, share of the encoder in the logits beside a linear path.
    lambda_sparse
        Weight of the entropy of the attention in the loss.

    Notes
    -----
    - input: raw counts ``(n_cells, n_genes)`` over the model's genes, dense or sparse.
    - output: logits ``(n_cells, n_labels)``.
    """

    def __init__(
        self,
        encoder: Encoder,
        n_genes: int,
        n_labels: int,
        *,
        linear_skip: bool = False,
        encoder_weight: float = 1.0,
        lambda_sparse: float = 0.0,
    ):
        super().__init__()
        self.n_labels = n_labels
        self.encoder_weight = encoder_weight
        self.lambda_sparse = lambda_sparse
        self.encoder = encoder
        self.final_mapping = label_head(encoder.n_output, n_labels)
        self.linear_skip = GeneLinear(n_genes, n_labels) if linear_skip else None
        if self.linear_skip is not None:
            nn.init.zeros_(self.linear_skip.weight)
            nn.init.zeros_(self.linear_skip.bias)

    def _get_inference_input(
        self, tensors: dict[str, Tensor], transform: Callable[[Cells], Cells] | None = None
    ) -> dict[str, Cells]:
        """Normalise counts; ``transform`` is what training does to the result."""
        x = normalize_counts(tensors[REGISTRY_KEYS.X_KEY])
        return {"x": x if transform is None else transform(x)}

    @auto_move_data
    def inference(self, x: Cells) -> dict[str, Any]:
        """Embed log-normalised expression."""
        embedding, mask_loss = self.encoder(x)
        return {"x": x, "z": embedding, "mask_loss": mask_loss}

    def _get_generative_input(
        self, tensors: dict[str, Tensor], inference_outputs: dict[str, Any]
    ) -> dict[str, Any]:
        return {"x": inference_outputs["x"], "z": inference_outputs["z"]}

    @auto_move_data
    def generative(self, x: Cells, z: Tensor) -> dict[str, Any]:
        """Classify embedded cells; ``paths`` are the logits that have a loss each."""
        deep = self.final_mapping(z)
        if self.linear_skip is None:
            return {"logits": deep, "paths": [deep]}
        linear = self.linear_skip(x)
        return {"logits": linear + self.encoder_weight * deep, "paths": [linear, deep]}

    def loss(
        self,
        tensors: dict[str, Tensor],
        inference_outputs: dict[str, Any],
        generative_outputs: dict[str, Any],
        class_weights: Tensor | None = None,
        reduction: Reduction = "weighted_mean",
    ) -> LossOutput:
        """Cross-entropy of each path over labelled cells, with the sparsity term."""
        labels = tensors[REGISTRY_KEYS.LABELS_KEY].flatten()
        # The host codes cells without a label after all labels.
        labels = labels.masked_fill(labels >= self.n_labels, UNLABELED_CODE)
        loss = -self.lambda_sparse * inference_outputs["mask_loss"]
        for logits in generative_outputs["paths"]:
            loss = loss + weighted_cross_entropy(logits, labels, class_weights, reduction)
        return LossOutput(
            loss=loss,
            n_obs_minibatch=len(labels),
            logits=generative_outputs["logits"],
            true_labels=labels,
        )

    def sample(self, *args: object, **kwargs: object) -> None:
        """Not defined for a classifier."""
        raise NotImplementedError("A classifier does not generate cells.")
