"""Genes are matched by name."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scvi_sctab.data import GeneMismatchError, align_genes, check_genes

SYMBOLS = [f"GENE{i}" for i in range(20)]
ENSEMBL = [f"ENSG{i:011d}" for i in range(20)]


def var(names, **columns):
    return pd.DataFrame(columns, index=pd.Index(names, dtype=object))


def block(n_genes, seed=0):
    return sparse.random(7, n_genes, density=0.4, random_state=seed, format="csr")


def test_permuted_genes_give_the_same_block_bit_by_bit():
    original = block(20)
    order = np.random.default_rng(0).permutation(20)
    alignment = align_genes(SYMBOLS, var([SYMBOLS[i] for i in order]))
    aligned = alignment.apply(original[:, order])
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(aligned, part), getattr(original, part))


def test_ensembl_versions_are_ignored_on_both_sides():
    genes = check_genes([f"{name}.3" for name in ENSEMBL])
    assert list(genes) == ENSEMBL
    assert align_genes(genes, var([f"{name}.11" for name in ENSEMBL])).is_identity


def test_symbols_with_dots_keep_them():
    assert list(check_genes([f"RP11-34P13.{i}" for i in range(12)]))[3] == "RP11-34P13.3"


def test_missing_genes_are_zero_and_reported_and_extra_ones_ignored():
    names = ["extra", *SYMBOLS[:18]]
    alignment = align_genes(SYMBOLS, var(names))
    assert list(alignment.missing) == SYMBOLS[18:]
    x = block(19)
    aligned = alignment.apply(x).toarray()
    np.testing.assert_array_equal(aligned[:, :18], x.toarray()[:, 1:])
    assert (aligned[:, 18:] == 0).all()


def test_few_shared_genes_are_warned_about():
    with pytest.warns(UserWarning, match=r"only 10 of the model's 20 genes \(50%\).*'GENE10'"):
        align_genes(SYMBOLS, var(SYMBOLS[:10]))


def test_too_few_shared_genes_stop_with_both_sides_named():
    with pytest.raises(GeneMismatchError, match=r"only 3 of the model's 20 genes \(15%\).*25%"):
        align_genes(SYMBOLS, var(SYMBOLS[:3]))


def test_symbols_against_ensembl_ids_are_told_apart_and_the_right_column_named():
    with pytest.raises(
        GeneMismatchError,
        match=r"model knows gene symbols, the query's var_names are Ensembl ids.*"
        r"`query.var_names = query.var\['symbol'\]`",
    ):
        align_genes(SYMBOLS, var(ENSEMBL, other="x", symbol=SYMBOLS))


def test_symbols_against_ensembl_ids_without_a_column_are_told_apart():
    with pytest.raises(GeneMismatchError, match="model knows Ensembl ids.*are gene symbols"):
        align_genes(ENSEMBL, var(SYMBOLS))


def test_duplicates_in_the_reference_are_refused_with_their_names():
    with pytest.raises(GeneMismatchError, match="The reference has 1 gene names.*'GENE3'"):
        check_genes([*SYMBOLS, "GENE3"])


def test_ids_that_differ_by_version_only_are_duplicates():
    with pytest.raises(GeneMismatchError, match="versions ignored.*'ENSG00000000001'"):
        check_genes([*ENSEMBL, "ENSG00000000001.2"])


def test_duplicates_in_the_query_are_refused_if_the_model_reads_them():
    with pytest.raises(GeneMismatchError, match="The query has 1 gene names.*'GENE3'"):
        align_genes(SYMBOLS, var([*SYMBOLS, "GENE3"]))
    assert align_genes(SYMBOLS, var([*SYMBOLS, "other", "other"])).missing.empty


def test_a_reference_of_few_genes_is_refused():
    with pytest.raises(GeneMismatchError, match="has 9 genes, too few"):
        check_genes(SYMBOLS[:9])
