"""Cells in another layer, another container or of another kind."""

import inspect
import warnings

import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scvi_sctab import SCTAB, SCTABEnsemble
from scvi_sctab.external import ProteinPredictor
from scvi_sctab.pretrain import MaskedAutoencoder

QUIET = {"max_epochs": 3, "enable_progress_bar": False, "accelerator": "cpu"}
SHIFT = "ignore:These cells differ"

VERBS = {
    "predict": lambda m, x, **k: m.predict(x, **k),
    "annotate": lambda m, x, **k: m.annotate(x, **k),
    "get_latent_representation": lambda m, x, **k: m.get_latent_representation(x, **k),
    "get_prediction_sets": lambda m, x, **k: m.get_prediction_sets(x, **k),
    "get_novelty": lambda m, x, **k: m.get_novelty(x, **k),
    "get_shift": lambda m, x, **k: m.get_shift(x, **k),
    "get_attention": lambda m, x, **k: m.get_attention(x, **k).toarray(),
    "get_markers": lambda m, x, **k: m.get_markers(x, **k),
    "get_attributions": lambda m, x, **k: m.get_attributions(x, n_steps=2, **k).toarray(),
    "deletion_test": lambda m, x, **k: m.deletion_test({}, x, **k),
    "refine": lambda m, x, **k: m.refine(x, **k),
    "evaluate": lambda m, x, **k: m.evaluate(x, labels_key="type", **k),
    "trained_on": lambda m, x, **k: m.trained_on(x, **k),
}


def same(a, b):
    if isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b)
    else:
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def few(query, model):
    few = query[:60].copy()
    few.obs["type"] = np.resize(model.labels[:3], 60)
    return few


@pytest.mark.filterwarnings(SHIFT)
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_reads_the_layer_that_it_is_told(model, few, verb):
    expected = VERBS[verb](model, few)
    few.layers["counts"] = few.X.copy()
    few.X = few.X.copy()
    few.X.data = np.log1p(few.X.data)
    before = few.X.copy()
    same(VERBS[verb](model, few, layer="counts"), expected)
    assert (few.X != before).nnz == 0


def test_every_public_verb_that_takes_cells_takes_a_layer():
    skip = {"setup_anndata", "load_query_data", "from_pretrained", "prepare_query_anndata", "load"}
    skip |= {"member_class"}  # a class, not a verb
    for cls in (SCTAB, SCTABEnsemble, MaskedAutoencoder, ProteinPredictor):
        for name, verb in inspect.getmembers(cls, callable):
            if name.startswith("_") or name in skip or name not in _ours(cls):
                continue
            arguments = inspect.signature(verb).parameters
            if "adata" in arguments:
                assert "layer" in arguments, f"{cls.__name__}.{name}"


def _ours(cls):
    own = [c for c in cls.__mro__ if c.__module__.startswith("scvi_sctab")]
    return {name for c in own for name in vars(c)}


@pytest.mark.filterwarnings(SHIFT)
def test_a_model_of_a_layer_reads_x_where_it_is_told(reference, query):
    reference.layers["counts"] = reference.X.copy()
    SCTAB.setup_anndata(reference, layer="counts", labels_key="cell_type")
    model = SCTAB(reference)
    model.train(**QUIET)
    with pytest.raises(KeyError, match=r"layer='X'"):
        model.predict(query)
    labels = model.predict(query, layer="X")
    query.layers["counts"] = query.X
    np.testing.assert_array_equal(model.predict(query), labels)


def test_a_query_model_takes_counts_from_the_layer_that_it_is_told(reference, query):
    reference.layers["counts"] = reference.X.copy()
    SCTAB.setup_anndata(reference, layer="counts", labels_key="cell_type", batch_key="donor_id")
    model = SCTAB(reference)
    model.train(**QUIET)
    mapped = SCTAB.load_query_data(query, model, layer="X")
    assert list(mapped.adata.layers) == ["counts"]
    np.testing.assert_array_equal(mapped.predict(), model.predict(query, layer="X"))


def test_the_limit_of_gene_overlap_is_an_argument(model, query):
    few_genes = query[:, query.var_names.isin(model.gene_names[:50])].copy()
    few_genes = few_genes[np.asarray(few_genes.X.sum(axis=1)).ravel() > 0].copy()
    with pytest.raises(ValueError, match="min_gene_overlap=0.1"):
        model.predict(few_genes)
    with pytest.warns(UserWarning, match="17%"):
        assert len(model.predict(few_genes, min_gene_overlap=0.1)) == few_genes.n_obs


# --- what is no AnnData --------------------------------------------------------------------

OTHERS = {
    "path": (lambda a: "cells.h5ad", r"not a path: .*anndata.read_h5ad\('cells.h5ad'\)"),
    "matrix": (lambda a: a.X, r"not a csr_matrix: .*anndata.AnnData\(matrix"),
    "table": (lambda a: a.to_df(), r"not a DataFrame: .*anndata.AnnData\(table\)"),
    "list": (lambda a: [a], r"not a list: .*anndata.concat"),
    "class": (lambda a: AnnData, r"not a type: pass the object itself"),
    "number": (lambda a: 3, r"not a int"),
    "MuData": (lambda a: mudata.MuData({"rna": a}), r'not a MuData: .*mdata\["rna"\]'),
}


@pytest.mark.filterwarnings("ignore:.*pull_on_update:FutureWarning")
@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_anndata_is_named_with_the_way_to_make_one(model, few, kind):
    make, message = OTHERS[kind]
    what = make(few)
    mask = MaskedAutoencoder
    for verb in (
        model.predict,
        model.annotate,
        model.evaluate,
        model.calibrate,
        model.get_markers,
        model.trained_on,
        lambda x: SCTAB.load_query_data(x, model),
        lambda x: SCTAB.prepare_query_anndata(x, model),
        lambda x: SCTAB.setup_anndata(x, labels_key="cell_type"),
        mask.setup_anndata,
        lambda x: ProteinPredictor.setup_anndata(x, "protein"),
    ):
        with pytest.raises(TypeError, match=message):
            verb(what)


# --- MuData --------------------------------------------------------------------------------


@pytest.fixture
def mdata(reference):
    protein = AnnData(np.ones((reference.n_obs, 3), np.float32), reference.obs[[]])
    kinds = reference.obs["cell_type"].to_numpy()
    with warnings.catch_warnings():
        # Older versions of mudata announce what newer ones do.
        warnings.filterwarnings("ignore", ".*pull_on_update", FutureWarning)
        mdata = mudata.MuData({"prot": protein, "rna": reference})
    mdata.obs["author_label"] = kinds
    return mdata


@pytest.mark.parametrize("cls", [SCTAB, SCTABEnsemble])
@pytest.mark.parametrize(
    ("labels_key", "modalities"),
    [
        ("author_label", {"layer": "rna"}),
        ("cell_type", {"layer": "rna", "labels_key": "rna"}),
        ("cell_type", {"layer": "rna"}),
    ],
)
def test_a_mudata_is_set_up_in_the_hosts_grammar(
    mdata, reference, tmp_path, labels_key, modalities, cls
):
    cls.setup_mudata(mdata, labels_key=labels_key, modalities=modalities)
    model = cls(mdata, n_members=1) if cls is SCTABEnsemble else cls(mdata)
    model.train(**QUIET)
    expected = model.predict(reference)
    np.testing.assert_array_equal(model.predict(mdata), expected)
    np.testing.assert_array_equal(model.predict(), expected)
    model.annotate(mdata, key_added="sctab")
    assert list(mdata.obs["sctab_label"].astype(str)) == expected.tolist()
    model.save(tmp_path / "model")
    again = cls.load(tmp_path / "model", adata=False)
    np.testing.assert_array_equal(again.predict(mdata), expected)
    np.testing.assert_array_equal(again.predict(reference), expected)


def test_a_covariate_of_a_mudata_may_be_given_by_its_name(mdata):
    SCTAB.setup_mudata(
        mdata,
        labels_key="author_label",
        categorical_covariate_keys="donor_id",
        modalities={"layer": "rna"},
    )
    assert [key for key, _ in SCTAB(mdata).conditions] == ["donor_id"]


def test_a_mudata_is_mapped(mdata, reference):
    SCTAB.setup_mudata(
        mdata, labels_key="author_label", batch_key="donor_id", modalities={"layer": "rna"}
    )
    model = SCTAB(mdata)
    model.train(**QUIET)
    mapped = SCTAB.load_query_data(mdata, model, policy="head")
    np.testing.assert_array_equal(mapped.predict(), model.predict(reference))


def test_a_mudata_without_the_modality_or_the_column_is_refused(mdata, reference):
    with pytest.raises(ValueError, match=r"modalities=\{'layer': 'prot'\}"):
        SCTAB.setup_mudata(mdata, labels_key="cell_type")
    with pytest.raises(KeyError, match="no modality 'RNA'.*'prot', 'rna'"):
        SCTAB.setup_mudata(mdata, labels_key="cell_type", modalities={"layer": "RNA"})
    with pytest.raises(KeyError, match="labels_key='nonsense' is a column of neither"):
        SCTAB.setup_mudata(mdata, labels_key="nonsense", modalities={"layer": "rna"})
    with pytest.raises(TypeError, match=r"SCTAB.setup_anndata\(adata"):
        SCTAB.setup_mudata(reference, labels_key="cell_type", modalities={"layer": "rna"})
    with pytest.raises(ValueError, match="Set the MuData up first"):
        SCTAB(mdata)


# --- names in and out ----------------------------------------------------------------------


@pytest.mark.filterwarnings(SHIFT)
def test_annotations_are_written_under_a_prefix_as_often_as_one_likes(model, query):
    plain = model.annotate(query)
    for _ in range(2):
        frame = model.annotate(query, key_added="sctab")
    pd.testing.assert_frame_equal(frame, plain.add_prefix("sctab_"))
    pd.testing.assert_frame_equal(query.obs[list(frame)], frame)
    assert "label" not in query.obs


@pytest.mark.filterwarnings(SHIFT)
def test_cells_that_were_not_asked_about_have_no_annotation(model, query):
    frame = model.annotate(query, indices=[5, 3], key_added="a")
    assert query.obs["a_label"].notna().sum() == 2
    assert query.obs["a_label"].iloc[3] == frame["a_label"].iloc[1]


def test_nothing_is_written_without_a_prefix(model, few):
    before = few.obs.copy()
    model.annotate(few)
    pd.testing.assert_frame_equal(few.obs, before)


@pytest.mark.filterwarnings(SHIFT)
def test_cells_that_are_novel_or_fit_no_label_are_unassigned(model, query):
    rates = {"error_rate": 0.2, "false_alarm_rate": 0.1}
    plain = model.annotate(query, **rates)
    frame = model.annotate(query, unassigned="unassigned", **rates)
    unknown = plain["novel"] | (plain["prediction_set"] == "no label")
    assert 0 < unknown.sum() < len(unknown)
    np.testing.assert_array_equal(frame["label"] == "unassigned", unknown)
    assert (frame["label"][~unknown].astype(str) == plain["label"][~unknown].astype(str)).all()
    pd.testing.assert_series_equal(frame["closest_label"], plain["label"], check_names=False)
    assert list(frame)[:2] == ["label", "closest_label"]


@pytest.mark.filterwarnings(SHIFT)
def test_a_prediction_set_is_never_an_empty_string(model, query):
    sets = model.annotate(query, error_rate=0.5)["prediction_set"]
    assert (sets == "no label").any()
    assert not (sets == "").any()


def test_a_word_for_unassigned_must_be_no_label_and_takes_a_calibration(model, query, reference):
    with pytest.raises(ValueError, match="unassigned='B' is a label of the model"):
        model.annotate(query, unassigned="B")
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    bare = SCTAB(reference)
    bare.train(train_size=1.0, **QUIET)
    with pytest.raises(RuntimeError, match="not calibrated"):
        bare.annotate(query, unassigned="unassigned")


@pytest.mark.parametrize(
    ("argument", "cure"),
    [("n_hidden", "`n_d=`"), ("dropout_rate", "plan_kwargs"), ("max_epochs", "train")],
)
def test_a_guessed_hyperparameter_gets_the_one_that_is_meant(reference, argument, cure):
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    with pytest.raises(TypeError, match=rf"no hyperparameters \['{argument}'\].*{cure}"):
        SCTAB(reference, **{argument: 1})
