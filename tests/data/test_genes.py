"""Genes are matched by name."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from scvi_sctab import datasets
from scvi_sctab.data import (
    GeneMismatchError,
    align_genes,
    check_genes,
    prepare_query,
    query_cells,
    respell_genes,
    strip_versions,
)

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
        r"`query.var_names = query.var\['symbol'\].tolist\(\)`",
    ):
        align_genes(SYMBOLS, var(ENSEMBL, other="x", symbol=SYMBOLS))


@pytest.mark.parametrize("dtype", ["category", object])
def test_the_column_with_the_right_names_is_taken_by_a_line_that_leaves_a_file_to_write(
    dtype, tmp_path
):
    column = pd.Series(SYMBOLS, index=ENSEMBL, dtype=dtype)
    query = AnnData(np.ones((2, 20), np.float32), var=pd.DataFrame({"symbol": column}))
    with pytest.raises(GeneMismatchError, match="`query.var_names") as error:
        align_genes(SYMBOLS, query.var)
    (line,) = re.findall("`(query.var_names.*)`", str(error.value))
    exec(line, {"query": query})
    assert align_genes(SYMBOLS, query.var).is_identity
    query.write_h5ad(tmp_path / "query.h5ad")


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


HUMAN = [
    *("CD3D", "MS4A1", "LYZ", "HLA-A", "HLA-DRA", "MT-ND1", "NKX2-1", "7SK", "TBCE", "C1orf159"),
    *("RP11-34P13.7", "A.1", "FOO-AS1", "FOO", "ITGB1", "FCGR3A", "ACTB", "CD8A", "C3", "B2M"),
]
MOUSE = [
    *("Cd3d", "Ms4a1", "Lyz2", "H2-K1", "H2-Aa", "mt-Nd1", "Nkx2-1", "Hba-a1", "Tbce", "Actb"),
    *("Foo", "Itgb1", "Fcgr3", "Cd8a", "Gapdh", "Ptprc", "Gm10076", "4930402H24Rik", "C3", "B2m"),
]


def respelt(names, genes=HUMAN):
    """The names that change, and what they become."""
    return {a: b for a, b in zip(names, respell_genes(names, genes), strict=True) if a != b}


@pytest.mark.parametrize(
    ("written", "gene"),
    [
        ("HLA.DRA", "HLA-DRA"),
        ("hla-dra", "HLA-DRA"),
        ("HLA_DRA", "HLA-DRA"),
        ("hla_dra ", "HLA-DRA"),
        (" CD3D", "CD3D"),
        ("CD3D\n", "CD3D"),
        ('"CD3D"', "CD3D"),
        ("HLA\u2010DRA", "HLA-DRA"),
        ("RP11.34P13.7", "RP11-34P13.7"),
        ("C1ORF159", "C1orf159"),
        ("mt-nd1", "MT-ND1"),
        ("X7SK", "7SK"),
        ("GRCh38_CD3D", "CD3D"),
        ("GRCh38___HLA-DRA", "HLA-DRA"),
        ("GRCh38-HLA-DRA", "HLA-DRA"),
        ("hg19_HLA.DRA", "HLA-DRA"),
        ("hg38_CD3D", "CD3D"),
        ("ENSG00000204287_HLA-DRA", "HLA-DRA"),
        ("ENSG00000204287.12_HLA-DRA", "HLA-DRA"),
        ("HLA-DRA_ENSG00000204287", "HLA-DRA"),
        ("HLA-DRA|ENSG00000204287.12", "HLA-DRA"),
        ("ENSG00000283293-7SK", "7SK"),
        ("GRCh38_ENSG00000204287_HLA-DRA", "HLA-DRA"),
        ("TBCE-1", "TBCE"),
        ("TBCE.1", "TBCE"),
        ("GRCh38_TBCE-1", "TBCE"),
    ],
)
def test_a_missing_gene_is_found_under_another_spelling_and_named(written, gene):
    names = [written if name == gene else name for name in HUMAN]
    assert respelt(names) == {written: gene}
    match = rf"1 of the model's genes .* {re.escape(f'{gene!r} as {written!r}')}\. Rename"
    with pytest.warns(UserWarning, match=match):
        align_genes(HUMAN, var(names))


@pytest.mark.parametrize(
    ("written", "gene"),
    [
        ("ENSG00000000003_CD3D", "ENSG00000000003"),
        ("CD3D_ENSG00000000003.4", "ENSG00000000003"),
        ("GRCh38_ENSG00000000003.4", "ENSG00000000003"),
        ("ensg00000000003", "ENSG00000000003"),
        ("ENSG00000000003-1", "ENSG00000000003"),
    ],
)
def test_ensembl_ids_are_found_under_another_spelling(written, gene):
    assert respelt([written, *ENSEMBL[4:]], ENSEMBL) == {written: gene}


def test_a_model_whose_genes_are_spelt_oddly_finds_the_usual_spelling():
    genes = ["HLA.DRA", "GRCh38_LYZ", "X7SK", "ENSG00000167286_CD3D"]
    names = ["HLA-DRA", "LYZ", "7SK", "CD3D"]
    assert respelt(names, genes) == dict(zip(names, genes, strict=True))


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(HUMAN, id="the genes of the model"),
        pytest.param([*HUMAN, "HLA.DRA", "cd3d", "TBCE-1", "X7SK"], id="beside the gene itself"),
        pytest.param(["HLA.DRA", "HLA_DRA"], id="two columns for one gene"),
        pytest.param(["HLA.DRA", "HLA.DRA"], id="a column twice"),
        pytest.param(["A.2", "A", "RP11-34P13.8", "NKX2-2", "NKX2", "TBCE-2"], id="other numbers"),
        pytest.param(["FOO-AS2", "HLA-DQA1", "MT-ND2", "CD3", "H2-K1"], id="near names"),
        pytest.param(["adt_CD3D", "CD8A_TotalSeqB", *HUMAN[4:17]], id="proteins"),
        pytest.param(MOUSE, id="mouse"),
        pytest.param([f"mm10_{name}" for name in [*MOUSE, "CD3D", "LYZ"]], id="a mouse genome"),
        pytest.param([*MOUSE, *HUMAN[10:]], id="mouse cells beside human ones"),
        pytest.param(["cd3d", "lyz", "si:dkey-1a2.3", "zgc:100000"], id="zebrafish"),
        pytest.param(["", " ", "-", "--"], id="no names"),
    ],
)
def test_names_that_may_mean_something_else_stay(names):
    assert respelt(names) == {}


def test_a_column_that_may_be_two_genes_stays():
    assert respelt(["--", "LYZ"], ["-", "LYZ"]) == {}
    assert respelt(["A_1", "LYZ"], ["A.1", "A-1", "LYZ"]) == {}
    assert respelt(["A_1", "A-1"], ["A.1", "A-1", "LYZ"]) == {"A_1": "A.1"}


def test_of_two_genomes_that_of_the_model_is_taken():
    names = ["GRCh38_CD3D", "mm10_Cd3d", "GRCh38_ACTB", "mm10_ACTB", "mm10_Tbce", "mm10_H2-K1"]
    assert respelt(names) == {"GRCh38_CD3D": "CD3D", "GRCh38_ACTB": "ACTB"}
    assert respelt(names, MOUSE) == {
        "mm10_Cd3d": "Cd3d",
        "mm10_Tbce": "Tbce",
        "mm10_H2-K1": "H2-K1",
    }


@pytest.mark.parametrize("form", ["Homo_sapiens_{}", "920_{}", "{}|3122", "{}_hsa"])
def test_whatever_most_names_are_joined_with_is_left_out(form):
    names = [form.format(name) for name in HUMAN]
    assert respelt(names) == dict(zip(names, HUMAN, strict=True))


def test_respelling_a_real_query_restores_its_genes_and_nothing_else():
    genes = datasets.pbmc_kang18().var_names
    query = datasets.pbmc3k().var_names
    assert list(respell_genes(query, genes)) == list(query)
    shared = [name for name in query if name in set(genes)]
    changed = [re.sub(r"[^A-Za-z0-9]", ".", name) for name in query]
    restored = respell_genes(changed, genes)
    assert restored.intersection(genes).tolist() == shared
    assert len(set(restored)) == len(set(changed))


def test_names_keep_their_versions_and_order_where_they_are_not_respelt():
    names = pd.Index(["ENSG00000000003.4", "MYGENE", "lyz"], name="gene")
    respelt_names = respell_genes(names, ["ENSG00000000003.9", "LYZ"])
    assert list(respelt_names) == ["ENSG00000000003.4", "MYGENE", "LYZ"]
    assert respelt_names.name == "gene"


class Model:
    gene_names = np.array(HUMAN)


@pytest.mark.parametrize("written", ["dots", "prefix"])
def test_the_line_to_type_renames_the_genes(written):
    rename = {"dots": lambda name: name.replace("-", "."), "prefix": "GRCh38_{}".format}[written]
    query = AnnData(np.ones((2, len(HUMAN)), np.float32), var=var(map(rename, HUMAN)))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            align_genes(HUMAN, query.var)
            message = str(said[0].message)
        except GeneMismatchError as error:
            message = str(error)
    (line,) = re.findall(r"`(from scvi_sctab.*?)`", message)
    exec(line, {"query": query, "model": Model})
    assert align_genes(HUMAN, query.var).is_identity


def test_a_prefix_that_hides_nearly_all_genes_is_the_cure_of_the_error():
    names = [f"GRCh38_{name}" for name in HUMAN]
    with pytest.raises(GeneMismatchError) as error:
        align_genes(HUMAN, var(names))
    assert re.search(r"only 0 of .* 'CD3D' as 'GRCh38_CD3D'.* and 15 more", str(error.value))
    assert "look like" not in str(error.value)


def test_genes_lost_by_spelling_and_genes_that_are_not_there_are_told_in_one_warning():
    names = [name.replace("HLA-", "HLA.") for name in HUMAN[:12]]
    with pytest.warns(
        UserWarning, match=r"only 10 of.*Missing: .* 2 of the model's genes"
    ) as said:
        align_genes(HUMAN, var(names))
    assert len(said) == 1


def ids(code, genes=20):
    return [f"ENS{code}G{i:011d}" for i in range(genes)]


@pytest.mark.parametrize(
    ("genes", "names", "query", "model"),
    [
        (HUMAN, MOUSE, "mouse symbols", "human symbols"),
        (MOUSE, HUMAN, "human symbols", "mouse symbols"),
        (ids(""), ids("MUS"), "mouse Ensembl ids", "human Ensembl ids"),
        (ids("MUS"), ids(""), "human Ensembl ids", "mouse Ensembl ids"),
        (ids(""), ids("RNO"), "rat Ensembl ids", "human Ensembl ids"),
        (HUMAN, ids("MUS"), "mouse Ensembl ids", "human symbols"),
        (ids(""), MOUSE, "mouse symbols", "human Ensembl ids"),
        (
            HUMAN,
            [name.lower() for name in HUMAN[5:]] + ["zgc:1"] * 9,
            "zebrafish",
            "human symbols",
        ),
    ],
)
@pytest.mark.parametrize("min_overlap", [0.25, 0.0])
def test_genes_of_another_species_are_recognised(genes, names, query, model, min_overlap):
    message = (
        rf"genes look like {query}.* the model's like {model}.* to {model.split()[0]} orthologs"
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            align_genes(genes, var(names), min_overlap)
            text = str(said[0].message)
        except GeneMismatchError as error:
            text = str(error)
    assert re.search(message, text), text
    assert "respell_genes" not in text
    assert "Or lower the limit" not in text


@pytest.mark.parametrize(
    ("genes", "names"),
    [(HUMAN, ids("")), (HUMAN, ids("MMU")), (MOUSE, ids("RNO")), (HUMAN, SYMBOLS)],
)
def test_names_that_one_species_may_have_are_not_called_those_of_two(genes, names):
    with pytest.raises(GeneMismatchError) as error:
        align_genes(genes, var(names))
    assert "orthologs" not in str(error.value)


def test_the_limit_is_an_argument_that_the_error_names():
    names = var(SYMBOLS[:3])
    with pytest.raises(GeneMismatchError, match="Or lower the limit: `min_gene_overlap=0.15`"):
        align_genes(SYMBOLS, names)
    with pytest.warns(UserWarning, match=r"only 3 of the model's 20 genes \(15%\)"):
        alignment = align_genes(SYMBOLS, names, 0.15)
    assert list(alignment.missing) == SYMBOLS[3:]
    with pytest.raises(GeneMismatchError, match="only 19 of .*at least 100% are needed"):
        align_genes(SYMBOLS, var(SYMBOLS[:19]), 1)


@pytest.mark.parametrize("limit", [25, -0.1, np.nan])
def test_a_limit_that_is_no_share_is_refused(limit):
    with pytest.raises(ValueError, match=f"min_gene_overlap={limit}: give a share.*e.g. 0.25"):
        align_genes(SYMBOLS, var(SYMBOLS), limit)


@pytest.mark.parametrize(
    "prepare", [prepare_query, lambda *a, **k: query_cells(a[0], None, a[1], **k)]
)
def test_queries_are_prepared_with_the_limit_asked_for(prepare):
    query = AnnData(np.ones((4, 3), np.float32), var=var(SYMBOLS[:3]))
    with pytest.raises(GeneMismatchError, match="15%"):
        prepare(query, SYMBOLS)
    with pytest.warns(UserWarning, match="15%"):
        assert prepare(query, SYMBOLS, min_gene_overlap=0.1).shape == (4, 20)


@pytest.mark.parametrize("known", [["CD3D", "LYZ"], ["ENSG00000167286", "ENSG00000090382"]])
def test_samples_of_genes_are_ones_that_people_know(known):
    genes = [*(f"AC{i}.1" for i in range(40)), *known]
    with pytest.warns(UserWarning, match=rf"Missing: '{known[0]}', '{known[1]}', 'AC22.1'"):
        align_genes(genes, var(genes[:22]))
    with pytest.raises(
        GeneMismatchError, match=rf"genes look like '{known[0]}', '{known[1]}', 'AC"
    ):
        align_genes(genes, var(SYMBOLS))


def test_versions_are_those_of_ensembl_ids_only():
    names = ["ENSG00000187608.10", "ENSMUSG00000000001.4", "ENSA.1", "HLA-A", "AC0.1", "ENSG1.2"]
    assert list(strip_versions(names)) == ["ENSG00000187608", "ENSMUSG00000000001", *names[2:]]
