"""Predictions for cells, seen or not."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd
import torch
from scvi import REGISTRY_KEYS
from tqdm.auto import tqdm

from scvi_sctab._constants import CONDITIONS_KEY, READ_BLOCK_CELLS, UNKNOWN_CODE
from scvi_sctab.data import (
    align_genes,
    check_indices,
    condition_codes,
    describe_empty_cells,
    empty_cells,
    get_column,
    read_counts,
    slice_rows,
    to_tensor,
)
from scvi_sctab.metrics import classification_report, normalized_entropy

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from torch import Tensor

T = TypeVar("T")

_BATCH_SIZE = 2048
# Shorter work needs no progress bar.
_PROGRESS_FROM_N_CELLS = 20_000


class PredictionMixin:
    """What a trained model says of cells; nothing is written into the AnnData."""

    def predict(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        soft: bool = False,
        batch_size: int | None = None,
    ) -> NDArray[np.str_] | pd.DataFrame:
        """Predict cell types.

        Parameters
        ----------
        adata
            Raw counts, in memory or backed, in the layer that the model was set up with; genes in
            any order. The reference if not given. Where its batch column holds batches that the
            model does not know, or is missing, the encoder goes without.
        indices
            Cells, in this order; all if not given.
        soft
            Whether to return probabilities.
        batch_size
            Cells at a time.

        Returns
        -------
        Labels ``(n_cells,)``; or, if ``soft``, a frame ``(n_cells, n_labels)`` of probabilities,
        rows named by cell and columns by label.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If ``adata`` does not hold raw counts, or too few of the model's genes.
        """
        self._require_trained()
        adata, cells = self._query(adata, indices)
        if soft:
            rows = list(self._map_cells(self._probabilities, adata, cells, batch_size))
            values = np.concatenate([np.zeros((0, len(self.labels)), np.float32), *rows])
            return pd.DataFrame(values, index=adata.obs_names[cells], columns=self.labels)
        codes = list(self._map_cells(self._codes, adata, cells, batch_size))
        return self.labels[np.concatenate([np.zeros(0, np.int64), *codes])]

    def annotate(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Annotate cells: label, probability, uncertainty.

        Parameters
        ----------
        adata, indices, batch_size
            As in :meth:`predict`.

        Returns
        -------
        A row per cell, to join to ``adata.obs``:

        - ``label``: the most probable cell type, categorical over all labels.
        - ``probability``: its probability.
        - ``uncertainty``: entropy of the probabilities over that of not knowing at all, in
          [0, 1].
        - ``runner_up``: the second most probable cell type.

        A model of a query whose policy is ``"batch"`` adds what it would say without the query's
        own path, ``reference_label`` and ``reference_probability``. A cell of a type that the
        reference lacks shows in the latter: adaptation makes all cells surer.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If cells share names, or as in :meth:`predict`.
        """
        self._require_trained()
        adata, cells = self._query(adata, indices)
        if not adata.obs_names.is_unique:
            raise ValueError(
                "Cells share names, so that rows could not be told apart: "
                "`adata.obs_names_make_unique()`."
            )
        parts = list(self._map_cells(self._describe, adata, cells, batch_size))
        values = np.concatenate([np.zeros((0, 6)), *parts])

        def as_labels(column: int) -> pd.Categorical:
            codes = values[:, column].astype(int)
            return pd.Categorical.from_codes(codes, categories=self.labels)

        table = {
            "label": as_labels(0),
            "probability": values[:, 1],
            "uncertainty": values[:, 2],
            "runner_up": as_labels(3),
        }
        if self.module.query_paths is not None and not self._patterns():
            table |= {"reference_label": as_labels(4), "reference_probability": values[:, 5]}
        return pd.DataFrame(table, index=adata.obs_names[cells])

    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> NDArray[np.float32]:
        """Embed cells by the encoder, without their batch, so that all are comparable.

        A latent space that depends on the batch, that of an SCVI, is told it.

        Parameters
        ----------
        adata, indices, batch_size
            As in :meth:`predict`.

        Returns
        -------
        ``(n_cells, n_d)``.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            As in :meth:`predict`.
        """
        self._require_trained()
        adata, cells = self._query(adata, indices)
        parts = list(self._map_cells(self._embed, adata, cells, batch_size))
        n_output = self.module.encoder.n_output
        return np.concatenate([np.zeros((0, n_output), np.float32), *parts])

    def evaluate(
        self,
        adata: AnnData | None = None,
        labels_key: str | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Compare predictions with labels.

        Parameters
        ----------
        adata
            Labelled cells; the reference if not given, and then the cells that were held out for
            validation unless ``indices`` says otherwise.
        labels_key
            Column with the truth; the one of :meth:`setup_anndata` if not given.
        indices, batch_size
            As in :meth:`predict`.

        Returns
        -------
        Precision, recall, F1 and number of cells: a row per label that occurs in the truth, then
        ``macro average``, ``weighted average`` and ``accuracy``.

        Raises
        ------
        KeyError
            If there is no such column.
        ValueError
            If no cell has a label, or as in :meth:`predict`.
        """
        self._require_trained()
        setup = self.registry["setup_args"]
        if adata is None and indices is None:
            indices = self.validation_indices
            if indices is None or not len(indices):
                raise ValueError("No cells were held out; say which cells with `indices=`.")
        query, cells = self._query(adata, indices)
        truth = get_column(query.obs, labels_key or setup["labels_key"], "labels_key").to_numpy()
        labeled = cells[truth[cells] != str(setup["unlabeled_category"])]
        if not len(labeled):
            raise ValueError("There is no labelled cell to evaluate on.")
        return classification_report(
            truth[labeled], self.predict(query, labeled, batch_size=batch_size)
        )

    def _require_trained(self) -> None:
        self._check_if_trained(
            warn=False, message="This model is not trained: call `model.train()` first."
        )

    def _query(
        self, adata: AnnData | None, indices: Sequence[int] | None
    ) -> tuple[AnnData, NDArray[np.intp]]:
        """Resolve which AnnData and which of its cells."""
        adata = self.adata if adata is None else adata
        if adata is None:
            raise ValueError("This model has no AnnData of its own; say which cells: `adata=`.")
        if indices is None:
            return adata, np.arange(adata.n_obs)
        return adata, check_indices(indices, adata.n_obs)

    def _map_cells(
        self,
        function: Callable[[dict[str, Tensor]], T],
        adata: AnnData,
        cells: NDArray[np.intp],
        batch_size: int | None,
    ) -> Iterator[T]:
        """Apply ``function`` to batches of raw counts and conditions on the model's device.

        Holds one block of cells at a time, whatever the number of cells.
        """
        self.module.eval()
        batch_size = batch_size or _BATCH_SIZE
        alignment = align_genes(self.gene_names, adata.var)
        conditions = torch.from_numpy(self._conditions_of(adata)[cells])
        indices = None if len(cells) == adata.n_obs and _is_range(cells) else cells
        block_size = max(READ_BLOCK_CELLS // batch_size, 1) * batch_size
        blocks = read_counts(adata, self.layer, indices, alignment, block_size)
        start, empty = 0, []
        with tqdm(
            total=len(cells),
            desc="Cells",
            unit=" cells",
            disable=len(cells) < _PROGRESS_FROM_N_CELLS,
        ) as progress:
            for block in blocks:
                empty.extend(adata.obs_names[cells[start + empty_cells(block)]])
                for first in range(0, block.shape[0], batch_size):
                    part = slice_rows(block, first, min(first + batch_size, block.shape[0]))
                    known = conditions[start + first : start + first + part.shape[0]]
                    tensors = {
                        REGISTRY_KEYS.X_KEY: to_tensor(part, self.module.device),
                        CONDITIONS_KEY: known.to(self.module.device),
                    }
                    with torch.inference_mode():
                        result = function(tensors)
                    yield result
                    progress.update(part.shape[0])
                start += block.shape[0]
        if empty:
            warnings.warn(
                describe_empty_cells(empty, len(cells)) + " Their labels mean nothing.",
                UserWarning,
                stacklevel=2,
            )

    def _conditions_of(self, adata: AnnData) -> NDArray[np.int64]:
        """Codes of batch and covariates; stop where the model cannot do without."""
        codes = condition_codes(self.conditions, adata.obs)
        if self.module.needs_batch and (codes < 0).any():
            column = self.conditions[int((codes < 0).any(axis=0).argmax())].key
            raise ValueError(
                f"The encoder depends on {column!r}, which is missing or holds values that the "
                "model does not know. Map the cells first: `SCTAB.load_query_data(adata, model)`."
            )
        return codes

    def _logits(self, tensors: dict[str, Tensor]) -> Tensor:
        _, outputs = self.module(tensors, compute_loss=False)
        return outputs["logits"]

    def _probabilities(self, tensors: dict[str, Tensor]) -> NDArray[np.float32]:
        return self._logits(tensors).softmax(dim=1).cpu().numpy()

    def _codes(self, tensors: dict[str, Tensor]) -> NDArray[np.int64]:
        return self._logits(tensors).argmax(dim=1).cpu().numpy()

    def _describe(self, tensors: dict[str, Tensor]) -> NDArray[np.float32]:
        """Columns: code, probability, uncertainty, runner-up; code and probability before."""
        _, outputs = self.module(tensors, compute_loss=False)
        probabilities = outputs["logits"].softmax(dim=1)
        value, code = probabilities.topk(2, dim=1)
        before = outputs["reference_logits"].softmax(dim=1).max(dim=1)
        columns = (
            code[:, 0],
            value[:, 0],
            normalized_entropy(probabilities),
            code[:, 1],
            before.indices,
            before.values,
        )
        return torch.stack([column.float() for column in columns], dim=1).cpu().numpy()

    def _embed(self, tensors: dict[str, Tensor]) -> NDArray[np.float32]:
        if not self.module.needs_batch:
            unknown = torch.full_like(tensors[CONDITIONS_KEY], UNKNOWN_CODE)
            tensors = {**tensors, CONDITIONS_KEY: unknown}
        outputs, _ = self.module(tensors, compute_loss=False)
        return outputs["z"].cpu().numpy()


def _is_range(cells: NDArray[np.intp]) -> bool:
    return bool((cells == np.arange(len(cells))).all())
