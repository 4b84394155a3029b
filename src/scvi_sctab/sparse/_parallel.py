"""Parts of the rows on threads that sleep while they wait.

Threads of our own rather than numba's: its portable threading layer ends the process when two
Python threads enter it at once, and its OpenMP layer does so after a fork. Rather than torch's,
too: threads of OpenMP meet at the end of every operation and spin there. While another program
computes, one of them lacks a core and the others spin until it has had one, for milliseconds, a
thousand times per training step. Here a thread that comes late finds its parts done by the others.
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

# Threads that torch was asked for, on a Python thread on which it runs on one; else not set.
_asked = local()
# Python threads on which it is set, and the number of the first of them.
_n_inside, _asked_first = 0, 1
_n_cpus = cache(available_cpus)
_lock = Lock()
_pool: ThreadPoolExecutor | None = None
_pool_size = 0


def kernel(function: Function) -> Function:
    """Compile ``function`` at its first call; it leaves Python's other threads running."""
    # Sums may be reordered, but NaN and infinity keep their meaning.
    fastmath = {"contract", "reassoc", "nsz", "arcp"}
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
    try:
        return cast("Function", numba.njit(cache=True, **options)(function))
    except RuntimeError:
        # Nowhere to keep it: neither this folder nor the user's can be written to.
        return cast("Function", numba.njit(**options)(function))


def _forget_pool() -> None:
    """Leave the pool of the parent process, whose threads a fork does not copy."""
    global _lock, _pool, _pool_size, _n_inside
    _lock, _pool, _pool_size = Lock(), None, 0
    _n_inside = int(getattr(_asked, "n_threads", None) is not None)
    _n_cpus.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def n_threads() -> int:
    """Return the threads that torch was asked for, but at most one per available CPU."""
    return min(getattr(_asked, "n_threads", None) or torch.get_num_threads(), _n_cpus())


@contextmanager
def sleeping_threads() -> Iterator[None]:
    """Run operations of torch on the calling thread, and :func:`over_parts` on all threads.

    Those that torch was asked for, by :func:`torch.set_num_threads` or ``OMP_NUM_THREADS``, and
    that are put back at the end, unless someone asked for others in the meantime. May be nested.
    """
    global _n_inside, _asked_first
    if getattr(_asked, "n_threads", None) is not None:
        yield
        return
    with _lock:
        before = torch.get_num_threads()
        _asked_first = before if _n_inside == 0 else _asked_first
        _n_inside += 1
    # A Python thread that starts while another is inside would take the 1 of that one for asked.
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
            # A pool that others still use ends by itself once they are done with it.
            _pool = _make_pool(size)
            _pool_size = size
        return _pool


def _make_pool(size: int) -> ThreadPoolExecutor:
    """Start threads on which torch has one thread each."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(size, "scvi_sctab", torch.set_num_threads, (1,))
    meeting = Barrier(size)
    wait([pool.submit(meeting.wait) for _ in range(size)])
    # Theirs alone: torch keeps a number per thread, but threads yet to come take the last one set.
    torch.set_num_threads(before)
    return pool


def over_parts(
    function: Callable[..., Any], n_rows: int, *arguments: Any, min_rows: int = 1
) -> list[Any]:
    """Call ``function(start, stop, *arguments)`` for consecutive parts of ``range(n_rows)``.

    As many parts run at once as :func:`n_threads` says, and operations of torch within a part on
    one thread.

    Parameters
    ----------
    function
        Made by :func:`kernel`, or all of it in operations that let other threads run; parts must
        not write to the same place.
    n_rows
        Number of rows.
    *arguments
        Passed on.
    min_rows
        Smallest part worth a call.

    Returns
    -------
    What the calls returned, in the order of the parts.
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
            except IndexError:  # another thread was faster
                return
            results[part] = function(bounds[part], bounds[part + 1], *arguments)

    helpers: list[Future[None]] = []
    try:
        for _ in range(min(number, n_parts) - 1):
            helpers.append(_get_pool(number - 1).submit(work))
        with sleeping_threads():
            work()
    finally:
        # A helper that is not there yet has nothing left to do, unless this thread failed.
        todo.clear()
        late = [helper for helper in helpers if not helper.cancel()]
        wait(late)
    for helper in late:
        helper.result()
    return results
