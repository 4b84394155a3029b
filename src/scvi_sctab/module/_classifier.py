"""Classifier of cells: an encoder, a label head, and a linear path beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch import Tensor, nn

from scvi_sctab._constants import CONDITIONS_KEY, TOTAL_KEY
from scvi_sctab.module._query_paths import QueryPaths
from scvi_sctab.nn import (
    UNLABELED_CODE,
    BatchEmbedding,
    GeneLinear,
    NewEntries,
    append_entries,
    label_head,
    marginal_cross_entropy,
    normalize_counts,
    select_entries,
    weighted_cross_entropy,
)

if TYPE_CHECKING:
    from scvi_sctab._types import Encoder
    from scvi_sctab.module._reconstruction import MaskedReconstruction
    from scvi_sctab.nn import MeanTotal, Reduction
    from scvi_sctab.sparse import CSR

    Cells = Tensor | CSR

# Finite, so that it can be scaled and averaged; its exponential is 0.
_MASKED_LOGIT = -1e4


class CellTypeClassifier(BaseModuleClass):  # type: ignore[misc]
    r"""Classifier of cell types from raw counts.

    With :math:`c` the counts of a cell, :math:`e` the embedding of its condition, :math:`z` the
    encoder and :math:`\ell` the logits,

    .. math:: x = \log(1 + 10^4 c / \textstyle\sum_g c_g), \qquad
              \ell = W_s\, x + b + a\, W_d\, z(x, e),

    where the linear path :math:`W_s x + b` exists only if ``linear_skip``; each mapped query adds
    a query adapter for its cells. Without a linear path, and with a TabNet encoder, state-dict
    keys are those of the published scTab checkpoints.

    Parameters
    ----------
    encoder
        Embeds log-normalised expression.
    n_input
        Number of genes, or width of the latent space that is read in their place.
    n_labels
        Number of labels.
    n_categories
        Number of categories of the batch and of each other covariate on which the encoder is
        conditioned; none for plain scTab.
    batch_dropout
        Share of cells in training whose batch and covariates are treated as unknown.
    freeze_encoder
        Whether the encoder is frozen, including its dropout and batch norm.
    first_query_batches
        See :class:`QueryPaths`; none before surgery.
    linear_skip
        Whether there is a linear path from genes to logits beside the encoder. NOTE[DIFF] scTab
        has none. Each of the two has its own loss: with a common loss the encoder would fit the
        residuals of the linear path, which are mostly noise of the reference.
    encoder_weight
        :math:`a`, weight of the encoder's logits beside a linear path.
    lambda_sparse
        Weight of the entropy of the attention in the loss.
    reconstruction
        Reconstruction of hidden genes, if any.
    reconstruction_weight
        Weight of the loss of the reconstruction, which needs no labels.
    accepted
        Whether a prediction of the column's label is right for a cell of the row's label,
        ``(n_labels, n_labels)``; the identity if not given. The logits of coarse labels, which do
        not accept themselves, are masked.

    Notes
    -----
    - input: raw counts ``(n_cells, n_genes)`` over the model's genes, dense or sparse, and codes
      of batch and covariates ``(n_cells, len(n_categories))``, -1 where unknown.
    - output: logits ``(n_cells, n_labels)``.
    """

    def __init__(
        self,
        encoder: Encoder,
        n_input: int,
        n_labels: int,
        *,
        n_categories: Sequence[int] = (),
        batch_dropout: float = 0.5,
        freeze_encoder: bool = False,
        first_query_batches: Sequence[int] = (),
        linear_skip: bool = False,
        encoder_weight: float = 1.0,
        lambda_sparse: float = 0.0,
        reconstruction: MaskedReconstruction | None = None,
        reconstruction_weight: float = 0.0,
        accepted: Tensor | None = None,
    ):
        super().__init__()
        self.register_buffer("accepted", accepted, persistent=False)
        self.n_labels = n_labels
        self.encoder_weight = encoder_weight
        self.lambda_sparse = lambda_sparse
        self.reconstruction_weight = reconstruction_weight
        self.encoder = encoder
        self.freeze_encoder = freeze_encoder
        if freeze_encoder:
            encoder.requires_grad_(False)
        self.reconstruction = reconstruction
        self.batch_embedding = (
            BatchEmbedding(n_categories, encoder.n_condition, batch_dropout)
            if n_categories
            else None
        )
        self.final_mapping = label_head(encoder.n_output, n_labels)
        self.linear_skip = GeneLinear(n_input, n_labels) if linear_skip else None
        if self.linear_skip is not None:
            nn.init.zeros_(self.linear_skip.weight)
            nn.init.zeros_(self.linear_skip.bias)
        self.query_paths = (
            QueryPaths(n_input, n_labels, first_query_batches) if first_query_batches else None
        )

    def _get_inference_input(
        self, tensors: dict[str, Tensor], transform: Callable[[Cells], Cells] | None = None
    ) -> dict[str, Any]:
        """Normalise counts, and apply ``transform``, the augmentation of training, if given."""
        x = normalize_counts(tensors[REGISTRY_KEYS.X_KEY], tensors.get(TOTAL_KEY))
        conditions = tensors.get(CONDITIONS_KEY)
        return {"x": x if transform is None else transform(x), "conditions": conditions}

    @auto_move_data
    def inference(self, x: Cells, conditions: Tensor | None = None) -> dict[str, Any]:
        """Embed log-normalised expression; without ``conditions`` the batch is unknown."""
        condition = self.condition(conditions)
        embedding, mask_loss = self.encoder(x, condition)
        outputs = {"x": x, "z": embedding, "mask_loss": mask_loss}
        if self.reconstruction is not None and torch.is_grad_enabled():
            outputs["unsupervised_loss"] = self.reconstruction(
                self.encoder, x, condition, conditions
            )
        return outputs

    def train(self, mode: bool = True) -> CellTypeClassifier:
        """Set training mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.freeze_encoder:
            self.encoder.eval()
        return self

    @property
    def frozen(self) -> list[str]:
        """Patterns of parameters that are never trained."""
        return ["encoder.*"] if self.freeze_encoder else []

    @property
    def needs_batch(self) -> bool:
        """Whether the batch of a cell must be known."""
        return False

    @property
    def reads_genes(self) -> bool:
        """Whether the classifier reads genes, not a latent space."""
        return True

    @property
    def is_imported(self) -> bool:
        """Whether the weights are another package's, and are not trained here."""
        return False

    @property
    def has_unsupervised_loss(self) -> bool:
        """Whether there is a loss that needs no labels."""
        return self.reconstruction is not None

    @property
    def linear_parts(self) -> list[nn.Module]:
        """Linear path and query adapters, which have their own optimiser."""
        return [path for path in (self.linear_skip, self.query_paths) if path is not None]

    def grow_from(
        self, state: dict[str, Tensor], n_categories: Sequence[int]
    ) -> dict[str, NewEntries | None]:
        """Copy the weights of a smaller classifier, with fewer labels, batches or queries.

        New labels start at the mean of the old ones: the mean of some logits is never above their
        maximum, so that an untrained label is never predicted. New batches start as unknown
        batches, in a latent space at the mean of the old ones.

        Parameters
        ----------
        state
            State dict of the smaller classifier.
        n_categories
            Numbers of categories of the smaller classifier.

        Returns
        -------
        Parameters with new entries; ``None`` if all entries are new.
        """
        own = self.state_dict()
        grown: dict[str, NewEntries | None] = dict.fromkeys(n for n in own if n not in state)
        for name, old in state.items():
            old = old.to(own[name].device)
            if old.shape != own[name].shape:
                old, grown[name] = self._grow(name, old, own[name], n_categories)
            with torch.no_grad():
                own[name].copy_(old)
        # New entries of frozen parameters are not trained.
        trainable = {name for name, p in self.named_parameters() if p.requires_grad}
        return {name: entries for name, entries in grown.items() if name in trainable}

    def _grow(
        self, name: str, old: Tensor, new: Tensor, n_categories: Sequence[int]
    ) -> tuple[Tensor, NewEntries]:
        """Append new entries to a tensor."""
        longer, entries = append_entries(old, len(new))
        if "batch_embedding." in name:
            longer[entries.positions] = 0
        return longer, entries

    @torch.no_grad()
    def take_genes(self, state: dict[str, Tensor], genes: Tensor) -> None:
        """Copy the weights of a classifier of more genes; what it lacks stays as it is.

        Parameters
        ----------
        state
            State dict of that classifier.
        genes
            Positions of the genes of this one among its genes, ``(n_genes,)``.
        """
        own = self.state_dict()
        for name, old in state.items():
            own[name].copy_(select_entries(old.to(own[name].device), own[name].shape, genes))

    def condition(self, conditions: Tensor | None) -> Tensor | None:
        """Embed codes of batch and covariates, ``(n_cells, n_conditions)``."""
        if self.batch_embedding is None or conditions is None:
            return None
        return self.batch_embedding(conditions)

    def _get_generative_input(
        self, tensors: dict[str, Tensor], inference_outputs: dict[str, Any]
    ) -> dict[str, Any]:
        conditions = tensors.get(CONDITIONS_KEY)
        return {"x": inference_outputs["x"], "z": inference_outputs["z"], "conditions": conditions}

    @auto_move_data
    def generative(self, x: Cells, z: Tensor, conditions: Tensor | None = None) -> dict[str, Any]:
        """Classify embedded cells.

        ``paths`` are the logits with a loss each, those of the linear path first;
        ``reference_logits`` are the logits without query adapters.
        """
        deep = self._mask_coarse(self.final_mapping(z))
        linear = None if self.linear_skip is None else self._mask_coarse(self.linear_skip(x))
        paths = [deep] if linear is None else [linear, deep]
        logits = deep if linear is None else linear + self.encoder_weight * deep
        if self.query_paths is None or conditions is None:
            return {"logits": logits, "paths": paths, "reference_logits": logits}
        shift = self.query_paths(x, conditions)
        paths[0] = paths[0] + shift
        return {"logits": logits + shift, "paths": paths, "reference_logits": logits}

    def _mask_coarse(self, logits: Tensor) -> Tensor:
        """Mask the logits of coarse labels."""
        if self.accepted is None:
            return logits
        return logits.masked_fill(~self.accepted.diagonal(), _MASKED_LOGIT)

    def loss(
        self,
        tensors: dict[str, Tensor],
        inference_outputs: dict[str, Any],
        generative_outputs: dict[str, Any],
        class_weights: Tensor | None = None,
        reduction: Reduction = "weighted_mean",
        mean_total: MeanTotal | None = None,
    ) -> LossOutput:
        """Compute the cross-entropy of each path over labelled cells, with the sparsity term."""
        labels = tensors[REGISTRY_KEYS.LABELS_KEY].flatten()
        # scvi-tools gives unlabelled cells the last code.
        labels = labels.masked_fill(labels >= self.n_labels, UNLABELED_CODE)
        loss = -self.lambda_sparse * inference_outputs["mask_loss"]
        if "unsupervised_loss" in inference_outputs:
            loss = loss + self.reconstruction_weight * inference_outputs["unsupervised_loss"]
        for logits in generative_outputs["paths"]:
            loss = loss + self._cross_entropy(logits, labels, class_weights, reduction, mean_total)
        logits = generative_outputs["logits"]
        return LossOutput(
            loss=loss,
            n_obs_minibatch=len(labels),
            logits=logits,
            true_labels=self._accept_finer(labels, logits.argmax(dim=1)),
        )

    def _cross_entropy(
        self,
        logits: Tensor,
        labels: Tensor,
        weights: Tensor | None,
        reduction: Reduction,
        mean_total: MeanTotal | None,
    ) -> Tensor:
        averaged = (weights, reduction, mean_total)
        if self.accepted is None:
            return weighted_cross_entropy(logits, labels, *averaged)
        return marginal_cross_entropy(logits, labels, self.accepted, *averaged)

    def _accept_finer(self, labels: Tensor, predicted: Tensor) -> Tensor:
        """Replace true labels by the predicted ones that they accept, for scores."""
        if self.accepted is None:
            return labels
        right = self.accepted[labels.clamp(min=0), predicted] & (labels != UNLABELED_CODE)
        return torch.where(right, predicted, labels)

    def sample(self, *args: object, **kwargs: object) -> None:
        """Raise an error: sampling is not defined for a classifier."""
        raise NotImplementedError("A classifier does not generate cells.")
