"""TabNet, as published for scTab."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from scvi_sctab.nn._encoders import EncoderOutput
from scvi_sctab.nn._sparse_layers import mask_rows, normalize_rows
from scvi_sctab.nn._tabnet_blocks import (
    AttentiveTransformer,
    FeatureTransformer,
    GLUBlock,
    MaskType,
    glu_linears,
)
from scvi_sctab.sparse import CSR

_INPUT_BN_MOMENTUM = 0.01


class TabNetEncoder(nn.Module):
    """Sequential attention over genes :cite:p:`Arik21`, as in scTab :cite:p:`Fischer24`.

    Parameters
    ----------
    input_dim
        Number of genes.
    n_d
        Width of the embedding.
    n_a
        Width of the input of the next step's attention.
    n_steps
        Number of attention steps.
    gamma
        Relaxation of the limit on attending to a gene again; 1 allows each gene once.
    n_independent
        Number of gated layers with weights per step.
    n_shared
        Number of gated layers whose weights all steps share.
    epsilon
        Added to the mask inside the logarithm of its entropy.
    virtual_batch_size
        Smallest virtual batch of ghost batch norm, in cells.
    momentum
        Momentum of ghost batch norm.
    mask_type
        ``"entmax"`` (1.5-entmax) or ``"sparsemax"``.

    Notes
    -----
    - input: ``(n_cells, input_dim)``, log-normalised expression; optionally a condition
      ``(n_cells, n_condition)``, added before the first norm of every stack of gated layers.
    - output: :class:`~scvi_sctab.nn.EncoderOutput` with an embedding ``(n_cells, n_d)``.
    - NOTE[DIFF] The shared layers are initialised once; the original draws them again for every
      step and uses the last draw, which has the same distribution.

    Examples
    --------
    >>> import torch
    >>> encoder = TabNetEncoder(100, n_d=8, n_a=4, n_steps=2, n_independent=1, n_shared=1)
    >>> output = encoder(torch.rand(32, 100))
    >>> output.embedding.shape
    torch.Size([32, 8])
    """

    def __init__(
        self,
        input_dim: int,
        n_d: int = 128,
        n_a: int = 64,
        n_steps: int = 1,
        gamma: float = 1.3,
        n_independent: int = 5,
        n_shared: int = 3,
        epsilon: float = 1e-15,
        virtual_batch_size: int = 256,
        momentum: float = 0.02,
        mask_type: MaskType = "entmax",
    ):
        super().__init__()
        if n_independent == 0 and n_shared == 0:
            raise ValueError("TabNet needs a layer: n_independent and n_shared are both 0.")
        if n_steps < 1:
            raise ValueError(f"TabNet needs at least one attention step, not {n_steps=}.")
        self.n_d, self.n_a = n_d, n_a
        self.gamma, self.epsilon = gamma, epsilon
        n_hidden = n_d + n_a
        norm = (virtual_batch_size, momentum)
        shared = glu_linears(input_dim, n_hidden, n_shared) if n_shared else None

        def feature_transformer() -> FeatureTransformer:
            if n_independent == 0:
                own: nn.Module = nn.Identity()
            else:
                first = shared is None
                linears = glu_linears(input_dim if first else n_hidden, n_hidden, n_independent)
                own = GLUBlock(linears, *norm, first=first, shared=False)
            if shared is None:
                return FeatureTransformer(nn.Identity(), own)
            return FeatureTransformer(GLUBlock(shared, *norm, first=True, shared=True), own)

        self.initial_bn = nn.BatchNorm1d(input_dim, momentum=_INPUT_BN_MOMENTUM)
        self.initial_splitter = feature_transformer()
        self.feat_transformers = nn.ModuleList(feature_transformer() for _ in range(n_steps))
        self.att_transformers = nn.ModuleList(
            AttentiveTransformer(n_a, input_dim, *norm, mask_type) for _ in range(n_steps)
        )

    @property
    def n_output(self) -> int:
        """Width of the embedding."""
        return self.n_d

    @property
    def n_condition(self) -> int:
        """Width of a condition."""
        return 2 * (self.n_d + self.n_a)

    def _steps(
        self, x: Tensor | CSR, condition: Tensor | None = None
    ) -> Sequence[tuple[Tensor | CSR, Tensor]]:
        """Return the mask ``(n_cells, n_genes)`` and embedding ``(n_cells, n_d)`` of each step."""
        if isinstance(x, Tensor):
            return list(self._dense_steps(x, condition))
        if len(self.att_transformers) == 1:
            return [self._sparse_step(x, condition)]
        # From the second step on, masks depend on a dense prior.
        return list(self._dense_steps(x.to_dense(), condition))

    # The kernels are compiled by numba, for the precision of the weights.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.autocast("cpu", enabled=False)  # type: ignore[untyped-decorator]
    def _sparse_step(self, cells: CSR, condition: Tensor | None) -> tuple[CSR, Tensor]:
        """Run one step of attention, on the nonzeros of the cells and of the mask only."""
        x = normalize_rows(self.initial_bn, cells)
        attention = self.initial_splitter(x, condition)[:, self.n_d :]
        (attend,), (transform,) = self.att_transformers, self.feat_transformers
        mask = attend.first_mask(attention)  # type: ignore[operator]
        hidden = transform(mask_rows(mask, x), condition)
        return mask, hidden[:, : self.n_d].relu()

    def _dense_steps(self, x: Tensor, condition: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
        x = self.initial_bn(x)
        prior = mask = None
        attention = self.initial_splitter(x, condition)[:, self.n_d :]
        for attend, transform in zip(self.att_transformers, self.feat_transformers, strict=True):
            if mask is not None:
                prior = self.gamma - mask if prior is None else (self.gamma - mask) * prior
            mask = attend(prior, attention)
            hidden = transform(mask * x, condition)
            yield mask, hidden[:, : self.n_d].relu()
            attention = hidden[:, self.n_d :]

    def forward(self, x: Tensor | CSR, condition: Tensor | None = None) -> EncoderOutput:
        """Embed cells; the mask loss is the negative entropy of the masks, mean over steps."""
        steps = self._steps(x, condition)
        mask_losses = torch.stack([self._negative_entropy(mask) for mask, _ in steps])
        embedding = torch.stack([step for _, step in steps]).sum(dim=0)
        return EncoderOutput(embedding, mask_losses.mean())

    def _negative_entropy(self, mask: Tensor | CSR) -> Tensor:
        """Compute the negative entropy of a mask, mean over cells."""
        values = mask.values if isinstance(mask, CSR) else mask
        # Half precision rounds epsilon to 0 and makes 0 * log(0).
        values = values.float() if values.element_size() < 4 else values
        return (values * (values + self.epsilon).log()).sum() / len(mask)

    def attention(self, x: Tensor | CSR, condition: Tensor | None = None) -> Tensor | CSR:
        """Compute the attention of each cell to each gene: masks weighted by the step's embedding.

        Parameters
        ----------
        x
            Log-normalised expression, ``(n_cells, n_genes)``.
        condition
            Added before the first norm, ``(n_cells, n_condition)``.

        Returns
        -------
        Non-negative weights, ``(n_cells, n_genes)``; not normalised over genes.
        """
        if isinstance(x, CSR) and len(self.att_transformers) == 1:
            sparse_mask, step = self._sparse_step(x, condition)
            weights = step.sum(dim=1).repeat_interleave(sparse_mask.indptr.diff())
            return sparse_mask.with_values(sparse_mask.values * weights)
        steps = self._dense_steps(x.to_dense(), condition)
        weighted = [mask * step.sum(dim=1, keepdim=True) for mask, step in steps]
        return torch.stack(weighted).sum(dim=0)


class TabNet(nn.Module):
    """Published scTab network: a TabNet encoder and a linear map to labels.

    State-dict keys are those of the published checkpoints without their ``classifier.`` prefix.

    Parameters
    ----------
    input_dim
        Number of genes.
    output_dim
        Number of labels.
    n_d, n_a, n_steps, gamma, n_independent, n_shared, epsilon
        See :class:`~scvi_sctab.nn.TabNetEncoder`.
    virtual_batch_size, momentum, mask_type
        See :class:`~scvi_sctab.nn.TabNetEncoder`.

    Notes
    -----
    - input: ``(n_cells, input_dim)``, log-normalised expression.
    - output: logits ``(n_cells, output_dim)`` and the mask loss ``()``.

    Examples
    --------
    >>> import torch
    >>> logits, mask_loss = TabNet(100, 5, n_d=8, n_a=4)(torch.rand(32, 100))
    >>> logits.shape, mask_loss.shape
    (torch.Size([32, 5]), torch.Size([]))
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        n_d: int = 128,
        n_a: int = 64,
        n_steps: int = 1,
        gamma: float = 1.3,
        n_independent: int = 5,
        n_shared: int = 3,
        epsilon: float = 1e-15,
        virtual_batch_size: int = 256,
        momentum: float = 0.02,
        mask_type: MaskType = "entmax",
    ):
        super().__init__()
        self.encoder = TabNetEncoder(
            input_dim,
            n_d=n_d,
            n_a=n_a,
            n_steps=n_steps,
            gamma=gamma,
            n_independent=n_independent,
            n_shared=n_shared,
            epsilon=epsilon,
            virtual_batch_size=virtual_batch_size,
            momentum=momentum,
            mask_type=mask_type,
        )
        self.final_mapping = label_head(n_d, output_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and the mask loss."""
        embedding, mask_loss = self.encoder(x)
        return self.final_mapping(embedding), mask_loss


def label_head(n_input: int, n_labels: int) -> nn.Linear:
    """Build the linear map to logits, initialised as published: std ``n_input ** -1/4``.

    Parameters
    ----------
    n_input
        Width of the embedding.
    n_labels
        Number of labels.
    """
    head = nn.Linear(n_input, n_labels, bias=False)
    nn.init.normal_(head.weight, std=n_input**-0.25)
    return head
