"""Encoders that are trained on two views of each cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi_sctab._config import ENCODER_FIELDS, SELF_SUPERVISED_NETWORK, VIEWS, override
from scvi_sctab.module import BarlowTwinsModule, BYOLModule, build_encoder
from scvi_sctab.nn import CellViews, single_precision
from scvi_sctab.pretrain._model import SelfSupervisedModel
from scvi_sctab.train import UpdateMovingAverage, WarnCollapse

if TYPE_CHECKING:
    from anndata import AnnData
    from lightning.pytorch.callbacks import Callback
    from torch import Tensor

    from scvi_sctab._types import Encoder


class _ContrastiveModel(SelfSupervisedModel):
    """Base of models with an encoder and a loss between two views."""

    @single_precision()
    def __init__(
        self,
        adata: AnnData | None = None,
        *,
        mask_rate: float = VIEWS.mask_rate,
        noise: float = VIEWS.noise,
        dropout: float = VIEWS.dropout,
        registry: dict[str, Any] | None = None,
        **overrides: Any,
    ):
        super().__init__(adata, registry)
        config = override(
            SELF_SUPERVISED_NETWORK, overrides, type(self).__name__, names=ENCODER_FIELDS
        )
        # Record resolved values, so that later defaults do not change a saved model.
        overrides = config.encoder_kwargs()
        self.init_params_ = self._get_init_params(locals())
        self._network = config
        n_genes = len(self.gene_names)
        encoder = build_encoder(n_genes, config)
        self.module = self._build(encoder, CellViews(mask_rate, noise, dropout))
        self._summarize_as(
            f"{type(self).__name__}: {config.encoder}, {n_genes:,} genes, latent of "
            f"{encoder.n_output}, {sum(p.numel() for p in encoder.parameters()):,} parameters"
        )

    @staticmethod
    def _build(encoder: Encoder, views: CellViews) -> BarlowTwinsModule | BYOLModule:
        raise NotImplementedError

    def _callbacks(self) -> list[Callback]:
        """Warn about collapsed embeddings."""
        return [WarnCollapse()]


class BarlowTwins(_ContrastiveModel):
    """Encoder whose dimensions correlate between two views of a cell, and not with each other.

    The pretext task of :cite:t:`Zbontar21`, as :cite:t:`Richter24` apply it to cells.

    Parameters
    ----------
    adata
        AnnData registered by :meth:`setup_anndata`.
    mask_rate, noise, dropout
        Random changes of the views, see :class:`~scvi_sctab.nn.CellViews`.
    registry
        Registry of a saved model, in place of ``adata``.
    **overrides
        Hyperparameters of the encoder, as in :class:`MaskedAutoencoder`.

    Raises
    ------
    TypeError
        If a hyperparameter does not exist.
    ValueError
        If the views would be equal, or a rate or a width is out of range.

    Examples
    --------
    >>> from scvi_sctab import datasets
    >>> from scvi_sctab.pretrain import BarlowTwins
    >>> cells = datasets.pbmc_kang18()
    >>> BarlowTwins.setup_anndata(cells)
    >>> model = BarlowTwins(cells)
    >>> model.train()  # doctest: +SKIP
    >>> cells.obsm["X_barlow_twins"] = model.get_latent_representation()  # doctest: +SKIP
    """

    _module_cls = BarlowTwinsModule
    _pretext = "BarlowTwins"

    @staticmethod
    def _build(encoder: Encoder, views: CellViews) -> BarlowTwinsModule:
        return BarlowTwinsModule(encoder, views)


class BYOL(_ContrastiveModel):
    """Encoder that predicts how its moving average embeds another view of the same cell.

    The pretext task of :cite:t:`Grill20`, as :cite:t:`Richter24` apply it to cells. The target of
    the loss changes in training, so that losses of different epochs cannot be compared: training
    does not stop early, ``early_stopping`` is ignored, and the last weights are kept.

    Parameters
    ----------
    adata
        AnnData registered by :meth:`setup_anndata`.
    mask_rate, noise, dropout
        Random changes of the views, see :class:`~scvi_sctab.nn.CellViews`.
    registry
        Registry of a saved model, in place of ``adata``.
    **overrides
        Hyperparameters of the encoder, as in :class:`MaskedAutoencoder`.

    Raises
    ------
    TypeError
        If a hyperparameter does not exist.
    ValueError
        If the views would be equal, or a rate or a width is out of range.

    Examples
    --------
    >>> from scvi_sctab import datasets
    >>> from scvi_sctab.pretrain import BYOL
    >>> cells = datasets.pbmc_kang18()
    >>> BYOL.setup_anndata(cells)
    >>> model = BYOL(cells)
    >>> model.train()  # doctest: +SKIP
    >>> cells.obsm["X_byol"] = model.get_latent_representation()  # doctest: +SKIP
    """

    _module_cls = BYOLModule
    _pretext = "BYOL"
    _losses_compare = False

    @staticmethod
    def _build(encoder: Encoder, views: CellViews) -> BYOLModule:
        return BYOLModule(encoder, views)

    def _callbacks(self) -> list[Callback]:
        """Update the target after each step, and warn about collapsed embeddings."""
        return [UpdateMovingAverage(), *super()._callbacks()]

    def _take_encoder(self, weights: dict[str, Tensor]) -> None:
        """Give encoder and target these weights."""
        super()._take_encoder(weights)
        self.module.target_encoder.load_state_dict(weights)
