"""The boxes TabNet is drawn with; ``_tabnet.py`` wires them."""

from __future__ import annotations

from math import sqrt
from typing import Literal

import torch
from torch import Tensor, nn

from scvi_sctab.nn._entmax import entmax15, sparsemax

MaskType = Literal["entmax", "sparsemax"]
MASK_FUNCTIONS = {"entmax": entmax15, "sparsemax": sparsemax}

_RESIDUAL_SCALE = sqrt(0.5)


class GhostBatchNorm(nn.Module):
    """Batch norm over virtual batches in training, plain batch norm in evaluation.

    A training batch is cut into ``batch // virtual_batch_size`` nearly equal parts (at least one),
    each of which is normalised by its own statistics and moves the running statistics once.

    Parameters
    ----------
    n_features
        Width of the input.
    virtual_batch_size
        Smallest size of a part, in cells.
    momentum
        Weight of one part's statistics in the running statistics.

    Notes
    -----
    - input: ``(n_cells, n_features)``; output: the same shape.
    - NOTE[DIFF] The number of parts is rounded down, as in scTab; dreamquark's TabNet rounds up.
    """

    def __init__(self, n_features: int, virtual_batch_size: int = 128, momentum: float = 0.02):
        super().__init__()
        self.virtual_batch_size = virtual_batch_size
        self.bn = nn.BatchNorm1d(n_features, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x``."""
        n_parts = x.shape[0] // self.virtual_batch_size
        if not self.training or n_parts < 2:
            return self.bn(x)
        return torch.cat([self.bn(part) for part in x.chunk(n_parts)])


class GLULayer(nn.Module):
    """Linear, ghost batch norm, gated linear unit.

    Notes
    -----
    - input: ``(n_cells, n_input)``; output: ``(n_cells, n_output)``.
    """

    def __init__(self, fc: nn.Linear, virtual_batch_size: int, momentum: float):
        super().__init__()
        self.fc = fc
        self.bn = GhostBatchNorm(fc.out_features, virtual_batch_size, momentum)

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x``."""
        return nn.functional.glu(self.bn(self.fc(x)))


class GLUBlock(nn.Module):
    """Gated layers joined by residuals scaled to keep the variance.

    Parameters
    ----------
    layers
        One linear layer per gated layer, each ``n_hidden -> 2 * n_hidden`` (the first may have
        another input width when ``first``).
    first
        Whether the first layer changes the width and so has no residual.
    shared
        Whether ``layers`` belong to several blocks; they are then registered under
        ``shared_layers`` as well, which is where the published checkpoints keep them.

    Notes
    -----
    - input: ``(n_cells, n_input)``; output: ``(n_cells, n_hidden)``.
    """

    def __init__(
        self,
        layers: nn.ModuleList,
        virtual_batch_size: int,
        momentum: float,
        *,
        first: bool,
        shared: bool,
    ):
        super().__init__()
        self.first = first
        if shared:
            self.shared_layers = layers
        self.glu_layers = nn.ModuleList(
            GLULayer(layer, virtual_batch_size, momentum)  # type: ignore[arg-type]
            for layer in layers
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x``."""
        for i, layer in enumerate(self.glu_layers):
            x = layer(x) if self.first and i == 0 else (x + layer(x)) * _RESIDUAL_SCALE
        return x


class FeatureTransformer(nn.Module):
    """Shared gated layers, then layers of its own.

    Notes
    -----
    - input: ``(n_cells, n_genes)``; output: ``(n_cells, n_d + n_a)``.
    """

    def __init__(self, shared: nn.Module, specifics: nn.Module):
        super().__init__()
        self.shared = shared
        self.specifics = specifics

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x``."""
        return self.specifics(self.shared(x))


class AttentiveTransformer(nn.Module):
    """Which genes a step looks at.

    Notes
    -----
    - input: ``prior`` ``(n_cells, n_genes)`` or a number, ``attention`` ``(n_cells, n_a)``.
    - output: ``(n_cells, n_genes)``, non-negative, rows sum to one.
    """

    def __init__(
        self,
        n_a: int,
        n_genes: int,
        virtual_batch_size: int,
        momentum: float,
        mask_type: MaskType,
    ):
        super().__init__()
        if mask_type not in MASK_FUNCTIONS:
            raise ValueError(f"{mask_type=} is none of {sorted(MASK_FUNCTIONS)}.")
        self.mask_type = mask_type
        self.fc = nn.Linear(n_a, n_genes, bias=False)
        nn.init.normal_(self.fc.weight, std=n_a**-0.25)
        self.bn = GhostBatchNorm(n_genes, virtual_batch_size, momentum)

    def forward(self, prior: Tensor | float, attention: Tensor) -> Tensor:
        """Return the mask over genes."""
        return MASK_FUNCTIONS[self.mask_type](self.bn(self.fc(attention)) * prior)


def glu_linears(n_input: int, n_hidden: int, n_layers: int) -> nn.ModuleList:
    """Linear maps of a gated block, initialised as published: std ``sqrt(2) * n_input ** -1/4``.

    The first maps ``n_input``, the others ``n_hidden``, all to ``2 * n_hidden``.
    """
    widths = [n_input] + [n_hidden] * (n_layers - 1)
    layers = [nn.Linear(width, 2 * n_hidden, bias=False) for width in widths]
    for width, layer in zip(widths, layers, strict=True):
        nn.init.normal_(layer.weight, std=sqrt(2) * width**-0.25)
    return nn.ModuleList(layers)
