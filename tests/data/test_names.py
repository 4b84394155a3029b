"""A value has one name, whatever type its column has."""

import datetime
import decimal
import enum

import numpy as np
import pandas as pd
import pytest

from scvi_sctab.data import canonical, check_key, get_column, name_as_known, name_values
from scvi_sctab.data._conditions import Condition, condition_codes, describe_unknown
from scvi_sctab.data._names import codes_among, fold, near_name
from scvi_sctab.data._obs import reads_as_none, warn_about_spelling

SAME = {
    "2": [2, 2.0, "2", np.int8(2), np.float32(2), decimal.Decimal("2.00")],
    "0.1": [0.1, np.float32(0.1), float(np.float32(0.1)), decimal.Decimal("0.1"), np.float16(0.1)],
    "True": [True, np.bool_(True), "True"],
    "run1": ["run1", b"run1", np.bytes_(b"run1"), np.str_("run1")],
    "2024-03-01": [
        datetime.date(2024, 3, 1),
        datetime.datetime(2024, 3, 1),
        pd.Timestamp("2024-03-01"),
        np.datetime64("2024-03-01"),
        pd.Period("2024-03-01", freq="D"),
    ],
    "2024-03-01 12:30:00": [pd.Timestamp("2024-03-01 12:30"), "2024-03-01 12:30:00"],
    "2 days": [datetime.timedelta(2), np.timedelta64(2, "D"), pd.Timedelta("2 days")],
    "(18, 40]": [pd.Interval(18, 40), pd.Interval(18.0, 40.0)],
    "[0.5, 2)": [pd.Interval(0.5, 2.0, closed="left")],
    "(2024-03-01, 2024-04-01]": [
        pd.Interval(pd.Timestamp("2024-03-01"), pd.Timestamp("2024-04-01"))
    ],
    "1000000000000000000000000000000": [decimal.Decimal(10**30)],
    "1.5e-300": [1.5e-300],
    "-0.25": [-0.25, np.float32(-0.25)],
    "inf": [np.inf],
}


@pytest.mark.parametrize("name", SAME)
def test_values_that_mean_the_same_have_one_name(name):
    assert {canonical(value) for value in SAME[name]} == {name}


def test_a_member_of_an_enumeration_of_strings_is_its_string():
    Assay = enum.Enum("Assay", {"V3": "10x v3"}, type=str)

    assert canonical(Assay.V3) == "10x v3"


COLUMNS = {
    "int": [1, 2, 10],
    "float32": np.array([0.1, 0.5, 2], dtype="float32"),
    "float16": np.array([0.1, 0.5, 2], dtype="float16"),
    "bool": [True, False, True],
    "Int64": pd.array([1, 2, 10], dtype="Int64"),
    "string": pd.array(["a", "b", "c"], dtype="string"),
    "category": pd.Categorical(["b", "a", "b"], ["c", "b", "a"]),
    "datetime": pd.to_datetime(["2024-03-01", "2024-04-01", "2024-03-01"]),
    "intervals": pd.cut([1, 50, 90], [0, 40, 100]),
    "bytes": [b"x", b"y", b"x"],
    "dates": [datetime.date(2024, 3, 1), datetime.date(2023, 3, 1), datetime.date(2022, 3, 1)],
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_names_of_a_column_are_those_of_its_values(kind):
    values = pd.Series(COLUMNS[kind])
    named = name_values(values)
    expected = [canonical(value) for value in np.asarray(COLUMNS[kind])]
    assert list(named) == expected
    assert set(named.categories) == set(expected)


def test_categories_are_in_the_order_of_values_and_have_cells():
    assert list(name_values(pd.Series([10, 9, 10])).categories) == ["9", "10"]
    ordered = pd.Series(pd.Categorical(["low", "high"], ["none", "low", "high"]))
    assert list(name_values(ordered).categories) == ["low", "high"]


def test_true_and_one_are_two_values():
    values = pd.Series([True, 1, "x", None, 1.0], dtype=object)
    assert list(name_values(values).astype(object))[:3] == ["True", "1", "x"]
    assert list(name_values(values).codes) == [1, 0, 2, -1, 0]


def test_a_column_without_values_has_no_names():
    named = name_values(pd.Series([np.nan, np.nan]))
    assert list(named.codes) == [-1, -1]
    assert len(name_values(pd.Series([], dtype=object)).categories) == 0


def test_strings_that_were_made_of_numbers_or_times_are_found_under_either_name():
    of_floats = name_values(pd.Series([1.0, 2.0, np.nan]))
    assert codes_among(of_floats, ["1.0", "2.0", "missing"]).tolist() == [0, 1, -1]
    of_strings = name_values(pd.Series(["1.0", "3.10", "2024-03-01 00:00:00"]))
    assert codes_among(of_strings, ["1", "3.1", "2024-03-01"]).tolist() == [0, -1, 2]
    of_intervals = name_values(pd.Series(["(0.0, 40.0]", "(40.0, 90.5]"]))
    assert codes_among(of_intervals, ["(40, 90.5]", "(0, 40]"]).tolist() == [1, 0]
    # Two names of the registry that could be meant: none is.
    assert codes_among(name_values(pd.Series([1.0, 2])), ["1.0", "1.00", "2"]).tolist() == [-1, 2]
    # A name that is there as it is comes first.
    assert codes_among(name_values(pd.Series(["1.0", "1"])), ["1", "1.0"]).tolist() == [1, 0]
    assert list(name_as_known(of_strings, ["1"])) == ["1", "3.10", "2024-03-01 00:00:00"]


def test_codes_of_a_registry_with_a_name_twice_are_the_first():
    assert codes_among(name_values(pd.Series(["a"])), ["b", "a", "a"]).tolist() == [1]


PAIRS = {
    "int and str": [1, "1"],
    "bool and str": [True, "True"],
    "bytes and str": [b"a", "a"],
    "date and str": [datetime.date(2024, 3, 1), "2024-03-01"],
    "decimal and str": [decimal.Decimal(2), "2"],
    "float and str": [2.0, "2"],
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("dtype", [object, "category"])
def test_different_values_of_one_name_are_shown_with_a_cure_that_works(pair, dtype):
    obs = pd.DataFrame({"lane": pd.Series(PAIRS[pair] * 2, dtype=object).astype(dtype)})
    first, second = PAIRS[pair]
    with pytest.raises(ValueError, match="batch_key='lane' holds different values of") as error:
        get_column(obs, "lane", "batch_key")
    assert repr(first) in str(error.value)
    assert repr(second) in str(error.value)
    apply_cure(error, obs)
    assert get_column(obs, "lane", "batch_key").notna().all()


def apply_cure(error, obs):
    cure = str(error.value).split("`")[-2]
    assert cure.endswith(".astype(str)")

    class Cells:
        pass

    Cells.obs = obs
    exec(cure, {"adata": Cells})


@pytest.mark.parametrize("value", [["a"], ("a",), {"a": 1}, object(), 1j, datetime.time(3)])
def test_values_without_a_name_are_refused_with_a_cure_that_works(value):
    obs = pd.DataFrame({"lane": pd.Series([value, value], dtype=object)})
    with pytest.raises(ValueError, match="donor_key='lane' holds values of type") as error:
        get_column(obs, "lane", "donor_key")
    apply_cure(error, obs)
    assert get_column(obs, "lane", "donor_key").nunique() == 1


def test_values_of_several_types_that_keep_their_names_apart_are_fine():
    values = [1, "a", 2.5, True, datetime.date(2024, 3, 1)]
    obs = pd.DataFrame({"lane": pd.Series(values, dtype=object)})
    expected = ["1", "a", "2.5", "True", "2024-03-01"]
    assert get_column(obs, "lane", "batch_key").tolist() == expected


@pytest.mark.parametrize(
    "label",
    [
        *("nan", "<NA>", "null", "NULL", "#N/A", "#N/A N/A", "NaT", "None", "-1.#IND", "1.#QNAN"),
        *("Unclassified", "undefined", "not assigned", "not_assigned", "Undetermined", "?", "-"),
        *(" ", "Not available", "Un-annotated", "(unknown)", "N.A.", "unknown cell type"),
    ],
)
def test_labels_that_say_there_is_none_are_recognised(label):
    assert reads_as_none(label)


@pytest.mark.parametrize("label", ["NK", "None-T cell", "Na+ cell", "naive B", "nant", "Tnull1"])
def test_labels_of_types_are_not_taken_for_none(label):
    assert not reads_as_none(label)


def test_case_spaces_and_unicode_form_are_what_names_are_folded_by():
    forms = ["γδ T", "ΓΔ t", "γδ\u00a0T ", "γδT", "γδ\u200bT"]
    assert len({fold(form) for form in forms}) == 1
    assert fold("ﬁbroblast") == fold("Fibroblast")
    assert fold("CD4 T") != fold("CD8 T")
    assert fold("CD4-T") != fold("CD4 T")


def test_the_rarer_spellings_are_named_with_counts_and_the_line_to_type():
    names = pd.Series(["B"] * 5 + ["B "] * 2 + ["b"] + ["T"] * 3)
    match = r"'B' \(5 cells\) and 'B ' \(2 cells\) and 'b' \(1 cells\).*replace\({'B ': 'B', 'b'"
    with pytest.warns(UserWarning, match=match):
        warn_about_spelling(names, "cell_type", "labels_key")


def test_names_that_differ_in_more_than_spelling_are_not_asked_about(recwarn):
    warn_about_spelling(pd.Series(["B1", "B2", "CD4-T", "CD4 T", "s1", "s10"]), "x", "batch_key")
    assert not recwarn


def test_a_near_name_has_the_same_numbers():
    known = ["lab 6", "lab 7", "Donor_12"]
    assert near_name("Lab 7", known) == "lab 7"
    assert near_name("lab-7", known) == "lab 7"
    assert near_name("doner 12", known) == "Donor_12"
    assert near_name("lab 8", known) is None
    assert near_name("donor_1", known) is None


def test_unknown_categories_are_described_by_column():
    conditions = [Condition("batch", ["lab 7", "lab 8"]), Condition("sex", ["f", "m"])]
    obs = pd.DataFrame({"batch": ["Lab 7", "x", "lab 8"], "sex": ["f", None, "m"]})
    batch, sex = describe_unknown(conditions, obs)
    assert "holds 'Lab 7', 'x', in 2 of 3 cells: did you mean 'lab 7'?" in batch
    assert ".replace({'Lab 7': 'lab 7'})" in batch
    assert sex == "`adata.obs['sex']` has 1 missing values."
    batch, sex = describe_unknown(conditions, obs[[]].assign(Batch="lab 8"))
    assert "`adata.obs['batch'] = adata.obs['Batch']`" in batch
    assert "`adata.obs['sex'] = 'm'`" in sex
    assert describe_unknown(conditions, obs.iloc[:0]) == []
    assert condition_codes(conditions, obs).tolist() == [[-1, 0], [-1, -1], [1, 1]]


def test_a_key_is_the_name_of_one_column():
    check_key(None, "batch_key")
    check_key("lane", "batch_key")
    with pytest.raises(TypeError, match=r"batch_key is a list.*`batch_key='lane'`\.$"):
        check_key(["lane"], "batch_key")
    with pytest.raises(TypeError, match=r"`batch_key='lane'`, and the others by `categorical_cov"):
        check_key(("lane", "site"), "batch_key")
    with pytest.raises(TypeError, match=r"donor_key is a Series.*`donor_key='donor'`"):
        check_key(pd.Series([1], name="donor"), "donor_key")
    with pytest.raises(TypeError, match=r"donor_key is a int.*`donor_key='...'`"):
        check_key(3, "donor_key")
