"""Parts of the rows on several threads."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from scvi_sctab.nn._parallel import kernel, over_parts

FORK = """
import os, sys, threading, torch
from scvi_sctab.nn._parallel import over_parts
torch.set_num_threads(2)

def names():
    meeting = threading.Barrier(2, timeout=20)  # passed only if two threads are at work
    return over_parts(lambda *_: (meeting.wait(), threading.current_thread().name)[1], 8)

assert len(set(names())) == 2
child = os.fork()
if child == 0:
    try:
        os._exit(0 if len(set(names())) == 2 else 3)
    finally:
        os._exit(4)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@kernel
def add_one(start, stop, values, output):
    for i in range(start, stop):
        output[i] = values[i] + 1
    return start, stop


@pytest.fixture(params=[1, 2, 3])
def n_threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("n_rows", [0, 1, 2, 7, 1000])
def test_parts_cover_every_row_once_and_in_order(n_threads, n_rows):
    values = np.arange(n_rows, dtype=float)
    output = np.full(n_rows, np.nan)
    bounds = over_parts(add_one, n_rows, values, output)
    np.testing.assert_array_equal(output, values + 1)
    assert [start for start, _ in bounds] == [0] + [stop for _, stop in bounds[:-1]]
    assert bounds[-1][1] == n_rows
    assert (len(bounds) == 1) == (n_threads == 1 or n_rows < 2)


def test_work_too_small_for_a_thread_is_not_split(n_threads):
    assert over_parts(add_one, 100, np.zeros(100), np.zeros(100), min_rows=80) == [(0, 100)]


def test_parts_run_on_as_many_threads_as_torch_has(n_threads):
    meeting = threading.Barrier(n_threads, timeout=20)
    names = over_parts(
        lambda *_: (meeting.wait(), threading.current_thread().name)[1], n_threads * 4
    )
    assert len(set(names)) == n_threads


def test_an_error_in_a_part_is_raised(n_threads):
    def fail(start, stop):
        raise MemoryError(f"rows {start} to {stop}")

    with pytest.raises(MemoryError, match="rows"):
        over_parts(fail, 100)


def test_an_error_on_another_thread_is_raised_here():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    meeting = threading.Barrier(2, timeout=20)

    def fail_elsewhere(start, stop):
        meeting.wait()
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError("elsewhere")

    try:
        # Two parts, so that either thread gets one.
        with pytest.raises(MemoryError, match="elsewhere"):
            over_parts(fail_elsewhere, 100, min_rows=50)
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_process_has_threads_of_its_own():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], timeout=120, check=False)
    assert done.returncode == 0
