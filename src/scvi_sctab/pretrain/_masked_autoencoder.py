"""Masked autoencoder as a model of scvi-tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator

from scvi_sctab._config import ENCODER_FIELDS, SELF_SUPERVISED_NETWORK, override
from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab.base import document_cells, draw_cells
from scvi_sctab.data import normalized_expression, read_counts
from scvi_sctab.module import LIKELIHOODS, MaskedAutoencoderModule, build_encoder
from scvi_sctab.nn import SELUDecoder, single_precision
from scvi_sctab.pretrain._masks import build_mask, with_all_targets
from scvi_sctab.pretrain._model import SelfSupervisedModel

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray
    from torch import Tensor

    from scvi_sctab.module import Likelihood
    from scvi_sctab.pretrain._masks import MaskName

# Cells per minibatch if every hidden gene is reconstructed.
_N_SCORED = 512


class MaskedAutoencoder(SelfSupervisedModel):
    """Encoder that is trained to reconstruct hidden genes of cells :cite:p:`Richter24`.

    It is trained without labels. A classifier of few labels may start from the encoder:
    :meth:`scvi_sctab.SCTAB.from_pretrained`.

    Parameters
    ----------
    adata
        AnnData registered by :meth:`setup_anndata`.
    mask
        Genes that are hidden in each cell, drawn at each step:

        - ``"random"``: each gene with probability ``mask_rate``.
        - ``"gene_programme"``: the genes of a share ``mask_rate`` of the programmes.
        - ``"programme_to_programme"``: all but one programme; the genes of another one are
          reconstructed.
        - ``"programme_to_gene"``: all but one programme; the gene in its name, a transcription
          factor, is reconstructed.
        - ``"none"``: none, and all genes are reconstructed: a plain autoencoder.
    mask_rate
        Rate of the first two; 0.5 and 0.25 if not given.
    programmes
        Gene programmes: path of a GMT file, a mapping from names to genes, or a key of
        ``adata.varm``; see :func:`scvi_sctab.data.gene_programmes`.
    likelihood
        ``"gaussian"``: squared error of log-normalised expression; ``"nb"``: negative binomial
        likelihood of counts.
    registry
        Registry of a saved model, in place of ``adata``.
    **overrides
        Hyperparameters of the encoder, as in :class:`~scvi_sctab.SCTAB`; ``encoder="selu"`` with
        the published widths if not given.

    Raises
    ------
    TypeError
        If a hyperparameter does not exist.
    ValueError
        If the mask or the likelihood does not exist, programmes are needed and not given, too few
        of their genes are genes of the model, or a rate or a width is out of range.

    Examples
    --------
    >>> from scvi_sctab import SCTAB, datasets
    >>> from scvi_sctab.pretrain import MaskedAutoencoder
    >>> cells = datasets.pbmc_kang18()
    >>> MaskedAutoencoder.setup_anndata(cells)
    >>> autoencoder = MaskedAutoencoder(cells)
    >>> autoencoder.train()  # doctest: +SKIP
    >>> model = SCTAB.from_pretrained(autoencoder, "cell_type")  # doctest: +SKIP
    """

    _module_cls = MaskedAutoencoderModule
    _pretext = "MaskedAutoencoder"

    @single_precision()
    def __init__(
        self,
        adata: AnnData | None = None,
        mask: MaskName = "random",
        *,
        mask_rate: float | None = None,
        programmes: str | Path | Mapping[str, Sequence[str]] | None = None,
        likelihood: Likelihood = "gaussian",
        registry: dict[str, Any] | None = None,
        **overrides: Any,
    ):
        super().__init__(adata, registry)
        config = override(
            SELF_SUPERVISED_NETWORK, overrides, type(self).__name__, names=ENCODER_FIELDS
        )
        if likelihood not in LIKELIHOODS:
            raise ValueError(f"{likelihood=} is none of {', '.join(map(repr, LIKELIHOODS))}.")
        masking, programmes = build_mask(mask, mask_rate, programmes, adata, self.gene_names)
        # Record resolved values, so that later defaults do not change a saved model.
        overrides = config.encoder_kwargs()
        self.init_params_ = self._get_init_params(locals())
        self._network = config
        n_genes = len(self.gene_names)
        encoder = build_encoder(n_genes, config)
        self.module = MaskedAutoencoderModule(
            encoder,
            SELUDecoder(encoder.n_output, n_genes, config.widths[-2::-1]),
            masking,
            LIKELIHOODS[likelihood](n_genes),
        )
        self._summarize_as(
            f"{type(self).__name__}, mask {mask!r}, {likelihood}: {config.encoder}, {n_genes:,} genes, "
            f"latent of {encoder.n_output}, "
            f"{sum(p.numel() for p in self.module.parameters()):,} parameters"
        )

    def _start(self, cells: NDArray[np.intp]) -> None:
        """Initialise an untrained decoder with the mean of each gene."""
        if self._decodes:
            return
        cells = draw_cells(cells)
        counts = next(read_counts(self.adata, self.layer, cells, block_size=len(cells)))
        expression = normalized_expression(self.adata, self.layer, indices=cells).mean(axis=0)
        share = counts.sum(axis=0) / counts.sum()
        means = [torch.from_numpy(np.asarray(m).ravel()).float() for m in (expression, share)]
        decoder = self.module.decoder
        decoder.start_from(self.module.likelihood.start(*means).to(decoder.final_mapping.bias))

    @property
    def _decodes(self) -> bool:
        """Whether the decoder is initialised or trained; that of an imported encoder is not."""
        return bool(self.module.decoder.final_mapping.bias.any())

    def _require_decoder(self) -> None:
        self._require_trained()
        if not self._decodes:
            raise RuntimeError(
                "The encoder of this model was imported, its decoder has learnt nothing. Train it "
                "first: `MaskedAutoencoder.load_query_data(adata, model)`, then `train()`."
            )

    @document_cells
    def reconstruct(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> NDArray[np.float32]:
        """Reconstruct the expression of cells from their embeddings, without hidden genes.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`get_latent_representation`.

        Returns
        -------
        Log-normalised expression, ``(n_cells, n_genes)``, genes in the order of ``gene_names``.
        The array is dense; for many cells, call it for some ``indices`` at a time.

        Raises
        ------
        RuntimeError
            If the model is not trained, or only its encoder was imported.
        ValueError
            As :meth:`get_latent_representation`.
        """
        self._require_decoder()
        n_genes = len(self.gene_names)
        cells = self._select(adata, indices, layer, min_gene_overlap)
        return self._stack(self._reconstruct, n_genes, cells, batch_size)

    def _reconstruct(self, tensors: dict[str, Tensor]) -> NDArray[np.float32]:
        return self.module.reconstruct(tensors).cpu().numpy()

    @document_cells
    def get_reconstruction_error(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        seed: int = 0,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> NDArray[np.float32]:
        """Compute the error of the reconstruction of hidden genes; it is high for unusual cells.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`get_latent_representation`.
        seed
            Seed of the hidden genes.

        Returns
        -------
        Mean error over the hidden genes, ``(n_cells,)``: squared error of log-normalised
        expression, or negative log-likelihood of counts in nats; NaN if no gene was hidden. The
        hidden genes of a cell depend on its position and on ``batch_size``.

        Raises
        ------
        RuntimeError
            If the model is not trained, or only its encoder was imported.
        ValueError
            As :meth:`get_latent_representation`.
        """
        self._require_decoder()
        cells = self._select(adata, indices, layer, min_gene_overlap)
        # With targets drawn per minibatch, errors of different minibatches could not be compared.
        hiding = {
            "generator": Generator(self.module.device).manual_seed(seed),
            "mask": with_all_targets(self.module.mask),
        }

        def score(tensors: dict[str, Tensor]) -> NDArray[np.float32]:
            inference, generated = self.module(
                tensors, get_inference_input_kwargs=hiding, compute_loss=False
            )
            error, asked = self.module.error(tensors, inference, generated)
            return (error.sum(dim=1) / asked.sum(dim=1)).cpu().numpy()

        batch_size = _N_SCORED if batch_size is None else batch_size
        parts = self._map_cells(score, cells, batch_size)
        return np.concatenate([np.zeros(0, np.float32), *parts])
