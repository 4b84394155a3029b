"""Studies joined into one reference."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from scvi_sctab.data import GeneMismatchError, NotCountsError, join_references

GENES = [f"GENE{i}" for i in range(30)]


def study(genes, labels, **columns):
    generator = np.random.default_rng(len(genes))
    counts = sparse.csr_matrix(generator.poisson(2.0, (len(labels), len(genes))).astype("float32"))
    names = [f"cell{i}" for i in range(len(labels))]
    obs = pd.DataFrame({"cell_type": labels, **columns}, index=names)
    return AnnData(counts, obs, pd.DataFrame(index=list(genes)))


@pytest.fixture
def studies():
    return {
        "one": study(GENES[:25], ["B", "NK", "B"], donor="a"),
        "two": study(GENES[:4:-1], ["B cell", "T"], donor="b", age=3),
    }


def test_counts_are_those_of_each_study_by_the_name_of_the_gene(studies):
    joined = join_references(studies, "cell_type")
    assert set(joined.var_names) == set(GENES[5:25])
    for name, own in studies.items():
        part = joined[joined.obs["study"] == name]
        assert (part.X.toarray() == own[:, joined.var_names].X.toarray()).all()


def test_the_union_has_all_genes_and_zeros_where_a_study_lacks_one(studies):
    joined = join_references(studies, "cell_type", genes="union")
    assert set(joined.var_names) == set(GENES)
    assert sparse.issparse(joined.X)
    lacking = joined[joined.obs["study"] == "one", GENES[25:]]
    assert lacking.X.nnz == 0
    assert joined.X.sum() == sum(own.X.sum() for own in studies.values())


def test_labels_get_common_names_and_keep_their_own_without_one(studies):
    joined = join_references(studies, "cell_type", {"B": "B cell", "NK": ""})
    assert joined.obs["cell_type"].tolist() == ["B cell", "NK", "B cell", "B cell", "T"]
    assert studies["one"].obs["cell_type"].tolist() == ["B", "NK", "B"]


def test_columns_are_those_that_all_studies_have_and_cells_stay_distinct(studies):
    joined = join_references(studies, "cell_type", study_key="from")
    assert list(joined.obs) == ["cell_type", "donor", "from"]
    assert joined.obs_names.is_unique
    assert joined.obs_names[0] == "cell0-one"


def test_what_cannot_be_joined_is_named(studies):
    with pytest.raises(KeyError, match="no_such"):
        join_references(studies, "no_such")
    with pytest.raises(ValueError, match="no study"):
        join_references({}, "cell_type")
    with pytest.raises(ValueError, match="neither 'intersection' nor 'union'"):
        join_references(studies, "cell_type", genes="outer")
    with pytest.raises(ValueError, match="'one' has a column 'donor'"):
        join_references(studies, "cell_type", study_key="donor")
    twice = studies["two"].copy()
    twice.var_names = ["GENE9", *twice.var_names[1:]]
    with pytest.raises(GeneMismatchError, match="Study 'two'.*GENE9"):
        join_references({**studies, "two": twice}, "cell_type")
    studies["two"].X = studies["two"].X * 0.5
    with pytest.raises(NotCountsError):
        join_references(studies, "cell_type")
