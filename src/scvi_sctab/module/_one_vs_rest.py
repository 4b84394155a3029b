"""Classifier with a score per label, as imported from CellTypist."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from scvi.module.base import auto_move_data

from scvi_sctab._constants import MEASURED_KEY, TOTAL_KEY
from scvi_sctab.module._classifier import CellTypeClassifier
from scvi_sctab.nn import CappedLinear

if TYPE_CHECKING:
    from torch import Tensor

    from scvi_sctab.module._classifier import Cells


class OneVsRestClassifier(CellTypeClassifier):
    """Classifier whose logits are the scores of each label against all others.

    The expression of a cell is normalised by all its counts, those of genes that the model lacks
    included, and genes that were not measured contribute nothing.

    Parameters
    ----------
    n_input, n_labels
        Numbers of genes and of labels.
    """

    encoder: CappedLinear

    def __init__(self, n_input: int, n_labels: int):
        super().__init__(CappedLinear(n_input, n_labels), n_input, n_labels)
        # The scores are the logits.
        self.final_mapping.double()
        torch.nn.init.eye_(self.final_mapping.weight)

    @property
    def is_imported(self) -> bool:
        """Whether the weights are another package's, and are not trained here."""
        return True

    def _get_inference_input(
        self, tensors: dict[str, Tensor], transform: Callable[[Cells], Cells] | None = None
    ) -> dict[str, Any]:
        if TOTAL_KEY not in tensors:
            raise RuntimeError("An imported model needs the counts of cells over all genes.")
        inputs = super()._get_inference_input(tensors, transform)
        return {**inputs, "measured": tensors.get(MEASURED_KEY)}

    @auto_move_data
    def inference(
        self, x: Cells, conditions: Tensor | None = None, measured: Tensor | None = None
    ) -> dict[str, Any]:
        """Score log-normalised expression; all genes are measured if it is not said."""
        condition = None if measured is None else self.encoder.without(measured)
        scores, mask_loss = self.encoder(x, condition)
        return {"x": x, "z": scores, "mask_loss": mask_loss}
