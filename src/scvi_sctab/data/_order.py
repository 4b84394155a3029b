"""Order of training batches that depends on a seed and the epoch, and is split over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Sampler

if TYPE_CHECKING:
    from numpy.typing import NDArray


def check_enough_cells(n_cells: int, n_processes: int, *, training: bool) -> None:
    """Refuse fewer cells than processes need.

    Parameters
    ----------
    n_cells
        Number of cells.
    n_processes
        Number of processes.
    training
        Whether they are trained on; batch norm needs two for each process.

    Raises
    ------
    ValueError
        If there are too few.
    """
    if n_cells < n_processes * (2 if training else 1):
        part = "train on" if training else "hold out"
        raise ValueError(
            f"{n_cells} cells to {part} cannot be divided among {n_processes} devices: take "
            "fewer devices, or another `train_size`."
        )


class BatchOrder(Sampler[list[int]]):
    """Positions of the cells of each batch of one process.

    A batch of all processes has ``batch_size`` cells per process. Processes get different cells of
    it, and have the same number of batches, without which they would wait for each other forever.

    Parameters
    ----------
    n_cells
        Number of cells.
    batch_size
        Cells per batch of one process.
    seed
        Seed of the order, the same in all processes; ``None`` keeps the cells in their order.
    drop_last
        Whether the last cells of an epoch are left out if they do not fill a batch, unless it is
        the only one.
    process, n_processes
        Number of this process, from 0, and of all.
    epoch
        Function that returns the current epoch.
    start
        Epoch, and number of its batches that are done; batches before are not returned.

    Raises
    ------
    ValueError
        If there are too few cells for so many processes.

    Examples
    --------
    >>> order = BatchOrder(6, 2, seed=None, drop_last=True, process=1, n_processes=2)
    >>> [cells.tolist() for cells in order]
    [[2, 3]]
    """

    def __init__(
        self,
        n_cells: int,
        batch_size: int,
        *,
        seed: int | None,
        drop_last: bool,
        process: int = 0,
        n_processes: int = 1,
        epoch: Callable[[], int] = lambda: 0,
        start: tuple[int, int] = (0, 0),
    ):
        check_enough_cells(n_cells, n_processes, training=drop_last)
        self.n_cells, self.seed = n_cells, seed
        self.process, self.n_processes = process, n_processes
        self.epoch, self.start = epoch, start
        together = batch_size * n_processes
        self.n_batches = max(1, n_cells // together if drop_last else ceil(n_cells / together))
        # A short epoch is one batch, of as many cells for each process as for the others.
        self.n_used = min(n_cells, self.n_batches * together) if drop_last else n_cells

    def __len__(self) -> int:
        """Count the batches of a whole epoch."""
        return self.n_batches

    def __iter__(self) -> Iterator[list[int]]:
        """List the batches of the current epoch that are not done."""
        epoch = max(self.epoch(), self.start[0])
        n_done = self.start[1] if epoch == self.start[0] else 0
        # As arrays, since lists of millions of cells take long to make.
        return iter(self.batches(epoch)[n_done:])  # type: ignore[arg-type]

    def batches(self, epoch: int) -> list[NDArray[np.intp]]:
        """List the batches of an epoch.

        Parameters
        ----------
        epoch
            Number of the epoch.
        """
        if self.seed is None:
            order = np.arange(self.n_used)
        else:
            rng = np.random.default_rng([self.seed, epoch])
            order = rng.permutation(self.n_cells)[: self.n_used]
        parts = np.array_split(order, self.n_batches * self.n_processes)
        return parts[self.process :: self.n_processes]
