"""Training of the encoder without labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any

import numpy as np
import torch

from scvi_sctab._config import PRESETS, PRETRAINING
from scvi_sctab._logging import shows_progress
from scvi_sctab.base import (
    all_or_nothing,
    check_epochs,
    check_trainer_arguments,
    draw_cells,
)
from scvi_sctab.data import check_cells, normalized_expression
from scvi_sctab.module import LatentClassifier, build_reconstruction
from scvi_sctab.nn import frozen_but, single_precision


class PretrainingMixin:
    """Masked reconstruction :cite:p:`Arik21`: hide genes, embed the rest, reconstruct them."""

    def pretrain(
        self,
        max_epochs: int | None = None,
        *,
        batch_size: int | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the encoder on all cells of the AnnData, without labels, before :meth:`train`.

        Helps the encoder where few cells are labelled, and not the linear path beside it; the
        user guide has numbers. The decoder is kept only if the model was built with
        ``reconstruction_weight``, and then takes part in :meth:`train`.

        Parameters
        ----------
        max_epochs
            Epochs; 400 steps if not given.
        batch_size
            Cells per step.
        accelerator, devices
            Where to train; a GPU if there is one.
        plan_kwargs
            Further arguments of :class:`~scvi_sctab.train.ClassifierTrainingPlan`.
        **trainer_kwargs
            Further arguments of :class:`~scvi.train.Trainer`.

        Raises
        ------
        ValueError
            If the model has no AnnData, reads a latent space, which is pretrained already, has a
            frozen encoder, was made for a query or trained before, or its cells are no raw counts.
        """
        check_epochs(max_epochs)
        check_trainer_arguments(trainer_kwargs, "pretrain")
        self._check_pretrainable()
        splitter = self._data_splitter_cls(
            self.adata_manager,
            len(self.labels),
            train_size=1.0,
            batch_size=batch_size or PRETRAINING.batch_size,
            external_indexing=[np.arange(self.adata.n_obs), [], []],
            require_labels=False,
        )
        splitter.cells.labels[:] = len(self.labels)
        if max_epochs is None:
            max_epochs = ceil(PRETRAINING.max_steps / len(splitter.train_dataloader()))
        settings = {**PRESETS[self.preset_].plan.to_kwargs(), **PRETRAINING.plan}
        trainer = {
            "accelerator": accelerator,
            "devices": devices,
            "enable_progress_bar": shows_progress(),
            **trainer_kwargs,
        }
        encoder = ["encoder.*", "batch_embedding.*", "reconstruction.*"]
        with all_or_nothing(self), self._reconstructing(), frozen_but(self.module, encoder, {}):
            plan = self._training_plan_cls(self.module, **{**settings, **(plan_kwargs or {})})
            self._fit(plan, splitter, max_epochs, {"log_every_n_steps": 1, **trainer})

    def _check_pretrainable(self) -> None:
        if self.adata is None:
            raise ValueError("This model has no AnnData to train on: `SCTAB.load(path, adata)`.")
        if self.is_trained_:
            raise ValueError("This model is trained already; pretrain a new one before `train()`.")
        if isinstance(self.module, LatentClassifier):
            raise ValueError("This model reads a latent space, which is pretrained already.")
        if self._network.freeze_encoder:
            raise ValueError(
                "The encoder of this model is frozen: pretrain one with `freeze_encoder=False`."
            )
        if self.surgery_ is not None:
            raise ValueError("A query model is not pretrained; pretrain the reference.")
        self._validate_anndata()
        check_cells(self.adata, self.layer)

    @contextmanager
    def _reconstructing(self) -> Iterator[None]:
        """Give the module a decoder, if it has none, and its loss the only say."""
        module, weight = self.module, self.module.reconstruction_weight
        history, trained = self.history_, self.is_trained_
        if module.reconstruction is None:
            with single_precision():
                module.reconstruction = build_reconstruction(
                    module.encoder,
                    len(self.gene_names),
                    [len(condition.categories) for condition in self.conditions],
                    self._network,
                ).to(module.device)
        self._center_reconstruction()
        module.reconstruction_weight = 1.0
        self.history_, self.is_trained_ = None, False
        module.train()
        try:
            yield
            self.pretraining_history_ = self.history_
        finally:
            self.history_, self.is_trained_ = history, trained
            module.reconstruction_weight = weight
            if not weight:
                module.reconstruction = None
            module.eval()

    def _center_reconstruction(self) -> None:
        """Let a decoder that has learnt nothing start from the mean of each gene."""
        decoder = self.module.reconstruction.decoder
        if decoder.final_mapping.bias.any():
            return
        cells = draw_cells(np.arange(self.adata.n_obs))
        means = normalized_expression(self.adata, self.layer, indices=cells).mean(axis=0)
        decoder.start_from(torch.from_numpy(np.asarray(means).ravel()).float())
