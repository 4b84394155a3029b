"""Blocks of cells are read while the block before is worked on."""

import threading

import pytest

from scvi_sctab.base._cells import _read_ahead


def test_items_come_in_their_order():
    assert list(_read_ahead(iter(range(5)))) == [0, 1, 2, 3, 4]
    assert list(_read_ahead(iter([]))) == []


def test_the_next_item_is_made_while_this_one_is_in_use():
    second = threading.Event()

    def items():
        yield 1
        second.set()
        yield 2

    ahead = _read_ahead(items())
    assert next(ahead) == 1
    assert second.wait(timeout=10)
    assert list(ahead) == [2]


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        raise OSError("the disk is gone")

    ahead = _read_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(ahead)


def test_whoever_stops_early_leaves_no_thread_behind():
    ahead = _read_ahead(iter(range(100)))
    next(ahead)
    ahead.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("read-ahead")]
