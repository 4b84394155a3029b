"""Batches of cells from the datasets of a corpus, read by annbatch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import REGISTRY_KEYS

from scvi_sctab._constants import CONDITIONS_KEY
from scvi_sctab.data._order import check_enough_cells
from scvi_sctab.data.stores._annbatch import import_annbatch
from scvi_sctab.sparse import as_float32, in_order, to_tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scvi_sctab.data._cells import CellDataset

# Consecutive cells that are read together; those of a chunk on disk.
_CHUNK_CELLS = 64
# Cells that are in memory to be shuffled.
_WINDOW_CELLS = 16_384


class CellSampler:
    """Order in which chosen cells of a store are read, a function of seed and epoch.

    It has the interface of :class:`annbatch.abc.Sampler`, and needs no annbatch itself.

    Cells of a chunk on disk are read together. Chunks are shuffled, and the cells of a window of
    some chunks, which is in memory, are shuffled again. With several processes each reads batches
    of its own: those of one step are together the batch of a single process.

    Parameters
    ----------
    cells
        Positions in the store, in increasing order, ``(n_cells,)``.
    batch_size
        Cells per batch.
    training
        Whether to shuffle, and to leave out a last batch that is short unless it is the only one;
        otherwise cells come in their order.
    seed
        Seed of the order.
    start
        Epoch to start in, and number of its batches that are done and not read.
    place
        Number of this process, and of all; those that train together if not given.
    """

    def __init__(
        self,
        cells: NDArray[np.intp],
        batch_size: int,
        *,
        training: bool,
        seed: int,
        start: tuple[int, int] = (0, 0),
        place: tuple[int, int] | None = None,
    ):
        self.cells = cells
        self.batch_size, self.shuffle = batch_size, training
        self.seed, self.epoch, self.start = seed, 0, start
        self.rank, self.n_ranks = place or _place()
        check_enough_cells(len(cells), self.n_ranks, training=training)
        self.drop_last = training and len(cells) > batch_size * self.n_ranks

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; Lightning calls it at its start."""
        self.epoch = epoch

    def n_batches(self, n_obs: int = 0) -> int:
        """Count the batches of an epoch."""
        step = self.batch_size * self.n_ranks
        whole, rest = divmod(len(self.cells), step)
        # A short step is for all processes or for none, as they wait for each other.
        return whole + int(rest >= self.n_ranks and not self.drop_last)

    def sample(self, n_obs: int) -> Iterator[dict[str, Any]]:
        """Yield cells to read together, and the batches among them.

        Parameters
        ----------
        n_obs
            Number of cells of the store.
        """
        epoch = max(self.epoch, self.start[0])
        n_done = self.start[1] if epoch == self.start[0] else 0
        generator = np.random.default_rng([self.seed, epoch])
        order = self._in_chunks(generator) if self.shuffle else self.cells
        step = self.batch_size * self.n_ranks
        window = max(_WINDOW_CELLS // step, 1) * step
        for start in range(0, min(self.n_batches() * step, len(order)), window):
            rows = order[start : start + window]
            if self.shuffle:
                rows = rows[generator.permutation(len(rows))]
            steps = [np.arange(i, min(i + step, len(rows))) for i in range(0, len(rows), step)]
            if self.drop_last:
                steps = [one for one in steps if len(one) == step]
            sorting = np.argsort(rows, kind="stable")
            place = np.empty(len(rows), dtype=np.intp)
            place[sorting] = np.arange(len(rows))
            splits = [place[self._share(one)] for one in steps if len(one) >= self.n_ranks]
            splits = splits[max(n_done - start // step, 0) :]
            if splits:
                # All processes read all cells of a window: it is faster than to skip some.
                yield {"requests": rows[sorting], "splits": splits}

    def _in_chunks(self, generator: np.random.Generator) -> NDArray[np.intp]:
        """Shuffle chunks, and keep the cells of each together."""
        chunk = self.cells // _CHUNK_CELLS
        number = np.cumsum(np.diff(chunk, prepend=chunk[:1]) != 0)
        place = generator.permutation(number[-1] + 1 if len(number) else 0)
        return self.cells[np.argsort(place[number], kind="stable")]

    def _share(self, step: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the cells of a step of this process."""
        return np.array_split(step, self.n_ranks)[self.rank]


class StoreLoader:
    """Batches of cells of a corpus, as :class:`~scvi_sctab.data.CellDataset` has them.

    Parameters
    ----------
    datasets
        Counts of the corpus on disk.
    cells
        Labels and conditions of all its cells.
    indices
        Positions of the cells to load, ``(n_cells,)``.
    batch_size, training, seed, start
        See :class:`CellSampler`.
    pin_memory
        Whether to return page-locked memory.
    """

    def __init__(
        self,
        datasets: Sequence[Any],
        cells: CellDataset,
        *,
        indices: NDArray[np.intp],
        batch_size: int,
        training: bool,
        seed: int = 0,
        start: tuple[int, int] = (0, 0),
        pin_memory: bool = False,
    ):
        annbatch = import_annbatch("StoreLoader")
        self.cells, self.pin_memory = cells, pin_memory
        self.sampler = CellSampler(
            np.sort(indices), batch_size, training=training, seed=seed, start=start
        )
        self.batch_sampler = None  # Lightning asks for it, beside `sampler`
        self.loader = annbatch.Loader(
            batch_sampler=self.sampler, return_index=True, preload_to_gpu=False
        )
        self.loader.add_datasets(list(datasets))

    @property
    def batch_size(self) -> int:
        """Cells per batch."""
        return self.sampler.batch_size

    def __len__(self) -> int:
        return self.sampler.n_batches()

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        batches = iter(self.loader)
        while True:
            try:
                batch = next(batches, None)
            # Readers of zarr raise each of them for a damaged chunk.
            except (OSError, RuntimeError, ValueError) as error:
                raise OSError(
                    f"A block of the corpus cannot be read, it may be damaged: {error}. Copy the "
                    "corpus again from where it was made, or prepare it anew."
                ) from error
            if batch is None:
                return
            yield self._tensors(batch["X"], batch["index"])

    def _tensors(self, counts: Any, index: NDArray[np.intp]) -> dict[str, torch.Tensor]:
        cells = self.cells
        tensors = {
            REGISTRY_KEYS.X_KEY: to_tensor(in_order(as_float32(counts))),
            REGISTRY_KEYS.LABELS_KEY: torch.from_numpy(cells.labels[index, None]),
            CONDITIONS_KEY: torch.from_numpy(cells.conditions[index]),
            **{name: torch.from_numpy(array[index]) for name, array in cells.arrays.items()},
        }
        if self.pin_memory and torch.cuda.is_available():
            tensors = {name: tensor.pin_memory() for name, tensor in tensors.items()}
        return tensors


def _place() -> tuple[int, int]:
    """Return number of this process, and of all that train together."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
