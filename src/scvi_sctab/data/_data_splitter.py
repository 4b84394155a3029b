"""Hand labelled cells to the trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS
from scvi.dataloaders import AnnDataLoader

from scvi_sctab._constants import DONOR_KEY
from scvi_sctab.data._cells import CellDataset
from scvi_sctab.data._csr import storable
from scvi_sctab.data._indices import check_indices
from scvi_sctab.data._splits import split_cells

if TYPE_CHECKING:
    from scvi.data import AnnDataManager


class LabeledDataSplitter(pl.LightningDataModule):
    """Split the labelled cells of a registered AnnData and load them in batches.

    A batch holds raw counts as a CSR tensor ``(n_cells, n_genes)``, float32, with increasing
    columns in every row, and codes of labels ``(n_cells, 1)`` and of batch and covariates
    ``(n_cells, n_conditions)``.

    Cells without a label carry nothing that a classifier alone could learn from; they are in no
    split.

    Parameters
    ----------
    adata_manager
        Manager of the registered AnnData.
    n_labels
        Number of labels; cells with this code or a larger one are unlabelled.
    train_size
        Share of labelled cells for training.
    validation_size
        Share for validation; what training leaves if not given.
    batch_size
        Cells per batch.
    external_indexing
        Positions for training, validation and test instead of a split drawn here.
    shuffle_set_split
        Whether cells or donors are held out at random; otherwise the last cells of each label.
    seed
        Seed of the split.
    pin_memory
        Whether to hand over page-locked memory.
    require_labels
        Whether some of the cells to train on must have a label.
    **loader_kwargs
        Passed to :class:`~scvi.dataloaders.AnnDataLoader`.

    Raises
    ------
    ValueError
        If the sizes do not fit, or ``external_indexing`` lists no training cells or a cell twice.
    """

    def __init__(
        self,
        adata_manager: AnnDataManager,
        n_labels: int,
        *,
        train_size: float,
        validation_size: float | None = None,
        batch_size: int = 256,
        external_indexing: list[NDArray[np.intp]] | None = None,
        shuffle_set_split: bool = True,
        seed: int = 0,
        pin_memory: bool = False,
        require_labels: bool = True,
        **loader_kwargs: object,
    ):
        super().__init__()
        self.adata_manager = adata_manager
        self.batch_size = batch_size
        self.loader_kwargs = {"pin_memory": pin_memory, **loader_kwargs}
        self.labels = self._codes(REGISTRY_KEYS.LABELS_KEY)
        if external_indexing is not None:
            parts = _check_indexing(external_indexing, len(self.labels))
        else:
            labelled = np.flatnonzero(self.labels < n_labels)
            if not len(labelled):
                raise ValueError("No cell of this AnnData has a label that the model knows.")
            donors = self.donors
            parts = [
                labelled[positions]
                for positions in split_cells(
                    self.labels[labelled],
                    None if donors is None else donors[labelled],
                    train_size,
                    validation_size,
                    seed,
                    shuffle=shuffle_set_split,
                )
            ]
        self.train_idx, self.val_idx, self.test_idx = parts
        if require_labels and not (self.labels[self.train_idx] < n_labels).any():
            raise ValueError("None of the cells to train on has a label.")
        if len(self.train_idx) < 2 or batch_size < 2:
            raise ValueError(
                f"Batch norm needs two cells per step: {len(self.train_idx)=}, {batch_size=}."
            )
        self.n_train, self.n_val = len(self.train_idx), len(self.val_idx)
        # Labels that training writes reach the processes that load cells, too.
        labels = torch.from_numpy(self.labels.copy()).share_memory_().numpy()
        self.cells = CellDataset.from_manager(adata_manager, labels)

    @property
    def donors(self) -> NDArray[np.int64] | None:
        """Donor of every cell as a code, or ``None`` without a donor key."""
        return self._codes(DONOR_KEY) if DONOR_KEY in self.adata_manager.data_registry else None

    def _codes(self, key: str) -> NDArray[np.int64]:
        return np.asarray(self.adata_manager.get_from_registry(key)).ravel().astype(np.int64)

    def _loader(self, indices: NDArray[np.intp], *, training: bool) -> AnnDataLoader:
        return AnnDataLoader(
            self.cells,
            indices=indices,
            batch_size=self.batch_size,
            shuffle=training,
            # NOTE[DIFF] scTab drops it always. A short last batch makes poor batch-norm statistics; the next epoch draws others.
            drop_last=training and len(indices) > self.batch_size,
            **self.loader_kwargs,
        )

    def train_dataloader(self) -> AnnDataLoader:
        """Shuffled batches of the training cells."""
        return self._loader(self.train_idx, training=True)

    def on_before_batch_transfer(
        self, batch: dict[str, torch.Tensor], dataloader_idx: int
    ) -> dict[str, torch.Tensor]:
        """Make a batch dense for a device that knows no sparse tensors."""
        device = self.trainer.strategy.root_device  # type: ignore[union-attr]
        counts = storable(batch[REGISTRY_KEYS.X_KEY], device)
        return {**batch, REGISTRY_KEYS.X_KEY: counts}

    def val_dataloader(self) -> AnnDataLoader | None:
        """Batches of the validation cells."""
        return self._loader(self.val_idx, training=False) if self.n_val else None


def _check_indexing(indexing: list[NDArray[np.intp]], n_cells: int) -> list[NDArray[np.intp]]:
    parts = [check_indices([] if part is None else part, n_cells) for part in indexing]
    parts += [np.zeros(0, dtype=np.intp)] * (3 - len(parts))
    together = np.concatenate(parts)
    if len(parts) > 3 or not len(parts[0]):
        raise ValueError("external_indexing is [train, validation, test] with cells to train on.")
    if len(np.unique(together)) < len(together):
        raise ValueError("external_indexing lists a cell more than once.")
    return parts
