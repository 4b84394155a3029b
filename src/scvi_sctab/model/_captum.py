"""Which genes speak for a label, by gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse

from scvi_sctab._optional import import_optional

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from scvi_sctab.data import CellSelection
    from scvi_sctab.model._explanation import AttributionMethod

# Each cell goes through the network once per step.
_BATCH_SIZE = 64
_MAX_ROWS = 256


class CaptumMixin:
    """Attributions of a label to genes, through captum."""

    def _attribute(
        self,
        cells: CellSelection,
        codes: NDArray[np.intp],
        method: AttributionMethod,
        n_steps: int,
        batch_size: int | None,
    ) -> sparse.csr_matrix:
        """Attribute the label of each cell to its genes, ``(n_cells, n_genes)``."""
        attr = import_optional("captum.attr", "interpret", "get_attributions()")
        if method == "input_x_gradient":
            captum, options = attr.InputXGradient(self._centred_logits), {}
        else:
            captum = attr.IntegratedGradients(self._centred_logits)
            options = {"n_steps": n_steps, "internal_batch_size": _MAX_ROWS}
        start = 0

        def attribute(tensors: dict[str, Tensor]) -> sparse.csr_matrix:
            nonlocal start
            x, conditions = self._dense_input(tensors)
            rows = slice(start, start + len(x))
            start = rows.stop
            # What was made without gradients cannot be given any, but its copies can.
            with torch.inference_mode(False), torch.enable_grad():
                x, conditions = x.clone().requires_grad_(), conditions.clone()
                values = captum.attribute(
                    x,
                    target=torch.from_numpy(codes[rows]).to(x.device),
                    additional_forward_args=(conditions,),
                    **options,
                )
            return sparse.csr_matrix(values.detach().cpu().numpy().astype(np.float32))

        return self._stack_sparse(self._map_cells(attribute, cells, batch_size or _BATCH_SIZE))
