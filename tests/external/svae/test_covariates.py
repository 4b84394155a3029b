"""Numbers that the decoder reads are finite."""

import numpy as np
import pandas as pd
import pytest

from scvi_sctab.external.svae._covariates import numeric_columns


def test_columns_are_read_in_order():
    obs = pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "c": pd.array([1, 0], dtype="Int64")})
    assert numeric_columns(obs, ["b", "a", "c"], "keys").tolist() == [[0.5, 1, 1], [1.5, 2, 0]]


@pytest.mark.parametrize("value", [None, np.nan, np.inf, "x"])
def test_other_values_are_refused_and_their_cell_named(value):
    obs = pd.DataFrame({"age": [1.0, value]}, index=["c0", "c1"], dtype=object)
    with pytest.raises(ValueError, match=r"keys: `adata.obs\['age'\]` has 1 values.*'c1'"):
        numeric_columns(obs, ["age"], "keys")


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_size_factors_are_positive(value):
    with pytest.raises(ValueError, match="not positive"):
        numeric_columns(pd.DataFrame({"s": [1.0, value]}), ["s"], "keys", positive=True)


def test_a_missing_column_is_named():
    with pytest.raises(KeyError, match="keys='age'"):
        numeric_columns(pd.DataFrame({"x": [1]}), ["age"], "keys")
