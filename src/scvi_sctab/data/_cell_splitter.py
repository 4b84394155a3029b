"""Data modules that load cells for the trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
import torch
from scvi import REGISTRY_KEYS, settings
from scvi.dataloaders import AnnDataLoader
from torch.utils.data import DataLoader

from scvi_sctab.data._cells import CellDataset
from scvi_sctab.data._order import BatchOrder
from scvi_sctab.sparse import storable

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scvi.data import AnnDataManager


class CellSplitter(pl.LightningDataModule):
    """Data module of training and held-out cells.

    A minibatch has raw counts as a CSR tensor ``(n_cells, n_genes)``, float32, with increasing
    columns in every row, and codes of labels ``(n_cells, 1)`` and of batch and covariates
    ``(n_cells, n_conditions)``.

    Parameters
    ----------
    cells
        All cells.
    parts
        Positions for training, validation and test.
    batch_size
        Cells per batch.
    loader
        Function that makes a loader of cells on disk, with the arguments of
        :class:`~scvi_sctab.data.stores.StoreLoader`; otherwise cells are read one by one.
    pin_memory
        Whether to return page-locked memory.
    **loader_kwargs
        Passed to the loader.

    Attributes
    ----------
    order_seed
        Seed of the order of training batches, which with the epoch determines it. ``None`` takes
        the order from the random state of torch, or, with several processes, a seed from it.
    start
        Epoch to start in, and number of its batches that are done.

    Raises
    ------
    TypeError
        If ``loader_kwargs`` are given for cells on disk, which have no worker processes.
    ValueError
        If there are fewer than two training cells, or fewer than two cells per batch.
    """

    def __init__(
        self,
        cells: CellDataset,
        parts: list[NDArray[np.intp]],
        *,
        batch_size: int,
        loader: Callable[..., Iterable[dict[str, torch.Tensor]]] | None = None,
        pin_memory: bool = False,
        **loader_kwargs: Any,
    ):
        super().__init__()
        if loader is not None and loader_kwargs:
            raise TypeError(
                f"{', '.join(loader_kwargs)}: cells of a corpus are read by threads, not by a "
                "torch DataLoader. Leave these arguments out."
            )
        self.cells, self.loader = cells, loader
        self.train_idx, self.val_idx, self.test_idx = parts
        if len(self.train_idx) < 2 or batch_size < 2:
            raise ValueError(
                f"Batch norm needs two cells per step: {len(self.train_idx)=}, {batch_size=}."
            )
        self.n_train, self.n_val = len(self.train_idx), len(self.val_idx)
        self.batch_size = batch_size
        self.loader_kwargs = {"pin_memory": pin_memory, **loader_kwargs}
        self.order_seed: int | None = None
        self.start = (0, 0)

    def _loader(self, indices: NDArray[np.intp], *, training: bool) -> Any:
        trainer = self.trainer
        if self.loader is not None:
            return self.loader(
                self.cells,
                indices=indices,
                batch_size=self.batch_size,
                training=training,
                # Without a trainer, batches are only counted.
                seed=0 if trainer is None else self._seed_of_order(trainer),
                start=self.start if training else (0, 0),
                **self.loader_kwargs,
            )
        if trainer is not None and (trainer.world_size > 1 or self.order_seed is not None):
            return self._ordered_loader(trainer, indices, training=training)
        return AnnDataLoader(
            self.cells,
            indices=indices,
            batch_size=self.batch_size,
            shuffle=training,
            # NOTE[DIFF] scTab always drops a short last batch. Its batch-norm statistics are
            # noisy, and the next epoch shuffles its cells into other batches.
            drop_last=training and len(indices) > self.batch_size,
            **self.loader_kwargs,
        )

    def _seed_of_order(self, trainer: pl.Trainer) -> int:
        """Return the seed of the order, which is the same in all processes."""
        if self.order_seed is None:
            # Every process has a random state of its own.
            drawn = int(torch.randint(2**31, ()))
            self.order_seed = int(trainer.strategy.broadcast(drawn))
        return self.order_seed

    def _ordered_loader(
        self, trainer: pl.Trainer, indices: NDArray[np.intp], *, training: bool
    ) -> DataLoader[Any]:
        """Return the batches of this process, those of training in a seeded order."""
        seed = self._seed_of_order(trainer)
        order = BatchOrder(
            len(indices),
            self.batch_size,
            seed=seed if training else None,
            drop_last=training,
            process=trainer.global_rank,
            n_processes=trainer.world_size,
            epoch=lambda: trainer.current_epoch,
            start=self.start if training else (0, 0),
        )
        workers = {
            "num_workers": settings.dl_num_workers,
            "persistent_workers": settings.dl_persistent_workers,
        }
        cells = self.cells.create_torch_dataset(indices)
        return DataLoader(
            cells, sampler=order, batch_size=None, **{**workers, **self.loader_kwargs}
        )

    def train_dataloader(self) -> Any:
        """Return shuffled batches of the training cells."""
        return self._loader(self.train_idx, training=True)

    def on_before_batch_transfer(
        self, batch: dict[str, torch.Tensor], dataloader_idx: int
    ) -> dict[str, torch.Tensor]:
        """Make a batch dense for a device that has no sparse tensors."""
        device = self.trainer.strategy.root_device  # type: ignore[union-attr]
        counts = storable(batch[REGISTRY_KEYS.X_KEY], device)
        return {**batch, REGISTRY_KEYS.X_KEY: counts}

    def val_dataloader(self) -> Any:
        """Return batches of the validation cells; ``None`` if there are none."""
        return self._loader(self.val_idx, training=False) if self.n_val else None


class UnlabeledDataSplitter(CellSplitter):
    """Data module that splits the cells of a registered AnnData at random, without labels.

    Parameters
    ----------
    adata_manager
        Manager of the registered AnnData.
    train_size
        Share of cells for training; the others validate.
    batch_size
        Cells per batch.
    seed
        Seed of the split.
    among
        Positions of the cells to split; all if not given.
    arrays, dense
        See :class:`CellDataset`.
    **loader_kwargs
        Passed to :class:`CellSplitter`.

    Raises
    ------
    ValueError
        If ``train_size`` is not in (0, 1].
    """

    def __init__(
        self,
        adata_manager: AnnDataManager,
        *,
        train_size: float,
        batch_size: int,
        seed: int = 0,
        among: NDArray[np.intp] | None = None,
        arrays: Mapping[str, NDArray[Any]] | None = None,
        dense: bool = False,
        **loader_kwargs: Any,
    ):
        if not 0 < train_size <= 1:
            raise ValueError(f"{train_size=} is not in (0, 1].")
        n_cells = adata_manager.adata.n_obs
        among = np.arange(n_cells) if among is None else among
        order = np.random.default_rng(seed).permutation(among)
        n_train = int(np.ceil(train_size * len(among)))
        parts = [order[:n_train], order[n_train:], order[:0]]
        labels = np.zeros(n_cells, dtype=np.int64)
        cells = CellDataset.from_manager(adata_manager, labels, arrays, dense)
        super().__init__(cells, parts, batch_size=batch_size, **loader_kwargs)
