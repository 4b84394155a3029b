"""Parts of the rows on several threads."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from scvi_sctab.nn import sleeping_threads
from scvi_sctab.sparse._parallel import kernel, n_threads, over_parts

FORK = """
import os, sys, threading, torch
from scvi_sctab.sparse._parallel import over_parts
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


@pytest.fixture(autouse=True)
def many_cpus(monkeypatch):
    monkeypatch.setattr("scvi_sctab.sparse._parallel._n_cpus", lambda: 8)


@pytest.fixture(params=[1, 2, 3])
def number(request):
    """Threads that the user asked torch for."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("n_rows", [0, 1, 2, 7, 1000])
def test_parts_cover_every_row_once_and_in_order(number, n_rows):
    values = np.arange(n_rows, dtype=float)
    output = np.full(n_rows, np.nan)
    bounds = over_parts(add_one, n_rows, values, output)
    np.testing.assert_array_equal(output, values + 1)
    assert [start for start, _ in bounds] == [0] + [stop for _, stop in bounds[:-1]]
    assert bounds[-1][1] == n_rows
    assert (len(bounds) == 1) == (number == 1 or n_rows < 2)


def test_work_too_small_for_a_thread_is_not_split(number):
    assert over_parts(add_one, 100, np.zeros(100), np.zeros(100), min_rows=80) == [(0, 100)]


def test_parts_run_on_as_many_threads_as_torch_was_asked_for(number):
    meeting = threading.Barrier(number, timeout=20)
    names = over_parts(lambda *_: (meeting.wait(), threading.current_thread().name)[1], number * 4)
    assert len(set(names)) == number


def test_an_error_in_a_part_is_raised(number):
    def fail(start, stop):
        raise MemoryError(f"rows {start} to {stop}")

    with pytest.raises(MemoryError, match="rows"):
        over_parts(fail, 100)


def test_an_error_on_another_thread_is_raised_here(two_threads):
    meeting = threading.Barrier(2, timeout=20)

    def fail_elsewhere(start, stop):
        meeting.wait()
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError("elsewhere")

    # Two parts, so that either thread gets one.
    with pytest.raises(MemoryError, match="elsewhere"):
        over_parts(fail_elsewhere, 100, min_rows=50)
    assert torch.get_num_threads() == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_process_has_threads_of_its_own():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], timeout=120, check=False)
    assert done.returncode == 0


def threads_of_torch_in_parts():
    """Name of the thread and number of torch's threads in it, part by part."""
    meeting = threading.Barrier(2, timeout=20)

    def look(start, stop):
        meeting.wait()
        return threading.current_thread().name, torch.get_num_threads()

    return over_parts(look, 100, min_rows=50)


def test_torch_has_one_thread_within_a_part(two_threads):
    names, numbers = zip(*threads_of_torch_in_parts(), strict=True)
    assert len(set(names)) == 2
    assert numbers == (1, 1)
    assert torch.get_num_threads() == 2


def test_while_threads_sleep_torch_has_one_and_kernels_have_all(number):
    with sleeping_threads():
        assert torch.get_num_threads() == 1
        assert n_threads() == number
    assert torch.get_num_threads() == n_threads() == number


def test_the_number_of_threads_is_put_back_once_and_after_an_error(number):
    def fail():
        with sleeping_threads():
            pass
        assert torch.get_num_threads() == 1
        assert n_threads() == number
        raise KeyError("an error")

    with pytest.raises(KeyError, match="an error"), sleeping_threads():
        fail()
    assert torch.get_num_threads() == number


def test_a_number_of_threads_that_is_asked_for_in_the_meantime_stays(two_threads):
    with sleeping_threads():
        torch.set_num_threads(3)
    assert torch.get_num_threads() == 3


def test_python_threads_that_overlap_each_get_their_number_back(two_threads):
    entered, left, found = threading.Event(), threading.Event(), []

    def other():
        with sleeping_threads():
            entered.set()
            assert left.wait(20)
        found.append(torch.get_num_threads())

    thread = threading.Thread(target=other)
    with sleeping_threads():
        thread.start()
        assert entered.wait(20)
    assert torch.get_num_threads() == 2
    left.set()
    thread.join()
    assert found == [2]
    assert torch.get_num_threads() == 2


def test_a_thread_that_starts_after_our_own_has_the_number_of_the_user(two_threads):
    threads_of_torch_in_parts()
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert found == [2]


def test_no_more_threads_than_cpus(two_threads, monkeypatch):
    monkeypatch.setattr("scvi_sctab.sparse._parallel._n_cpus", lambda: 1)
    assert n_threads() == 1
    assert over_parts(add_one, 100, np.zeros(100), np.zeros(100)) == [(0, 100)]
