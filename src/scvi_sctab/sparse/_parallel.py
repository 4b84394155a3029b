"""Parallel loops over parts of the rows, on threads that sleep while they wait.

The threads of numba are not used: its portable threading layer (workqueue) ends the process if two
Python threads enter it at once, and its OpenMP layer does so after a fork. Neither are those of
torch: OpenMP threads meet at the end of every operation and spin there. If another program
computes, one thread waits for a core and the others spin for milliseconds, a thousand times per
training step. Here the other threads take over the parts of a late thread.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from threading import Barrier, Lock, local
from typing import Any, TypeVar, cast

import numba
import torch

from scvi_sctab.sparse._cpus import available_cpus

Function = TypeVar("Function", bound=Callable[..., Any])

_PARTS_PER_THREAD = 4

# Number of threads set for torch before `sleeping_threads`, per Python thread inside of it.
_asked = local()
# Number of Python threads inside `sleeping_threads`, and the value of `_asked` of the first.
_n_inside, _asked_first = 0, 1
_n_cpus = cache(available_cpus)
_lock = Lock()
_pool: ThreadPoolExecutor | None = None
_pool_size = 0


def kernel(function: Function) -> Function:
    """Compile ``function`` by numba at its first call; it releases the GIL."""
    # Sums may be reordered, but NaN and infinity are respected.
    fastmath = {"contract", "reassoc", "nsz", "arcp"}
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
    try:
        return cast("Function", numba.njit(cache=True, **options)(function))
    except RuntimeError:
        # There is no writable folder for numba's cache.
        return cast("Function", numba.njit(**options)(function))


def _forget_pool() -> None:
    """Drop the pool of the parent process after a fork, which does not copy threads."""
    global _lock, _pool, _pool_size, _n_inside
    _lock, _pool, _pool_size = Lock(), None, 0
    _n_inside = int(getattr(_asked, "n_threads", None) is not None)
    _n_cpus.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def n_threads() -> int:
    """Return the number of threads set for torch, but at most one per available CPU."""
    return min(getattr(_asked, "n_threads", None) or torch.get_num_threads(), _n_cpus())


@contextmanager
def sleeping_threads() -> Iterator[None]:
    """Run operations of torch on the calling thread, and :func:`over_parts` on all threads.

    Their number is that set for torch, by :func:`torch.set_num_threads` or ``OMP_NUM_THREADS``. It
    is restored at the end, unless it was changed in the meantime. Contexts may be nested.
    """
    global _n_inside, _asked_first
    if getattr(_asked, "n_threads", None) is not None:
        yield
        return
    with _lock:
        before = torch.get_num_threads()
        _asked_first = before if _n_inside == 0 else _asked_first
        _n_inside += 1
    # A Python thread that starts while another is inside inherits that one's setting of 1.
    before = _asked_first if before == 1 else before
    _asked.n_threads = before
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _asked.n_threads = None
        with _lock:
            _n_inside -= 1
        if torch.get_num_threads() == 1:
            torch.set_num_threads(before)


def _get_pool(size: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    with _lock:
        if _pool is None or _pool_size != size:
            # The old pool ends when other Python threads no longer use it.
            _pool = _make_pool(size)
            _pool_size = size
        return _pool


def _make_pool(size: int) -> ThreadPoolExecutor:
    """Start threads, on each of which torch runs on one thread."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(size, "scvi_sctab", torch.set_num_threads, (1,))
    meeting = Barrier(size)
    wait([pool.submit(meeting.wait) for _ in range(size)])
    # torch stores the number per thread, but threads started later inherit the last one set.
    torch.set_num_threads(before)
    return pool


def over_parts(
    function: Callable[..., Any], n_rows: int, *arguments: Any, min_rows: int = 1
) -> list[Any]:
    """Call ``function(start, stop, *arguments)`` for consecutive parts of ``range(n_rows)``.

    :func:`n_threads` parts run at once; within a part, operations of torch run on one thread.

    Parameters
    ----------
    function
        Compiled by :func:`kernel`, or made of operations that release the GIL; parts must not
        write to the same memory.
    n_rows
        Number of rows.
    *arguments
        Passed to ``function``.
    min_rows
        Smallest part that is worth a call.

    Returns
    -------
    Results of the calls, in the order of the parts.
    """
    number = n_threads()
    n_parts = min(number * _PARTS_PER_THREAD, n_rows // max(min_rows, 1))
    if number == 1 or n_parts < 2:
        return [function(0, n_rows, *arguments)]
    bounds = [n_rows * i // n_parts for i in range(n_parts + 1)]
    results: list[Any] = [None] * n_parts
    todo = deque(range(n_parts))

    def work() -> None:
        while todo:
            try:
                part = todo.popleft()
            except IndexError:  # another thread took the last part
                return
            results[part] = function(bounds[part], bounds[part + 1], *arguments)

    helpers: list[Future[None]] = []
    try:
        for _ in range(min(number, n_parts) - 1):
            helpers.append(_get_pool(number - 1).submit(work))
        with sleeping_threads():
            work()
    finally:
        # Helpers that have not started have no parts left, unless this thread failed.
        todo.clear()
        late = [helper for helper in helpers if not helper.cancel()]
        wait(late)
    for helper in late:
        helper.result()
    return results
