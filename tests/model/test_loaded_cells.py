"""A saved model of a query is loaded with the query as its owner has it."""

import numpy as np
import pandas as pd
import pytest
import scvi
from anndata import AnnData

from scvi_sctab import SCTAB, SCTABEnsemble

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
N_GENES = 12


def toy(n_cells, seed, batches):
    """Cells of three types, each with genes of its own, in batches with numbers for names."""
    rng = np.random.default_rng(seed)
    types, batch = rng.integers(3, size=n_cells), rng.choice(batches, n_cells)
    mean = 1 + 0.8 * np.kron(np.eye(3), np.ones(N_GENES // 3))
    obs = pd.DataFrame(
        {"cell_type": [f"type {t}" for t in types], "run": batch},
        [f"{seed}-{i}" for i in range(n_cells)],
    )
    genes = pd.DataFrame(index=[f"G{i}" for i in range(N_GENES)])
    return AnnData(rng.poisson(mean[types]).astype("float32"), obs, genes)


@pytest.fixture(params=["SCTAB", "SCTABEnsemble"], scope="module")
def _mapped(request, tmp_path_factory):
    """A model that was adapted to a query, and where it was saved."""
    scvi.settings.seed = 0
    reference, query = toy(200, 0, [1, 2]), toy(90, 1, [3, 4])
    del query.obs["cell_type"]
    SCTAB.setup_anndata(reference, labels_key="cell_type", batch_key="run")
    if request.param == "SCTAB":
        model = SCTAB(reference, n_d=4, n_a=4)
    else:
        model = SCTABEnsemble(reference, n_members=2, n_d=4, n_a=4)
    model.train(max_epochs=2, **QUIET)
    mapped = type(model).load_query_data(query, model)
    mapped.train(**QUIET)
    path = tmp_path_factory.mktemp("mapped") / "model"
    mapped.save(path)
    return mapped, query, path


@pytest.fixture
def mapped(_mapped):
    return _mapped[0]


@pytest.fixture
def query(_mapped):
    return _mapped[1].copy()


@pytest.fixture
def path(_mapped):
    return _mapped[2]


def as_it_is(query):
    return query


def reversed_genes(query):
    return query[:, ::-1].copy()


def more_genes(query):
    extra = pd.DataFrame(index=[*query.var_names, "MALAT1"])
    counts = np.hstack([query.X, np.ones((query.n_obs, 1), "float32")])
    return AnnData(counts, query.obs, extra)[:, ::-1].copy()


def labels_of_authors(query):
    query.obs["cell_type"] = [f"cluster {i % 4}" for i in range(query.n_obs)]
    return query


def some_without_label(query):
    query.obs["cell_type"] = pd.Series(["unknown", None, np.nan] * 30, query.obs_names)
    return query


def fractions_for_batches(query):
    query.obs["run"] = query.obs["run"].astype("float64")
    return query


@pytest.mark.filterwarnings("ignore:Missing labels key")
@pytest.mark.parametrize(
    "change",
    [
        as_it_is,
        reversed_genes,
        more_genes,
        labels_of_authors,
        some_without_label,
        fractions_for_batches,
    ],
)
def test_a_model_of_a_query_takes_the_query_of_its_owner(mapped, query, path, change):
    cells = change(query)
    before = cells.copy()
    loaded = type(mapped).load(path, cells)
    assert list(loaded.adata.obs_names) == list(query.obs_names)
    pd.testing.assert_frame_equal(loaded.annotate(), mapped.annotate(), check_exact=True)
    assert list(loaded.labels) == list(mapped.labels)
    assert loaded.digest == mapped.digest
    columns = [c for c in cells.obs if not c.startswith("_scvi")]
    pd.testing.assert_frame_equal(cells.obs[columns], before.obs)
    loaded.train(**QUIET)  # adapts to all cells, and learns no label of the authors
    again = type(mapped).load(path, mapped.adata)
    again.train(**QUIET)
    pd.testing.assert_frame_equal(loaded.annotate(), again.annotate(), check_exact=True)


@pytest.mark.filterwarnings("ignore:Missing labels key")
def test_genes_that_the_query_lacks_count_as_zero(mapped, query, path):
    few = query[:, 2:].copy()
    loaded = type(mapped).load(path, few)
    assert loaded.adata.n_vars == N_GENES
    pd.testing.assert_frame_equal(loaded.annotate(), mapped.annotate(few), check_exact=True)


def test_cells_of_other_batches_are_refused(mapped, query, path):
    query.obs["run"] = 7
    with pytest.raises(ValueError, match=r"holds values that the model does not know: '7'"):
        type(mapped).load(path, query)


def test_the_saved_cells_of_a_query_are_taken_as_they_are(mapped, tmp_path):
    mapped.save(tmp_path / "model", save_anndata=True)
    loaded = type(mapped).load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.annotate(), mapped.annotate(), check_exact=True)
    assert loaded.digest == mapped.digest
