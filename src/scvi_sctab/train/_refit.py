"""Refit of the layers of a classifier whose loss is convex: its linear path and its head."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from scvi_sctab.sparse import CSR, csr_matmul

if TYPE_CHECKING:
    from scvi_sctab._config import RefitConfig


def refit_layer(
    layer: nn.Linear,
    x: Tensor | CSR,
    loss: Callable[[Tensor], Tensor],
    config: RefitConfig,
) -> None:
    """Minimise a convex loss of the outputs of a linear layer by L-BFGS, from its present weights.

    There is one minimum, so that the start only changes how long it takes.

    Parameters
    ----------
    layer
        Layer to fit; its weights are changed.
    x
        Inputs, ``(n_cells, n_input)``, on the CPU.
    loss
        Loss of outputs ``(n_cells, n_output)``, a mean over cells.
    config
        ``penalty`` of the squared weights, not of the bias, and when to stop.
    """
    # L-BFGS takes contiguous parameters, and the weights of genes are stored gene by gene.
    weight = layer.weight.detach().t().clone(memory_format=torch.contiguous_format)
    bias = None if layer.bias is None else layer.bias.detach().clone()
    parameters = [weight] if bias is None else [weight, bias]
    optimizer = torch.optim.LBFGS(
        [parameter.requires_grad_() for parameter in parameters],
        max_iter=config.max_iterations,
        tolerance_change=config.tolerance,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        outputs = csr_matmul(x, weight) if isinstance(x, CSR) else x @ weight
        outputs = outputs if bias is None else outputs + bias
        value = loss(outputs) + config.penalty / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(closure)
    with torch.no_grad():
        layer.weight.copy_(weight.t())
        if bias is not None:
            layer.bias.copy_(bias)
