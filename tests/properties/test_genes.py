"""Genes are matched by name, whatever the order, the extra columns and the versions."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from scvi_sctab.data import GeneMismatchError, align_genes

GENES = [f"ENSG{number:011d}" for number in range(40)]


@st.composite
def genes_and_columns(draw):
    """Genes of a model, and columns of a query that hold some of them, in any order."""
    model = draw(st.lists(st.sampled_from(GENES), unique=True, min_size=1, max_size=20))
    columns = draw(st.lists(st.sampled_from(GENES), unique=True, min_size=1, max_size=30))
    columns = [*dict.fromkeys([*columns, model[0]])]
    versions = draw(st.lists(st.integers(0, 3), min_size=len(columns), max_size=len(columns)))
    named = [f"{c}.{v}" if v else c for c, v in zip(columns, versions, strict=True)]
    return model, columns, draw(st.permutations([*zip(columns, named, strict=True)]))


@pytest.mark.filterwarnings("ignore:The query has only", "ignore:.* of the model's")
@given(genes_and_columns(), st.randoms(use_true_random=False))
def test_each_count_arrives_at_its_gene(case, random):
    model, _, columns = case
    bare, named = zip(*columns, strict=True)
    counts = np.array([[random.randint(0, 4) for _ in bare] for _ in range(3)], np.float32)
    var = pd.DataFrame(index=pd.Index(named))
    alignment = align_genes(model, var, min_overlap=0.0)
    aligned = alignment.apply(sparse.csr_matrix(counts)).toarray()
    expected = pd.DataFrame(counts, columns=bare).reindex(columns=model, fill_value=0)
    np.testing.assert_array_equal(aligned, expected.to_numpy())
    assert set(alignment.missing) == set(model) - set(bare)
    np.testing.assert_array_equal(alignment.is_measured, np.isin(model, bare))


@given(genes_and_columns())
def test_a_duplicated_gene_of_the_model_is_refused(case):
    model, _, columns = case
    names = [name for _, name in columns]
    var = pd.DataFrame(index=pd.Index([*names, f"{model[0]}.9"]))
    with pytest.raises(GeneMismatchError, match=model[0]):
        align_genes(model, var, min_overlap=0.0)


@pytest.mark.filterwarnings("ignore:The query has only", "ignore:.* of the model's")
@given(genes_and_columns(), st.floats(0, 1))
def test_a_query_with_too_few_genes_is_refused(case, least):
    model, _, columns = case
    var = pd.DataFrame(index=pd.Index([name for _, name in columns]))
    share = np.isin(model, [bare for bare, _ in columns]).mean()
    if share < least:
        with pytest.raises(GeneMismatchError, match="genes"):
            align_genes(model, var, least)
    else:
        assert len(align_genes(model, var, least).target) == len(var)
