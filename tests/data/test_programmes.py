"""Gene programmes are read, and matched to genes by name."""

import gzip
import logging

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from scvi_sctab.data import GeneMismatchError, gene_programmes, read_gmt, regulators

SYMBOLS = [f"GENE{i}" for i in range(20)]
ENSEMBL = [f"ENSG{i:011d}" for i in range(20)]
SETS = {
    "first": [*SYMBOLS[:6], "other"],
    "few": [*SYMBOLS[3:7], "ABSENT"],
    "second": SYMBOLS[10:15][::-1],
}


def make_adata(names=SYMBOLS, **columns):
    var = pd.DataFrame(columns, index=pd.Index(names, dtype=object))
    return AnnData(sparse.csr_matrix((2, len(names)), dtype=np.float32), var=var)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def members_of(found):
    """Positions of the members by name."""
    return {
        name: np.flatnonzero(row).tolist()
        for name, row in zip(found.names, found.members, strict=True)
    }


KEPT = {"first": [0, 1, 2, 3, 4, 5], "second": [10, 11, 12, 13, 14]}


def test_a_gmt_file_is_read(tmp_path):
    text = "A set\thttp://x\tB\tA\tB\t\n\nother\t\tHLA-A\r\n"
    assert read_gmt(write(tmp_path / "x.gmt", text)) == {"A set": ["B", "A"], "other": ["HLA-A"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a\tb\tC\ngenes,of,a,table\n", r"Line 2 of .*x.gmt.*'genes,of,a", id="table"),
        pytest.param("a\tdescription\n", "Line 1 of .* is not of a GMT file", id="no genes"),
        pytest.param("a\tdescription\t\t \n", "Line 1 of .* is not of a GMT", id="blank genes"),
        pytest.param("\tdescription\tA\n", "Line 1 of .* is not of a GMT file", id="no name"),
        pytest.param("a\t\tA\nb\t\tB\na\t\tC\n", "'a' is duplicated in .*on line 3", id="twice"),
        pytest.param("\n \n", "x.gmt' is empty", id="blank"),
        pytest.param("", "x.gmt' is empty", id="empty"),
    ],
)
def test_files_that_are_no_gmt_are_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_gmt(write(tmp_path / "x.gmt", text))


def test_a_compressed_file_is_refused_and_the_cure_named(tmp_path):
    path = tmp_path / "x.gmt.gz"
    path.write_bytes(gzip.compress(b"a\t\tA\n"))
    with pytest.raises(ValueError, match="is no text.*unpack it"):
        read_gmt(path)


def test_a_mapping_a_file_and_a_matrix_give_the_same_members(tmp_path):
    lines = [f"{name}\t\t" + "\t".join(genes) for name, genes in SETS.items()]
    path = write(tmp_path / "x.gmt", "\n".join(lines))
    adata = make_adata()
    columns = {name: adata.var_names.isin(genes) for name, genes in SETS.items()}
    adata.varm["sets"] = pd.DataFrame(columns, index=adata.var_names)
    for given in (SETS, path, str(path), "sets"):
        found = gene_programmes(given, adata)
        assert members_of(found) == KEPT
        assert found.members.shape == (2, 20)
        assert found.members.dtype == bool
        assert found.matched["kept"].tolist() == [True, False, True]


def test_what_matched_is_told_of_every_programme():
    matched = gene_programmes(SETS, make_adata()).matched
    expected = pd.DataFrame(
        {
            "n_genes": [7, 5, 5],
            "n_matched": [6, 4, 5],
            "share": [6 / 7, 0.8, 1.0],
            "kept": [True, False, True],
        },
        index=pd.Index(SETS, name="name", dtype=object),
    )
    pd.testing.assert_frame_equal(matched, expected, check_dtype=False, check_index_type=False)


def test_fewer_genes_may_be_enough():
    assert list(gene_programmes(SETS, make_adata(), min_genes=4).names) == list(SETS)


def test_genes_that_stand_twice_count_once():
    twice = {name: [*genes, *genes] for name, genes in SETS.items()}
    found = gene_programmes(twice, make_adata())
    assert found.matched["n_genes"].tolist() == [7, 5, 5]
    assert members_of(found) == KEPT


def test_ensembl_versions_are_ignored_on_both_sides():
    sets = {"a": [f"{name}.7" for name in ENSEMBL[:5]], "b": ENSEMBL[5:11]}
    found = gene_programmes(sets, make_adata([f"{name}.12" for name in ENSEMBL]))
    assert members_of(found) == {"a": list(range(5)), "b": list(range(5, 11))}


@pytest.mark.parametrize("kind", ["object", "category"])
def test_symbols_are_found_in_a_column_where_genes_are_named_by_id(kind):
    symbols = pd.Series([*SYMBOLS[:14], None, *SYMBOLS[15:]], index=ENSEMBL, dtype=kind)
    adata = make_adata(ENSEMBL, number=range(20), feature_name=symbols)
    found = gene_programmes({**SETS, "second": SYMBOLS[10:16] + [""]}, adata)
    assert members_of(found) == {"first": KEPT["first"], "second": [10, 11, 12, 13, 15]}
    assert found.matched.loc["second", ["n_genes", "n_matched"]].tolist() == [6, 5]


def test_two_genes_of_one_symbol_are_both_members_and_count_once():
    symbols = [*SYMBOLS[:6], "GENE0", *SYMBOLS[7:]]
    found = gene_programmes(SETS, make_adata(ENSEMBL, symbol=symbols))
    assert members_of(found)["first"] == [0, 1, 2, 3, 4, 5, 6]
    assert found.matched.loc["first", "n_matched"] == 6


def test_the_names_of_the_data_win_over_a_column_of_the_same():
    adata = make_adata(alias=SYMBOLS[::-1])
    assert members_of(gene_programmes(SETS, adata)) == KEPT


def test_one_line_tells_what_matched(caplog):
    with caplog.at_level(logging.INFO, logger="scvi.sctab"):
        gene_programmes(SETS, make_adata(ENSEMBL, feature_name=SYMBOLS))
    (line,) = caplog.messages
    assert line == (
        "2 of 3 gene programmes have at least 5 genes in `var['feature_name']`; together 11 of 20."
    )


@pytest.mark.parametrize("store", [np.array, sparse.csr_matrix])
def test_a_matrix_without_names_is_numbered(store):
    adata, matrix = make_adata(), np.zeros((20, 3))
    matrix[:5, 0] = matrix[10:, 2] = 1
    adata.varm["sets"] = store(matrix)
    found = gene_programmes("sets", adata)
    assert members_of(found) == {"0": list(range(5)), "2": list(range(10, 20))}
    assert found.matched["share"].tolist() == [1.0, 0.0, 1.0]


def test_programmes_of_other_genes_are_refused_with_examples():
    with pytest.raises(
        GeneMismatchError,
        match=r"0 of 2 programmes have at least 5 genes in `var_names`.*'ENSG00000000000'.*5 more",
    ):
        gene_programmes({"a": ENSEMBL[:5], "b": ENSEMBL[5:10]}, make_adata())


def test_one_programme_is_too_few():
    with pytest.raises(
        GeneMismatchError, match=r"1 of 3 programmes.*'other', 'ABSENT'.*min_genes"
    ):
        gene_programmes({**SETS, "second": SYMBOLS[:2]}, make_adata())


def test_an_empty_programme_is_never_kept():
    found = gene_programmes({**SETS, "empty": []}, make_adata(), min_genes=0)
    assert found.matched.loc["empty"].tolist() == [0, 0, 0.0, False]
    assert list(found.names) == list(SETS)


def test_programmes_of_no_known_form_are_refused(tmp_path):
    adata = make_adata()
    adata.varm["programmes"] = np.full((20, 2), 0.5)
    with pytest.raises(ValueError, match="neither a file nor a key.*did you mean 'programmes'"):
        gene_programmes("programs", adata)
    with pytest.raises(ValueError, match=r"neither a file nor a key.*has \['programmes'\]"):
        gene_programmes(tmp_path / "none.gmt", adata)
    with pytest.raises(ValueError, match=r"varm\['programmes'\]` has values other than 0 and 1"):
        gene_programmes("programmes", adata)
    with pytest.raises(ValueError, match="no programmes in the mapping"):
        gene_programmes({}, adata)
    with pytest.raises(ValueError, match="The genes of 'a' are one text"):
        gene_programmes({"a": "GENE0", "b": ["GENE1"]}, adata)


def test_columns_of_one_name_are_refused():
    adata = make_adata()
    frame = pd.DataFrame(np.ones((20, 2)), index=adata.var_names, columns=["a", "b"])
    adata.varm["sets"] = frame
    adata.varm["sets"].columns = ["a", "a"]
    with pytest.raises(ValueError, match=r"Columns of `adata.varm\['sets'\]`.*'a'. Rename"):
        gene_programmes("sets", adata)


def test_regulators_are_found_by_the_whole_name_or_its_start():
    names = ["GATA1", "SPI1_TARGET_GENES", "T_CELL", "NKX2_5", "SPI1_02", "_SPI1", "gata1"]
    genes = ["SPI1", "NKX2_5", "GATA1", "NKX2", "GATA1"]
    position = regulators(names, genes)
    assert position.tolist() == [2, 0, -1, 1, 0, -1, -1]
    assert position.dtype == np.int64


def test_regulators_with_underscores_are_found_by_the_longest_start():
    genes = ["NKX2", "NKX2_5", "GRCh38_SPI1"]
    names = ["NKX2_5_TARGETS", "NKX2_1", "GRCh38_SPI1_SPI1_TARGETS", "GRCh38"]
    assert regulators(names, genes).tolist() == [1, 0, 2, -1]


def test_regulators_named_by_id_have_versions():
    ids = ["ENSG00000102145.14", "ENSG00000066336"]
    assert regulators(["ENSG00000066336.3_TARGETS", "ENSG00000102145"], ids).tolist() == [1, 0]
