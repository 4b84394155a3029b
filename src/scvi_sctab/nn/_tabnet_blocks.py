"""Building blocks of TabNet, one for each box of its figure; ``_tabnet.py`` connects them."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from scvi_sctab.nn._dense import ThreadedLinear
from scvi_sctab.nn._entmax import entmax15, sparsemax
from scvi_sctab.nn._sparse_attention import attend, score_variance
from scvi_sctab.nn._sparse_layers import Cells, GeneLinear, scale_and_shift
from scvi_sctab.sparse import concatenate_rows

if TYPE_CHECKING:
    from scvi_sctab.sparse import CSR

MaskType = Literal["entmax", "sparsemax"]
MASK_FUNCTIONS = {"entmax": entmax15, "sparsemax": sparsemax}
_MASK_POWERS = {"entmax": 2, "sparsemax": 1}

_RESIDUAL_SCALE = sqrt(0.5)


class GhostBatchNorm(nn.Module):
    """Batch norm over virtual batches in training, plain batch norm in evaluation.

    A training batch is split into ``batch // virtual_batch_size`` nearly equal parts, at least
    one. Each is normalised by its own statistics and updates the running statistics once.

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

    def parts(self, x: Tensor) -> Sequence[Tensor]:
        """Split a batch into its virtual batches."""
        n_parts = len(x) // self.virtual_batch_size if self.training else 1
        return x.chunk(n_parts) if n_parts > 1 else [x]

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x``."""
        parts = self.parts(x)
        if len(parts) == 1:
            return self.bn(x)
        if x.device.type == "cpu":
            return torch.cat([self.bn(part) for part in parts])
        return self._at_once(parts)

    def _at_once(self, parts: Sequence[Tensor]) -> Tensor:
        """Normalise virtual batches together, as a GPU is slow at many small operations."""
        n_cells, width = parts[0].shape
        # All have the same size but the last one, which may be smaller.
        n_equal = len(parts) if len(parts[-1]) == n_cells else len(parts) - 1
        # Features of all parts beside each other are features of one batch.
        rows = torch.stack(list(parts[:n_equal]), dim=1).flatten(1)
        statistics = rows.new_zeros(2, n_equal * width, dtype=self.bn.weight.dtype)
        normalised = nn.functional.batch_norm(
            rows,
            statistics[0],
            statistics[1],
            self.bn.weight.repeat(n_equal),
            self.bn.bias.repeat(n_equal),
            training=True,
            # The statistics become those of this batch.
            momentum=1.0,
            eps=self.bn.eps,
        )
        self._update_statistics(statistics.view(2, n_equal, width))
        normalised = normalised.view(n_cells, n_equal, width).transpose(0, 1).flatten(0, 1)
        if n_equal == len(parts):
            return normalised
        return torch.cat([normalised, self.bn(parts[-1])])

    @torch.no_grad()
    def _update_statistics(self, statistics: Tensor) -> None:
        """Update the running mean and variance by those of one part after the other.

        Parameters
        ----------
        statistics
            ``(2, n_parts, n_features)``.
        """
        n_parts, keep = statistics.shape[1], 1 - self.bn.momentum  # type: ignore[operator]
        age = torch.arange(n_parts - 1, -1, -1, device=statistics.device, dtype=statistics.dtype)
        weights = (keep**age)[:, None]
        # Not a matrix product, which autocast would compute in half precision.
        mean, variance = (weights * statistics).sum(dim=1) / weights.sum()
        share = 1 - keep**n_parts
        self.bn.num_batches_tracked += n_parts  # type: ignore[operator, assignment]
        self.bn.running_mean.lerp_(mean, share)  # type: ignore[union-attr]
        self.bn.running_var.lerp_(variance, share)  # type: ignore[union-attr]


class GLULayer(nn.Module):
    """Linear layer, ghost batch norm and gated linear unit.

    Notes
    -----
    - input: ``(n_cells, n_input)`` and optionally a condition ``(n_cells, 2 * n_output)``, added
      before the norm; output: ``(n_cells, n_output)``.
    """

    def __init__(self, fc: nn.Linear, virtual_batch_size: int, momentum: float):
        super().__init__()
        self.fc = fc
        self.bn = GhostBatchNorm(fc.out_features, virtual_batch_size, momentum)

    def forward(self, x: Cells, condition: Tensor | None = None) -> Tensor:
        """Transform ``x``."""
        hidden = self.fc(x)
        return nn.functional.glu(self.bn(hidden if condition is None else hidden + condition))


class GLUBlock(nn.Module):
    """Gated layers with residual connections, scaled to keep the variance.

    Parameters
    ----------
    layers
        One linear layer per gated layer, each ``n_hidden -> 2 * n_hidden`` (the first may have
        another input width when ``first``).
    first
        Whether the first layer changes the width, and therefore has no residual connection.
    shared
        Whether several blocks share ``layers``, which are then also registered as
        ``shared_layers``, their name in the published checkpoints.

    Notes
    -----
    - input: ``(n_cells, n_input)`` and optionally a condition ``(n_cells, 2 * n_hidden)`` for the
      first layer; output: ``(n_cells, n_hidden)``.
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

    def forward(self, x: Cells, condition: Tensor | None = None) -> Tensor:
        """Transform ``x``."""
        first, *others = self.glu_layers
        hidden: Tensor = first(x, condition)
        if not self.first:
            hidden = (hidden + x) * _RESIDUAL_SCALE  # type: ignore[operator]
        for layer in others:
            hidden = (hidden + layer(hidden)) * _RESIDUAL_SCALE
        return hidden


class FeatureTransformer(nn.Module):
    """Shared gated layers, followed by layers of the step.

    Notes
    -----
    - input: ``(n_cells, n_genes)`` and optionally a condition for the first layer, of twice the
      width of the output; output: ``(n_cells, n_d + n_a)``.
    """

    def __init__(self, shared: nn.Module, specifics: nn.Module):
        super().__init__()
        self.shared = shared
        self.specifics = specifics

    def forward(self, x: Cells, condition: Tensor | None = None) -> Tensor:
        """Transform ``x``."""
        blocks = [b for b in (self.shared, self.specifics) if not isinstance(b, nn.Identity)]
        first, *others = blocks
        hidden: Tensor = first(x, condition)
        for block in others:
            hidden = block(hidden)
        return hidden


class AttentiveTransformer(nn.Module):
    """Attention of a step to genes.

    Notes
    -----
    - input: ``prior`` ``(n_cells, n_genes)``, 1 if not given, ``attention`` ``(n_cells, n_a)``.
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
        self.fc = ThreadedLinear(n_a, n_genes, bias=False)
        nn.init.normal_(self.fc.weight, std=n_a**-0.25)
        self.bn = GhostBatchNorm(n_genes, virtual_batch_size, momentum)

    def forward(self, prior: Tensor | float | None, attention: Tensor) -> Tensor:
        """Return the mask over genes."""
        scores = self.bn(self.fc(attention))
        return MASK_FUNCTIONS[self.mask_type](scores if prior is None else scores * prior)

    def first_mask(self, attention: Tensor) -> CSR:
        """Return the mask of the first step, whose prior is 1, without its zeros."""
        return concatenate_rows([self._attend(part) for part in self.bn.parts(attention)])

    def _attend(self, attention: Tensor) -> CSR:
        """Compute the mask with batch norm folded into the linear layer.

        In training, mean and variance of a gene's scores are ``w @ mean`` and
        ``w @ covariance @ w``, with the moments of ``attention``, which has few columns.
        """
        weight, norm, moments = self.fc.weight, self.bn.bn, None
        if norm.training:
            mean = attention.mean(dim=0)
            centred = attention - mean
            covariance = centred.t() @ centred / len(attention)
            moments = weight @ mean, score_variance(weight, covariance).clamp(min=0)
        scale, shift = scale_and_shift(norm, moments, len(attention))
        return attend(attention, weight, scale, shift, _MASK_POWERS[self.mask_type])


def glu_linears(n_input: int, n_hidden: int, n_layers: int) -> nn.ModuleList:
    """Build the linear maps of a gated block, with std ``sqrt(2) * n_input ** -1/4`` as published.

    The first has input width ``n_input``, the others ``n_hidden``; all return ``2 * n_hidden``.
    """
    widths = [n_input] + [n_hidden] * (n_layers - 1)
    layers = [GeneLinear(width, 2 * n_hidden, bias=False) for width in widths]
    for width, layer in zip(widths, layers, strict=True):
        nn.init.normal_(layer.weight, std=sqrt(2) * width**-0.25)
    return nn.ModuleList(layers)
