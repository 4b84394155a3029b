"""Masks and tables that name their cells are aligned by name."""

import numpy as np
import pandas as pd
import pytest

from scvi_sctab.data import align_cells, check_indices

NAMES = pd.Index([f"c{i}" for i in range(6)])
MASK = np.array([True, False, False, True, True, False])
ORDER = [4, 2, 0, 5, 1, 3]


@pytest.mark.parametrize("dtype", [bool, object, "boolean"])
def test_a_mask_with_names_is_aligned_in_any_order(dtype):
    mask = pd.Series(MASK, NAMES).astype(dtype).iloc[ORDER]
    assert check_indices(mask, 6, NAMES).tolist() == [0, 3, 4]
    more = pd.concat([pd.Series([True], ["elsewhere"]).astype(dtype), mask])
    assert check_indices(more, 6, NAMES).tolist() == [0, 3, 4]


def test_numbered_masks_and_positions_go_by_position():
    assert check_indices(pd.Series(MASK), 6, NAMES).tolist() == [0, 3, 4]
    positions = pd.Series([4, 0], ["c1", "c2"])
    assert check_indices(positions, 6, NAMES).tolist() == [4, 0]
    assert check_indices(pd.Series([5, 1], NAMES[[5, 1]]), 6, NAMES).tolist() == [5, 1]


def test_a_mask_of_some_cells_is_refused_with_a_cure_that_works():
    mask = pd.Series(MASK, NAMES).iloc[[3, 0, 1]]
    with pytest.raises(ValueError, match="3 of 6 cells are not among them: 'c2', 'c4', 'c5'") as e:
        check_indices(mask, 6, NAMES)
    cure = str(e.value).split("`")[-2].removeprefix("indices=")
    adata = type("Cells", (), {"obs_names": NAMES})
    whole = eval(cure, {"indices": mask, "adata": adata})
    assert check_indices(whole, 6, NAMES).tolist() == [0, 3]


def test_a_mask_of_other_cells_is_refused():
    with pytest.raises(ValueError, match="indices have 6 rows of other names, 'x0'.*than the 6"):
        check_indices(pd.Series(MASK, [f"x{i}" for i in range(6)]), 6, NAMES)
    with pytest.raises(ValueError, match="rows of other names, '0'"):
        check_indices(pd.Series(MASK[:4]), 6, NAMES)
    with pytest.raises(ValueError, match="rows of other names, '5'"):
        check_indices(pd.Series(MASK).iloc[::-1], 6, NAMES)


def test_a_mask_with_missing_values_is_refused_with_a_cure_that_works():
    mask = pd.Series(pd.array([True, None, False, True, None, False], dtype="boolean"), NAMES)
    with pytest.raises(ValueError, match="a mask with missing values") as error:
        check_indices(mask, 6, NAMES)
    cure = str(error.value).split("`")[-2].removeprefix("indices=")
    assert check_indices(eval(cure, {"indices": mask}), 6, NAMES).tolist() == [0, 3]


def test_names_of_cells_are_still_asked_to_be_turned_into_positions():
    with pytest.raises(ValueError, match="get_indexer"):
        check_indices(pd.Series(["c1", "c2"]), 6, NAMES)


def test_tables_are_aligned_by_row():
    table = pd.DataFrame({"a": range(6), "b": list("uvwxyz")}, NAMES)
    pd.testing.assert_frame_equal(align_cells(table.iloc[ORDER], NAMES, "scores"), table)
    numbered = table.reset_index(drop=True)
    pd.testing.assert_frame_equal(align_cells(numbered, NAMES, "scores"), table)


def test_cells_that_share_names_keep_the_order_of_rows_that_share_them_too():
    names = pd.Index(["a", "a", "b"])
    values = pd.Series([1, 2, 3], names)
    assert align_cells(values, names, "clusters").tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="clusters name cells more than once, 'a'"):
        align_cells(values.iloc[::-1], names, "clusters")
    assert align_cells(pd.Series({"b": 3, "a": 1}), names, "clusters").tolist() == [1, 1, 3]
