"""Each kind of bad input stops with a message that names the culprit and the cure."""

import re

import numpy as np
import pytest
from anndata import read_h5ad
from scipy import sparse

from scvi_sctab import SCTAB
from scvi_sctab.data import GeneMismatchError, NotCountsError
from scvi_sctab.pretrain import MaskedAutoencoder


def setup(adata, **arguments):
    SCTAB.setup_anndata(adata, **{"labels_key": "cell_type", **arguments})


def relabel(adata, mask, label):
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(str)
    adata.obs.loc[mask, "cell_type"] = label


def log_normalised(x):
    x = sparse.csr_matrix(x.multiply(1e4 / x.sum(axis=1)))
    return x.log1p()


def scaled(x):
    x = log_normalised(x).toarray()
    return (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)


def with_value(value):
    def change(x):
        x = x.copy()
        x.data[5] = value
        return x

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(log_normalised, "looks log-normalised", id="log-normalised"),
        pytest.param(scaled, "looks scaled or centred", id="scaled"),
        pytest.param(with_value(-3), "-3 in cell", id="negative"),
        pytest.param(with_value(np.nan), "holds NaN", id="NaN"),
        pytest.param(with_value(np.inf), "holds infinite values", id="inf"),
    ],
)
def test_what_is_not_counts_is_refused_at_setup_and_at_prediction(
    reference, query, model, change, message
):
    reference.X, query.X = change(reference.X), change(query.X)
    with pytest.raises(NotCountsError, match=message):
        setup(reference)
    with pytest.raises(NotCountsError, match=message):
        model.predict(query)


def emptied(adata, n_cells):
    full = sparse.diags((np.arange(adata.n_obs) >= n_cells).astype(np.float32))
    adata.X = sparse.csr_matrix(full @ adata.X)


def test_empty_cells_of_a_reference_are_refused_with_their_names(reference):
    emptied(reference, 7)
    first = reference.obs_names[0]
    with pytest.raises(ValueError, match=rf"7 of 924 cells .*'{first}'.*and 2 more.*filter_cells"):
        setup(reference)


def test_empty_cells_of_a_query_are_warned_about(model, query):
    emptied(query, 2)
    with pytest.warns(
        UserWarning, match=rf"2 of 528 cells .*'{query.obs_names[1]}'.*means nothing"
    ):
        assert len(model.predict(query)) == query.n_obs


def test_duplicate_genes_are_refused(reference, query, model):
    for adata in (reference, query):
        adata.var_names = [*adata.var_names[:-1], adata.var_names[0]]
    with pytest.raises(GeneMismatchError, match=f"are duplicated.*{reference.var_names[0]}"):
        setup(reference)
    with pytest.raises(GeneMismatchError, match=f"are duplicated.*{query.var_names[0]}"):
        model.predict(query)


def test_no_overlap_of_symbols_with_ensembl_ids_says_so(model, query):
    query.var["symbol"] = query.var_names
    query.var_names = query.var["feature_id"].to_numpy()
    with pytest.raises(
        GeneMismatchError, match=r"only 0 of.*var_names are Ensembl ids.*query.var\['symbol'\]"
    ):
        model.predict(query)


def test_too_few_genes_stop(reference, query, model):
    with pytest.raises(GeneMismatchError, match="has 5 genes, too few"):
        setup(reference[:, :5].copy())
    with pytest.raises(GeneMismatchError, match=r"only 60 of the model's 300 genes \(20%\)"):
        model.predict(query[:, :60].copy())


@pytest.mark.parametrize(
    "key", ["labels_key", "batch_key", "donor_key", "categorical_covariate_keys"]
)
def test_unknown_keys_are_named_with_a_near_one(reference, key):
    value = ["donor_ids"] if key == "categorical_covariate_keys" else "donor_ids"
    with pytest.raises(KeyError, match=f"{key}='donor_ids' is not.*did you mean 'donor_id'"):
        setup(reference, **{key: value})


def test_a_missing_labels_key_is_asked_for(reference):
    with pytest.raises(ValueError, match=r"`labels_key=`: one of \['cell_type'"):
        SCTAB.setup_anndata(reference)


@pytest.mark.filterwarnings("ignore:.*fewer than 3 cells", "ignore:.*come from one donor only")
@pytest.mark.parametrize("dtype", ["category", object, "string"])
@pytest.mark.parametrize(
    "key", ["labels_key", "batch_key", "donor_key", "categorical_covariate_keys"]
)
def test_missing_values_in_a_key_column_are_named_with_a_cure_that_works(reference, key, dtype):
    labels = reference.obs["cell_type"].astype(object)
    labels.iloc[3] = None
    reference.obs["column"] = labels.astype(dtype)
    name = reference.obs_names[3]
    arguments = {key: ["column"] if key == "categorical_covariate_keys" else "column"}
    with pytest.raises(ValueError, match=rf"{key}='column' has 1 missing.*'{name}'") as error:
        setup(reference, **arguments)
    (cure,) = re.findall(r"e\.g\. `(.*)`\.$", str(error.value))
    exec(cure, {"adata": reference})
    expected = "unknown" if key == "labels_key" else "missing"
    assert reference.obs["column"].iloc[3] == expected
    setup(reference, **arguments)


@pytest.mark.parametrize("dtype", [int, float, bool])
def test_labels_that_are_not_strings_are_refused_with_the_cure(reference, dtype):
    reference.obs["cell_type"] = (reference.obs["cell_type"] == "B").astype(dtype)
    with pytest.raises(ValueError, match=r"not strings: `adata.obs\['cell_type'\] = .*astype"):
        setup(reference)


def test_a_view_is_refused(reference):
    with pytest.raises(ValueError, match=r"a view of another AnnData; pass a copy"):
        setup(reference[:100])


def test_counts_replaced_after_setup_are_refused_before_training(reference):
    setup(reference)
    model = SCTAB(reference)
    reference.X = log_normalised(reference.X)
    with pytest.raises(NotCountsError, match="looks log-normalised"):
        model.train(max_epochs=1)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0.9, 1.9], "positions or a mask of 528 cells, not float64"),
        ([True, False], "positions or a mask of 528 cells, not bool"),
        (["AAACATACAACCAC"], "get_indexer"),
        ([-1], "reach from -1"),
        ([528], "numbered 0 to 527"),
        (3, r"of shape \(\)"),
    ],
)
def test_indices_that_do_not_fit_are_refused(model, query, indices, message):
    with pytest.raises(ValueError, match=message):
        model.predict(query, indices)


def test_cells_that_share_names_cannot_be_annotated(model, query):
    query.obs_names = ["cell"] * query.n_obs
    with pytest.raises(ValueError, match=r"Cells share names.*obs_names_make_unique"):
        model.annotate(query)


def test_a_label_with_one_cell_is_refused(reference):
    relabel(reference, reference.obs_names[4], "odd one")
    with pytest.raises(ValueError, match="fewer than 2 cells cannot be learnt: 'odd one'. Merge"):
        setup(reference)


@pytest.mark.parametrize("name", ["Unknown", "unassigned", "NA "])
def test_a_label_that_reads_as_none_is_asked_about(reference, name):
    reference.obs["cell_type"] = reference.obs["cell_type"].astype(str)
    reference.obs.iloc[:20, reference.obs.columns.get_loc("cell_type")] = name
    match = rf"20 cells are labelled {name!r}, .* say so: `unlabeled_category={name!r}`"
    with pytest.warns(UserWarning, match=match):
        SCTAB.setup_anndata(reference, labels_key="cell_type")
    SCTAB.setup_anndata(reference, labels_key="cell_type", unlabeled_category=name)
    assert name not in SCTAB(reference).labels


def test_a_label_with_one_donor_is_warned_about(reference):
    relabel(reference, reference.obs["donor_id"] == "107", "odd ones")
    with pytest.warns(UserWarning, match="one donor only: 'odd ones'"):
        setup(reference, donor_key="donor_id")


def test_only_unlabelled_cells_are_refused(reference):
    relabel(reference, reference.obs_names, "unknown")
    with pytest.raises(ValueError, match="All 924 cells are unlabelled.*'unknown'"):
        setup(reference)


def test_a_single_label_is_refused(reference):
    relabel(reference, reference.obs_names, "cell")
    with pytest.raises(ValueError, match="one label only, 'cell'"):
        setup(reference)


@pytest.mark.parametrize(
    "method",
    ["predict", "annotate", "get_latent_representation", "get_attention", "get_markers",
     "evaluate"],
)  # fmt: skip
def test_asking_before_training_is_refused(reference, method):
    setup(reference)
    with pytest.raises(RuntimeError, match=r"not trained: call `model.train\(\)` first"):
        getattr(SCTAB(reference), method)(reference)


def test_an_adata_that_was_not_set_up_is_refused(reference):
    with pytest.raises(ValueError, match="setup_anndata"):
        SCTAB(reference)


def test_labels_to_evaluate_on_must_be_there(model, query):
    with pytest.raises(KeyError, match="labels_key='label' is not a column"):
        model.evaluate(query, labels_key="label")
    query.obs["cell_type"] = "unknown"
    with pytest.raises(ValueError, match="no labelled cell to evaluate on"):
        model.evaluate(query)


@pytest.mark.parametrize(
    ("indexing", "message"),
    [
        ([[], [1]], "with cells to train on"),
        ([[1, 2], [2]], "a cell more than once"),
        ([[0], [1], [2], [3]], "train, validation, test"),
        ([[0, 5000]], "numbered 0 to 923"),
        ([[0, -1]], "reach from -1"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(reference, indexing, message):
    setup(reference)
    with pytest.raises(ValueError, match=message):
        SCTAB(reference).train(datasplitter_kwargs={"external_indexing": indexing})


def test_cells_without_labels_cannot_be_trained_on(reference):
    relabel(reference, reference.obs_names[:50], "unknown")
    setup(reference)
    with pytest.raises(ValueError, match="None of the cells to train on has a label"):
        SCTAB(reference).train(datasplitter_kwargs={"external_indexing": [np.arange(50)]})


def test_early_stopping_without_held_out_cells_is_refused(reference):
    setup(reference)
    with pytest.raises(ValueError, match="early_stopping needs held-out cells"):
        SCTAB(reference).train(train_size=1.0, early_stopping=True)


def test_batches_of_one_cell_are_refused(reference):
    setup(reference)
    with pytest.raises(ValueError, match="Batch norm needs two cells per step.*batch_size=1"):
        SCTAB(reference).train(batch_size=1)


def test_genes_under_another_spelling_are_named_with_a_line_that_gives_the_same_labels(
    model, query
):
    right = model.predict(query)
    query.var_names = query.var_names.str.replace("-", ".")
    with pytest.warns(
        UserWarning, match=r"of the model's genes are in the query .*'HLA-.*' as 'HLA\."
    ) as said:
        wrong = model.predict(query)
    assert (wrong != right).any()
    (line,) = re.findall(r"`(.*)`", str(said[0].message))
    exec(line, {"query": query, "model": model})
    np.testing.assert_array_equal(model.predict(query), right)


def test_mouse_cells_are_not_labelled_by_a_human_model(model, query):
    query.var_names = query.var_names.str.capitalize()
    with pytest.raises(GeneMismatchError, match="look like mouse symbols.*to human orthologs"):
        model.predict(query)


def with_noise(x):
    return x * 1.0000003


def without_ambient_counts(x):
    return x - 0.07 * np.random.default_rng(0).random(len(x)) * np.minimum(x, 5)


@pytest.mark.filterwarnings("ignore:.*fewer than 3 cells")
@pytest.mark.parametrize("change", [with_noise, without_ambient_counts])
def test_counts_that_rounding_cures_are_set_up_and_predicted_after_the_line_to_type(
    query, model, change
):
    right = model.predict(query)
    query.X = query.X.astype(np.float64)
    query.X.data = change(query.X.data)
    with pytest.raises(NotCountsError, match="ound them: `adata.X") as error:
        model.predict(query)
    (line,) = re.findall("ound them: `(.*?)`", str(error.value))
    with pytest.raises(NotCountsError, match=re.escape(line)):
        setup(query)
    exec(line, {"adata": query})
    setup(query)
    assert (model.predict(query) == right).mean() > 0.95


def test_backed_views_that_anndata_misreads_stop_everywhere_with_the_same_line(
    model, query, tmp_path
):
    query.write_h5ad(tmp_path / "query.h5ad")
    backed = read_h5ad(tmp_path / "query.h5ad", backed="r")
    verbs = (model.predict, model.annotate, setup, MaskedAutoencoder.setup_anndata)
    for verb in verbs:
        with pytest.raises(ValueError, match=r"negative step.*`adata = backed.to_memory\(\)\["):
            verb(backed[::-1])
    np.testing.assert_array_equal(
        model.predict(backed.to_memory()[::-1]), model.predict(query)[::-1]
    )
    with pytest.raises(
        ValueError, match=r"a view of another AnnData; pass .*`adata.to_memory\(\)`"
    ):
        setup(backed[:100])
