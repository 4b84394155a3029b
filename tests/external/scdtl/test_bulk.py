"""Checks of bulk, and its profiles."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from scvi_sctab.external import BulkPriorImputer
from scvi_sctab.external.scdtl._bulk import bulk_profiles, check_common_genes, read_bulk

GENES = [f"GENE{i}" for i in range(40)]


def expression(n_samples=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.gamma(0.5, 1000, (n_samples, len(GENES))) + 0.5


def bulk_of(values):
    names = [f"sample {i}" for i in range(len(values))]
    return AnnData(
        np.asarray(values, dtype=np.float64),
        pd.DataFrame(index=names),
        pd.DataFrame(index=GENES[: np.shape(values)[1]]),
    )


def profiles(values, max_contrasts=40, among=GENES):
    bulk = bulk_of(values)
    return bulk_profiles(values, bulk.var_names, bulk.obs_names, among, max_contrasts)


def test_contrasts_and_mean_give_back_the_log_profiles():
    values = expression()
    found = profiles(values)
    log = np.log(1e6 * values / values.sum(axis=1, keepdims=True) + 0.5)
    assert found.contrasts.shape == (40, 3)
    np.testing.assert_allclose(found.mean + found.rotation @ found.contrasts.T, log)
    np.testing.assert_allclose(found.rotation.T @ found.rotation, np.eye(3), atol=1e-10)
    lengths = (found.contrasts**2).sum(axis=0)
    assert (np.diff(lengths) <= 0).all()
    assert profiles(values, max_contrasts=2).contrasts.shape == (40, 2)


def test_the_scale_of_a_sample_does_not_matter():
    values = expression()
    scaled = profiles(values * np.array([[1], [7], [0.1], [1e4]]))
    np.testing.assert_allclose(scaled.mean, profiles(values).mean)
    np.testing.assert_allclose(scaled.contrasts, profiles(values).contrasts, atol=1e-9)


def test_components_are_those_of_genes_in_common_and_others_are_projected():
    values = expression()
    among = GENES[::2]
    found = profiles(values, among=[*among, "another"])
    log = np.log(1e6 * values / values.sum(axis=1, keepdims=True) + 0.5)
    centred = (log - log.mean(axis=0))[:, ::2]
    lengths = np.linalg.svd(centred, compute_uv=False)[:3]
    np.testing.assert_allclose(np.linalg.norm(found.contrasts[::2], axis=0), lengths)
    mean, contrasts = found.at(["nobody", "GENE3"])
    assert np.isnan(mean[0])
    assert not contrasts[0].any()
    np.testing.assert_array_equal(contrasts[1], found.contrasts[3])


@pytest.mark.parametrize("n_samples", [1, 3])
def test_equal_profiles_have_no_contrasts(n_samples):
    values = np.tile(expression(1), (n_samples, 1)) * (1 + np.arange(n_samples))[:, None]
    assert profiles(values).contrasts.shape == (40, 0)


def spoilt(value):
    values = expression()
    values[1, 2] = value
    return values


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (spoilt(np.nan), r"`bulk\.X` has NaN in sample 'sample 1', gene 'GENE2'"),
        (spoilt(np.inf), r"an infinite value in sample 'sample 1', gene 'GENE2'"),
        (
            spoilt(-0.5),
            r"a negative value in sample 'sample 1', gene 'GENE2'.* not centred or log",
        ),
        (np.log1p(expression()), r"looks like logarithms .*numpy\.expm1.*by 1e6"),
        (np.log2(expression() + 1), r"looks like logarithms .*2 \*\*"),
        (np.full((3, 40), 7.0), r"is constant, 7 everywhere"),
        (np.zeros((0, 40)), r"the shape \(0, 40\): there is no bulk"),
        (
            expression() * [[1], [0], [1], [1]],
            r"without expression: 'sample 1'\. Drop.*\[bulk\.X\.sum",
        ),
        (np.eye(40)[:5] * 9, r"looks like single cells: 5 rows of 9 counts.* swapped"),
    ],
)
def test_values_that_are_no_bulk_are_refused(values, match):
    with pytest.raises(ValueError, match=match):
        BulkPriorImputer.setup_bulk_anndata(bulk_of(values))


@pytest.mark.parametrize("unit", [1e6, 1.0, 1e-3], ids=["cpm", "share", "small"])
def test_any_linear_unit_is_accepted(unit):
    values = expression()
    values = unit * values / values.sum(axis=1, keepdims=True)
    assert read_bulk(bulk_of(values), None).shape == (4, 40)
    assert read_bulk(bulk_of(np.rint(1e6 * expression())), None).shape == (4, 40)


def test_duplicated_genes_missing_layers_and_views_are_refused():
    bulk = bulk_of(expression())
    bulk.var_names = ["ENSG00000000001.1", "ENSG00000000001.2", *GENES[2:]]
    with pytest.raises(ValueError, match="duplicated .*'ENSG00000000001'"):
        BulkPriorImputer.setup_bulk_anndata(bulk)
    with pytest.raises(KeyError, match="no layer 'tpm'"):
        BulkPriorImputer.setup_bulk_anndata(bulk_of(expression()), layer="tpm")
    with pytest.raises(ValueError, match=r"view of another AnnData; pass a copy"):
        BulkPriorImputer.setup_bulk_anndata(bulk_of(expression())[:3])
    with pytest.raises(TypeError, match="bulk must be an AnnData"):
        BulkPriorImputer.setup_bulk_anndata(expression())


def test_sparse_layers_are_read():
    values = expression()
    bulk = bulk_of(values)
    bulk.layers["tpm"] = sparse.csr_matrix(values)
    bulk.X = np.log1p(values)
    np.testing.assert_array_equal(read_bulk(bulk, "tpm"), values)


def test_other_names_of_genes_are_told_with_the_column_that_matches():
    bulk = bulk_of(expression())
    ids = [f"ENSG{i:011d}" for i in range(40)]
    with pytest.raises(ValueError, match=r"0 genes in common.*Ensembl ids.*symbols.*same way"):
        check_common_genes(np.array(ids), None, bulk)
    bulk.var["id"] = [f"{name}.3" for name in ids]
    with pytest.raises(ValueError, match=r"bulk\.var_names = bulk\.var\['id'\]"):
        check_common_genes(np.array(ids), None, bulk)
    cells = AnnData(np.ones((2, 40)), var=pd.DataFrame({"symbol": GENES}, index=ids))
    del bulk.var["id"]
    with pytest.raises(ValueError, match=r"adata\.var_names = adata\.var\['symbol'\]"):
        check_common_genes(np.array(ids), cells, bulk)
