"""A model whose labels are placed in the Cell Ontology."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score

from scvi_sctab import SCTAB, SCTABEnsemble
from scvi_sctab.annotation import scaling_method
from scvi_sctab.nn import UNLABELED_CODE, marginal_cross_entropy, weighted_cross_entropy
from scvi_sctab.ontology import CellOntology, Term

QUIET = {"max_epochs": 20, "enable_progress_bar": False, "accelerator": "cpu"}
TERMS = {
    "B": "CL:0000236",
    "B Activated": "CL:0000236",
    "CD14 Mono": "CL:0001054",
    "CD16 Mono": "CL:0002396",
    "CD4 Memory T": "CL:0000897",
    "CD4 Naive T": "CL:0000895",
    "CD8 T": "CL:0000625",
    "DC": "CL:0000451",
    "NK": "natural killer cell",
}
T_CELLS = ["CD4 Memory T", "CD4 Naive T", "CD8 T"]
COARSE = "T cell"
MEGAKARYOCYTE = "CL:0000556"
KNOWN = {label: TERMS[label] for label in (*T_CELLS, "CD14 Mono", "NK")}


@pytest.fixture
def placed(model):
    """A trained model with an ontology; the shared model gets it taken away again."""
    model.set_ontology(TERMS)
    yield model
    model.hierarchy_ = None


@pytest.fixture
def held_out(reference, model):
    return reference[model.validation_indices].copy()


@pytest.fixture(scope="module")
def without_megakaryocytes():
    """The bundled ontology but for one term that the data have cells of."""
    everything = CellOntology.load()
    terms = {
        term_id: term._replace(parents=tuple(p for p in term.parents if p != MEGAKARYOCYTE))
        for term_id, term in everything.terms.items()
        if term_id != MEGAKARYOCYTE
    }
    return CellOntology("without megakaryocytes", terms)


def test_labels_are_matched_by_usual_names(model, caplog):
    try:
        with caplog.at_level("INFO", "scvi.sctab"):
            matches = model.set_ontology()
        assert list(model.hierarchy.labels) == list(model.labels) == list(matches.index)
        assert matches.loc["NK", "term_id"] == "CL:0000623"
        assert (matches["term_id"] != "").all()
        assert "'CD14 Mono' is CD14-positive monocyte" in caplog.text
    finally:
        model.hierarchy_ = None


def test_labels_that_are_not_found_are_listed_with_near_misses(model, without_megakaryocytes):
    try:
        with pytest.warns(
            UserWarning,
            match=r"1 of 11 labels .*: 'Mk' \(near misses: .*megakaryocyte.*\{'Mk': 'CL:\.\.\.'\}",
        ):
            matches = model.set_ontology(ontology=without_megakaryocytes)
        assert matches.loc["Mk", ["term_id", "term", "matched_by"]].tolist() == ["", "", ""]
        assert "megakaryocyte" in matches.loc["Mk", "near_misses"]
        assert (matches["term_id"].drop("Mk") != "").all()
    finally:
        model.hierarchy_ = None


def test_all_wrong_entries_are_reported_at_once(model):
    with pytest.raises(ValueError, match="'NKK' is no label of the model") as error:
        model.set_ontology(
            {"NKK": "CL:0000623", "B": "B cel", "DC": "CL:0000451", "Mk": "CL:9999999"},
            coarse_labels=["T sell"],
        )
    lines = str(error.value).splitlines()
    assert lines[0] == "'NKK' is no label of the model; did you mean 'NK'?"
    assert lines[1].startswith("'T sell' is no label of the model")
    assert "takes 'B' to 'B cel'" in lines[2]
    assert "Near misses: B cell (CL:0000236)" in lines[2]
    assert "takes 'Mk' to 'CL:9999999'" in lines[3]
    assert len(lines) == 4
    assert model.hierarchy is None


def test_an_ontology_with_none_of_the_labels_and_late_coarse_labels_are_refused(model):
    nothing = CellOntology("empty", {"CL:0000000": Term("cell")})
    with pytest.raises(ValueError, match="None of the labels is a term"):
        model.set_ontology(ontology=nothing)
    with pytest.raises(ValueError, match="name them before training"):
        model.set_ontology(TERMS, coarse_labels=["CD14 Mono"])


def test_cells_of_a_label_without_a_term_are_told_apart_from_undecided_ones(
    model, held_out, without_megakaryocytes
):
    try:
        with pytest.warns(UserWarning, match="not found in the Cell Ontology"):
            model.set_ontology(ontology=without_megakaryocytes)
        annotation = model.annotate(term_level=0.9)
    finally:
        model.hierarchy_ = None
    of_mk = annotation["label"] == "Mk"
    assert of_mk.any()
    assert set(annotation.loc[of_mk, "term"]) == {"not in the Cell Ontology: Mk"}
    assert set(annotation.loc[of_mk, "term_id"]) == {"CL:0000000"}
    assert annotation.loc[of_mk, "term_probability"].to_numpy() == pytest.approx(1, abs=1e-6)
    others = annotation[~of_mk]
    assert not others["term"].str.startswith("not in").any()
    undecided = others["term_id"] == "CL:0000000"
    assert undecided.any()
    assert set(others.loc[undecided, "term"]) == {"cell"}
    alone = annotation["prediction_set"] == "Mk"
    assert alone.any()
    assert set(annotation.loc[alone, "set_term"]) == {"not in the Cell Ontology: Mk"}
    with_others = annotation["prediction_set"].str.contains(r"\| Mk|Mk \|")
    assert not annotation.loc[with_others, "set_term"].str.startswith("not in").any()


def test_the_term_is_the_most_specific_one_that_suffices(placed, held_out):
    annotation = placed.annotate(held_out, term_level=0.8)
    soft, hierarchy = placed.predict(held_out, soft=True), placed.hierarchy
    for cell, row in annotation.iterrows():
        position = list(hierarchy.terms).index(row["term_id"])
        under = hierarchy.members[position]
        assert row["term_probability"] == pytest.approx(soft.loc[cell][under].sum(), abs=1e-4)
        assert row["term_probability"] >= 0.8 or row["term"] == "cell"
        finer = [
            other
            for other in range(len(hierarchy.terms))
            if hierarchy.members[other].sum() < under.sum()
            and soft.loc[cell][hierarchy.members[other]].sum() >= 0.8 + 1e-5
        ]
        assert finer == []
    sure = placed.annotate(held_out, term_level=0.99)
    depth = dict(zip(hierarchy.terms, hierarchy.members.sum(axis=1), strict=True))
    assert (
        sure["term_id"].map(depth).astype(int) >= annotation["term_id"].map(depth).astype(int)
    ).all()
    # Some cells are between labels: their term is that of none of these.
    assert (~sure["term_id"].isin(hierarchy.terms[hierarchy.own[hierarchy.own >= 0]])).any()


def test_the_term_of_a_set_covers_it(placed, held_out):
    annotation = placed.annotate(held_out, error_rate=0.03)
    hierarchy = placed.hierarchy
    for _, row in annotation.iterrows():
        if not row["prediction_set"]:
            assert pd.isna(row["set_term"])
            continue
        inside = np.isin(hierarchy.labels, row["prediction_set"].split(" | "))
        position = list(hierarchy.names).index(row["set_term"])
        assert hierarchy.members[position][inside].all()


def test_corrected_scores_accept_finer_labels(placed, held_out):
    report = placed.evaluate(held_out)
    truth, predicted = held_out.obs["cell_type"].to_numpy(), placed.predict(held_out)
    accepted = placed.hierarchy.child_matrix()
    code = {label: i for i, label in enumerate(placed.hierarchy.labels)}
    corrected = [
        t if accepted[code[t], code[p]] else p for t, p in zip(truth, predicted, strict=True)
    ]
    expected = f1_score(
        truth, corrected, labels=np.unique(truth), average="macro", zero_division=0
    )
    row = report.loc["macro average, ontology-corrected"]
    assert row["f1"] == pytest.approx(expected)
    assert row["f1"] >= report.loc["macro average", "f1"]


def test_a_saved_model_needs_no_ontology_file(placed, held_out, tmp_path):
    placed.save(tmp_path / "model")
    again = SCTAB.load(tmp_path / "model", adata=False)
    pd.testing.assert_frame_equal(again.annotate(held_out), placed.annotate(held_out))


@pytest.fixture
def mixed(reference):
    """Half of the T cells are known as T cells only."""
    cells = reference[reference.obs["cell_type"].isin([*T_CELLS, "CD14 Mono", "NK"])].copy()
    labels = cells.obs["cell_type"].astype(str)
    coarse = labels.isin(T_CELLS) & (np.random.default_rng(0).random(cells.n_obs) < 0.5)
    cells.obs["truth"] = labels
    cells.obs["cell_type"] = labels.mask(coarse, COARSE).astype("category")
    return cells


def test_cells_of_a_coarse_label_teach_that_they_are_one_of_several(mixed):
    SCTAB.setup_anndata(mixed, labels_key="cell_type")
    model = SCTAB(mixed)
    model.set_ontology({**KNOWN}, coarse_labels=[COARSE])
    assert model.coarse_labels == {COARSE: T_CELLS}
    model.train(**QUIET)
    soft, labels = model.predict(soft=True), model.predict()
    assert soft[COARSE].max() < 1e-6
    # How frequent the finer labels are is not known.
    assert scaling_method(model.annotation, np.ones(len(model.labels), int)) == "temperature"
    assert COARSE not in set(labels)
    known = (mixed.obs["cell_type"] != COARSE).to_numpy()
    truth = mixed.obs["truth"].to_numpy()
    assert np.isin(labels[~known], T_CELLS).mean() > 0.9
    assert (labels[known] == truth[known]).mean() > 0.8
    undecided = model.annotate(term_level=0.95)["term"].isin(
        ["T cell", "mature alpha-beta T cell"]
    )
    assert np.isin(truth[undecided], T_CELLS).mean() > 0.9
    assert undecided.any()


def test_what_coarse_labels_stand_for_is_saved(mixed, tmp_path):
    SCTAB.setup_anndata(mixed, labels_key="cell_type")
    model = SCTAB(mixed, coarse_labels={COARSE: T_CELLS})
    model.train(**QUIET | {"max_epochs": 2})
    model.save(tmp_path / "model")
    for allow_pickle in (False, True):
        again = SCTAB.load(tmp_path / "model", adata=False, allow_pickle=allow_pickle)
        assert again.coarse_labels == model.coarse_labels
        pd.testing.assert_frame_equal(again.predict(mixed, soft=True), model.predict(soft=True))
        (tmp_path / "model" / "model.safetensors").unlink(missing_ok=True)


def test_labels_with_finer_ones_stay_labels_unless_they_are_called_coarse(reference):
    """To the ontology CD16 monocytes are CD14 monocytes, which have cells of their own."""
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    model = SCTAB(reference)
    model.set_ontology(TERMS)
    assert model.hierarchy.coarse().any()
    assert not model.coarse_labels
    model.train(**QUIET)
    assert (model.predict() == "CD14 Mono").sum() > 100


def test_coarse_labels_that_make_no_sense_are_refused(mixed):
    SCTAB.setup_anndata(mixed, labels_key="cell_type")
    with pytest.raises(ValueError, match="'CD5 T' is no label of the model"):
        SCTAB(mixed, coarse_labels={COARSE: ["CD5 T"]})
    for nonsense in ({COARSE: []}, {COARSE: ["CD8 T"], "CD8 T": [COARSE]}):
        with pytest.raises(ValueError, match="stands for .*, none of which can be predicted"):
            SCTAB(mixed, coarse_labels=nonsense)
    with pytest.raises(ValueError, match="No label is a kind of 'NK'"):
        SCTAB(mixed).set_ontology(KNOWN, coarse_labels=["NK"])


def test_coarse_labels_may_stand_for_others(mixed):
    SCTAB.setup_anndata(mixed, labels_key="cell_type")
    model = SCTAB(mixed, coarse_labels={"NK": [COARSE], COARSE: T_CELLS})
    accepted = model.module.accepted.numpy()
    np.testing.assert_array_equal(
        accepted[list(model.labels).index("NK")], np.isin(model.labels, T_CELLS)
    )


@pytest.fixture(scope="module")
def _taught(_cuts):
    """A model that learnt from coarse labels, with cells held out."""
    cells = _cuts[0][_cuts[0].obs["cell_type"].isin([*T_CELLS, "CD14 Mono", "NK"])].copy()
    labels = cells.obs["cell_type"].astype(str)
    coarse = labels.isin(T_CELLS) & (np.arange(cells.n_obs) % 2 == 0)
    cells.obs["cell_type"] = labels.mask(coarse, COARSE).astype("category")
    cells.obs["sample"] = cells.obs["condition"].astype(str)
    SCTAB.setup_anndata(cells, labels_key="cell_type", batch_key="sample")
    model = SCTAB(cells, coarse_labels={COARSE: T_CELLS})
    model.train(train_size=0.7, **QUIET)
    return model


@pytest.fixture
def taught(_taught):
    """Shared: do not train it further."""
    return _taught


def test_a_coarse_label_is_in_no_set_and_no_attribution(taught):
    assert taught.calibration is not None
    for options in ({"error_rate": 1e-4}, {"by_label": True}):
        assert not taught.get_prediction_sets(**options)[COARSE].any()
    assert COARSE not in set(taught.get_markers()["group"])
    pytest.importorskip("captum")
    with pytest.raises(ValueError, match="'T cell' only stands for"):
        taught.get_attributions(label=COARSE)
    contributions = taught.get_attributions(indices=[0, 1], label="NK")
    assert abs(contributions.sum(axis=1)).max() < 100


def test_scores_take_what_a_coarse_label_stands_for_as_right(taught):
    truth = taught.adata.obs["cell_type"].to_numpy()
    predicted = taught.predict()
    right = (truth == predicted) | ((truth == COARSE) & np.isin(predicted, T_CELLS))
    with pytest.warns(UserWarning, match="trained on"):
        report = taught.evaluate(indices=np.arange(len(truth)))
    assert report.loc["accuracy", "f1"] == pytest.approx(right.mean())
    held_out = taught.validation_indices
    logged = taught.history["validation_accuracy"].to_numpy().ravel()
    assert np.abs(logged.astype(float) - right[held_out].mean()).min() < 1e-6


def test_coarse_cells_of_a_query_do_not_open_their_label(taught):
    query = taught.adata.copy()
    query.obs["sample"] = "new " + query.obs["sample"].astype(str)
    mapped = SCTAB.load_query_data(query, taught, learn_labels=True)
    mapped.train(enable_progress_bar=False, accelerator="cpu")
    assert mapped.coarse_labels == taught.coarse_labels
    code = list(mapped.labels).index(COARSE)
    bias = mapped.module.query_paths.paths[-1].bias.detach()
    assert bias[code] <= bias.max()
    assert (mapped.predict() != COARSE).all()
    known = (query.obs["cell_type"] != COARSE).to_numpy()
    assert (mapped.predict() == query.obs["cell_type"].to_numpy())[known].mean() > 0.8


def test_few_cells_to_calibrate_on_do_not_stop_training(mixed):
    SCTAB.setup_anndata(mixed, labels_key="cell_type")
    model = SCTAB(mixed, coarse_labels={COARSE: T_CELLS})
    model.train(train_size=0.91, **QUIET | {"max_epochs": 1})
    held_out = mixed.obs["cell_type"].iloc[model.validation_indices]
    assert (held_out != COARSE).sum() < 50 < len(held_out)
    assert model.calibration is None


def test_an_ensemble_has_an_ontology_too(mixed, tmp_path):
    SCTABEnsemble.setup_anndata(mixed, labels_key="cell_type")
    ensemble = SCTABEnsemble(mixed, n_members=2)
    ensemble.set_ontology(KNOWN, coarse_labels=[COARSE])
    ensemble.train(**QUIET | {"max_epochs": 3})
    annotation = ensemble.annotate()
    assert {"term", "term_id", "term_probability", "set_term"} <= {*annotation}
    assert COARSE not in set(annotation["label"])
    ensemble.save(tmp_path / "ensemble")
    again = SCTABEnsemble.load(tmp_path / "ensemble", adata=False)
    pd.testing.assert_frame_equal(again.annotate(mixed), annotation)


def test_a_query_keeps_the_ontology_and_new_labels_are_cells(reference):
    reference.obs["sample"] = reference.obs["condition"].astype(str)
    old = reference[(reference.obs["cell_type"] != "NK").to_numpy()].copy()
    query = reference[::2].copy()
    query.obs["sample"] = "new"
    SCTAB.setup_anndata(old, labels_key="cell_type", batch_key="sample")
    model = SCTAB(old)
    model.set_ontology({label: term for label, term in TERMS.items() if label != "NK"})
    model.train(**QUIET | {"max_epochs": 3})
    with pytest.warns(UserWarning, match="NK"):
        mapped = SCTAB.load_query_data(query, model, learn_labels=True)
    hierarchy = mapped.hierarchy
    assert list(hierarchy.labels) == list(mapped.labels)
    assert hierarchy.members[:, -1].sum() == 1
    assert hierarchy.members[0, -1]


def test_the_marginal_loss_is_that_of_a_sum_of_probabilities():
    torch.manual_seed(0)
    logits = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 3, 3, UNLABELED_CODE, 2])
    accepted = torch.eye(4, dtype=torch.bool)
    accepted[3] = torch.tensor([True, True, False, False])
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
    p = logits.softmax(dim=1)
    likelihood = [p[0, 0], p[1, 1], p[2, :2].sum(), p[3, :2].sum(), None, p[5, 2]]
    terms = [
        -weights[y] * q.log() for y, q in zip(labels, likelihood, strict=True) if q is not None
    ]
    total = weights[labels[labels >= 0]].sum()
    loss = marginal_cross_entropy(logits, labels, accepted, weights)
    torch.testing.assert_close(loss, sum(terms) / total)
    mean = marginal_cross_entropy(logits, labels, accepted, weights, "mean")
    torch.testing.assert_close(mean, sum(terms) / 5)
    assert torch.autograd.gradcheck(
        lambda x: marginal_cross_entropy(x, labels, accepted, weights), logits
    )
    identity = torch.eye(4, dtype=torch.bool)
    torch.testing.assert_close(
        marginal_cross_entropy(logits, labels, identity, weights),
        weighted_cross_entropy(logits, labels, weights),
    )
    none = torch.full((6,), UNLABELED_CODE)
    assert marginal_cross_entropy(logits, none, accepted, weights) == 0


def test_a_label_that_is_coarse_no_more_is_predicted_again(mixed):
    SCTAB.setup_anndata(mixed, labels_key="cell_type")
    model = SCTAB(mixed, coarse_labels={COARSE: T_CELLS})
    assert model.module.accepted is not None
    with pytest.raises(ValueError, match="is no label of the model"):
        model.annotation = replace(model.annotation, coarse_labels={"Tregs": T_CELLS})
    assert model.coarse_labels == {COARSE: T_CELLS}  # as it was
    model.annotation = replace(model.annotation, coarse_labels={})
    assert model.module.accepted is None
    assert model.init_params_["non_kwargs"]["coarse_labels"] is None
