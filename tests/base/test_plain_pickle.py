"""Plain values of pickles are what was saved."""

import pickle

import numpy as np
import pytest

from scvi_sctab.base._plain_pickle import read_plain_pickle


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_containers_and_arrays_are_read_as_they_are(protocol, tmp_path):
    shared = [1, 2.5, "three", None, True]
    saved = {"a": (1, ("b", shared)), "again": shared, 5: {"array": np.arange(6).reshape(2, 3)}}
    (tmp_path / "saved.pkl").write_bytes(pickle.dumps(saved, protocol))
    found = read_plain_pickle(tmp_path / "saved.pkl", {})
    np.testing.assert_array_equal(found[5].pop("array"), saved[5].pop("array"))
    assert found == saved
