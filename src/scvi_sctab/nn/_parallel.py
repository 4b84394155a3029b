"""Run compiled kernels on parts of the rows, one thread per part.

Threads of our own rather than numba's: its portable threading layer ends the process when two
Python threads enter it at once, and its OpenMP layer does so after a fork.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock
from typing import Any, TypeVar, cast

import numba
import torch

Function = TypeVar("Function", bound=Callable[..., Any])

_PARTS_PER_THREAD = 4

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
    global _lock, _pool, _pool_size
    _lock, _pool, _pool_size = Lock(), None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _get_pool(size: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    with _lock:
        if _pool is None or _pool_size != size:
            # A pool that others still use ends by itself once they are done with it.
            _pool = ThreadPoolExecutor(size, thread_name_prefix="scvi_sctab")
            _pool_size = size
        return _pool


def over_parts(
    function: Callable[..., Any], n_rows: int, *arguments: Any, min_rows: int = 1
) -> list[Any]:
    """Call ``function(start, stop, *arguments)`` for consecutive parts of ``range(n_rows)``.

    As many parts run at once as torch has threads (:func:`torch.set_num_threads`).

    Parameters
    ----------
    function
        Made by :func:`kernel`, so that its calls run at once; parts must not write to the same
        place.
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
    n_threads = torch.get_num_threads()
    n_parts = min(n_threads * _PARTS_PER_THREAD, n_rows // max(min_rows, 1))
    if n_threads == 1 or n_parts < 2:
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
        for _ in range(n_threads - 1):
            helpers.append(_get_pool(n_threads - 1).submit(work))
        work()
    finally:
        # A helper that is not there yet has nothing left to do, unless this thread failed.
        todo.clear()
        late = [helper for helper in helpers if not helper.cancel()]
        wait(late)
    for helper in late:
        helper.result()
    return results
