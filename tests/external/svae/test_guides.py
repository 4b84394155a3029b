"""Perturbations of cells are read by name, from a column or a boolean matrix."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from scvi_sctab.external.svae._guides import (
    Guides,
    UnknownPerturbationError,
    check_guides,
    distinct,
    encode_guides,
)

COLUMN = Guides("guide", None, "ctrl", "+")
MATRIX = Guides(None, "guides", "ctrl", None)


def cells(values):
    obs = pd.DataFrame({"guide": values}, index=[f"c{i}" for i in range(len(values))])
    return AnnData(np.ones((len(values), 2), np.float32), obs)


def test_names_are_split_and_the_control_is_no_part():
    read = COLUMN.read(cells(["A", "ctrl", "B+A", "ctrl + A", "A+A"]))
    assert read == [["A"], [], ["B", "A"], ["A"], ["A"]]


def test_without_a_separator_names_are_not_split():
    assert Guides("guide", None, None, None).read(cells(["A+B"])) == [["A+B"]]


def test_categories_without_cells_are_no_perturbations():
    values = pd.Categorical(["A", "A"], categories=["A", "unused"])
    assert distinct(COLUMN.read(cells(values))) == ["A"]


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix, pd.DataFrame])
def test_a_boolean_matrix_lists_the_perturbations_of_each_cell(make):
    adata = cells(["x", "y", "z"])
    values = pd.DataFrame([[1, 0], [1, 1], [0, 0]], adata.obs_names, ["0", "1"])
    adata.obsm["guides"] = make(values) if make is not pd.DataFrame else values.astype(bool)
    assert MATRIX.read(adata) == [["0"], ["0", "1"], []]


def test_a_column_of_the_control_is_no_perturbation():
    adata = cells(["x", "y"])
    adata.obsm["guides"] = pd.DataFrame(
        {"ctrl": [True, False], "A": [False, True]}, adata.obs_names
    )
    assert MATRIX.read(adata) == [[], ["A"]]


def test_codes_are_filled_up():
    codes = encode_guides([["B"], [], ["A", "B"]], ["A", "B"], "here")
    assert codes.tolist() == [[1, -1], [-1, -1], [0, 1]]


def test_an_unknown_perturbation_is_named_with_the_nearest():
    with pytest.raises(UnknownPerturbationError, match=r"'IRF2' \(near 'IRF1'\).*adapt"):
        encode_guides([["IRF2"]], ["IRF1", "STAT1"], "here")


@pytest.mark.parametrize("value", [None, np.nan])
def test_missing_values_are_refused(value):
    with pytest.raises(ValueError, match="perturbation_key='guide' has 1 missing values"):
        COLUMN.read(cells(["A", value]))


def test_a_missing_column_is_named():
    with pytest.raises(KeyError, match="perturbation_key='guide'"):
        COLUMN.read(AnnData(np.ones((2, 2), np.float32)))


def test_a_missing_matrix_is_named():
    with pytest.raises(KeyError, match="perturbation_obsm_key='guides'"):
        MATRIX.read(cells(["A"]))


@pytest.mark.parametrize("values", [[[2.0]], [[np.nan]], [[0.5]]])
def test_a_matrix_that_is_not_boolean_is_refused(values):
    adata = cells(["A"])
    adata.obsm["guides"] = np.array(values)
    with pytest.raises(ValueError, match=r"obsm\['guides'\]` is not boolean"):
        MATRIX.read(adata)


def test_an_empty_part_is_refused():
    with pytest.raises(ValueError, match=r"'A\+' has an empty part"):
        COLUMN.read(cells(["A+"]))


def check(values, where=COLUMN):
    adata = cells(values)
    check_guides(where.read(adata), where, adata.obs_names, min_cells=2)


def test_only_controls_are_refused():
    with pytest.raises(ValueError, match="all 3 cells are controls"):
        check(["ctrl"] * 3)


def test_an_unknown_control_is_refused_and_the_nearest_is_named():
    where = Guides("guide", None, "Ctrl", "+")
    with pytest.raises(ValueError, match=r"control_category='Ctrl' is not in .* \(near 'ctrl'\)"):
        check(["A", "A", "ctrl", "ctrl"], where)


def test_a_control_that_no_row_of_a_matrix_has_is_refused():
    cells = AnnData(np.ones((4, 2)))
    cells.obsm["guides"] = pd.DataFrame(
        np.tile(np.eye(2, dtype=bool), (2, 1)), cells.obs_names, ["A", "NT"]
    )
    where = Guides(None, "guides", "non-targeting", None)
    with pytest.raises(ValueError, match="control_category='non-targeting' is not in"):
        check_guides(where.read(cells), where, cells.obs_names, min_cells=2)


def test_the_line_to_drop_rare_perturbations_of_a_matrix_keeps_the_others():
    cells = AnnData(np.ones((3, 2)))
    cells.obsm["guides"] = pd.DataFrame(
        [[True, False], [True, False], [False, True]], cells.obs_names, ["A", "B"]
    )
    where = Guides(None, "guides", None, None)
    with pytest.raises(ValueError, match="fewer than 2 cells") as error:
        check_guides(where.read(cells), where, cells.obs_names, min_cells=2)
    line = str(error.value).split("`")[-2].removeprefix("adata = ")
    assert [*eval(line, {"adata": cells}).obs_names] == ["0", "1"]


def test_a_perturbation_with_one_cell_is_refused_and_the_cell_is_named():
    with pytest.raises(ValueError, match="'B' have fewer than 2 cells.*'c2'"):
        check(["A", "A", "B", "ctrl"])


def test_cells_of_combinations_count_for_their_parts():
    check(["A", "A+B", "B", "ctrl"])
