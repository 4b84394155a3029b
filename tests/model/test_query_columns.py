"""Labels and batches of a query: whose they are, and whether they can be told."""

import logging

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scvi_sctab import SCTAB, SCTABEnsemble

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


def draw(seed, lane, n_cells=150):
    """Three types, thirty genes."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n_cells) % 3
    mean = 1 + 2 * np.kron(np.eye(3), np.ones(10))
    obs = pd.DataFrame({"cell_type": [f"type {k}" for k in kind], "lane": lane})
    obs.index = [f"{lane} {i}" for i in range(n_cells)]
    var = pd.DataFrame(index=[f"G{i}" for i in range(30)])
    return AnnData(rng.poisson(mean[kind]).astype(np.float32), obs, var)


def author_names(query):
    """Call the types as the author of the query does, and leave some unnamed."""
    names = {"type 0": "Typ 0", "type 1": "type 1", "type 2": np.nan}
    query.obs["cell_type"] = query.obs["cell_type"].map(names)
    return query


@pytest.fixture(scope="module")
def _models():
    reference = draw(0, "lab 1")
    reference.obs["lane"] = np.where(np.arange(150) % 2, "lab 1", "lab 2")
    SCTAB.setup_anndata(reference, labels_key="cell_type", batch_key="lane")
    ensemble = SCTABEnsemble(reference, n_members=2)
    ensemble.train(max_epochs=20, **QUIET)
    mapped = SCTABEnsemble.load_query_data(author_names(draw(1, "lab 7")), ensemble)
    mapped.train(**QUIET)
    return ensemble, mapped


@pytest.fixture
def ensemble(_models):
    """Shared: do not train it further."""
    return _models[0]


@pytest.fixture
def mapped(_models):
    """Shared: do not train it further."""
    return _models[1]


@pytest.fixture
def query():
    return draw(1, "lab 7")


# ---------------------------------------------------------------- labels


def log_of(load, caplog):
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="scvi.sctab"):
        mapped = load()
    return mapped, [r.getMessage() for r in caplog.records if "learn_labels" in r.getMessage()]


@pytest.mark.parametrize("cls", [SCTAB, SCTABEnsemble])
def test_labels_of_the_author_change_nothing_and_stay_where_they_are(cls, ensemble, query, caplog):
    model = ensemble if cls is SCTABEnsemble else ensemble.members[0]
    blank = query.copy()
    del blank.obs["cell_type"]
    author_names(query)
    mapped, said = log_of(lambda: cls.load_query_data(query, model), caplog)
    assert said == [
        "query.obs['cell_type'] has labels of 100 cells, which are not learnt from. To learn from "
        "them, pass `learn_labels=True`."
    ]
    expected, said = log_of(lambda: cls.load_query_data(blank, model), caplog)
    assert said == []
    mapped.train(**QUIET)
    expected.train(**QUIET)
    assert list(mapped.labels) == list(model.labels)
    pd.testing.assert_frame_equal(mapped.predict(soft=True), expected.predict(soft=True))
    assert mapped.adata.obs["cell_type"].equals(query.obs["cell_type"])
    for member in getattr(mapped, "members", [mapped]):
        assert (member._label_codes() == len(model.labels)).all()


def test_labels_of_the_author_stay_unlearnt_when_loaded_and_mapped_upon(ensemble, query, tmp_path):
    author_names(query)
    first = SCTAB.load_query_data(query, ensemble.members[0])
    first.save(tmp_path / "first")
    loaded = SCTAB.load(tmp_path / "first", query)
    assert (loaded._label_codes() == 3).all()
    again = draw(2, "lab 8")
    again.obs["cell_type"] = again.obs["cell_type"].replace({"type 2": "type 9"})
    assert list(SCTAB.load_query_data(again, loaded).labels) == list(loaded.labels)
    with pytest.warns(UserWarning, match="does not know: 'type 9'"):
        taught = SCTAB.load_query_data(again, loaded, learn_labels=True)
    assert list(taught.labels) == [*loaded.labels, "type 9"]
    assert set(taught._label_codes()) == {0, 1, 3}


def test_labels_are_learnt_by_every_member_where_asked(ensemble, query):
    query.obs["cell_type"] = query.obs["cell_type"].replace({"type 2": "type 9"})
    with pytest.warns(UserWarning, match="does not know: 'type 9'"):
        mapped = SCTABEnsemble.load_query_data(query, ensemble, learn_labels=True)
    assert [list(member.labels)[-1] for member in mapped.members] == ["type 9"] * 2
    assert all((member._label_codes() < 4).all() for member in mapped.members)


def test_new_labels_that_are_spelled_as_known_ones_are_named_with_the_line_to_type(
    ensemble, query
):
    query.obs["cell_type"] = query.obs["cell_type"].replace({"type 2": "Type 2 "})
    with pytest.warns(UserWarning, match="'Type 2 ' may be 'type 2'") as said:
        SCTAB.load_query_data(query, ensemble.members[0], learn_labels=True)
    exec(str(said[0].message).split("`")[1], {"query": query})
    mapped = SCTAB.load_query_data(query, ensemble.members[0], learn_labels=True)
    assert list(mapped.labels) == list(ensemble.labels)


# ---------------------------------------------------------------- batches

VERBS = {
    "predict": lambda model, cells: model.predict(cells),
    "annotate": lambda model, cells: model.annotate(cells),
    "latent": lambda model, cells: model.get_latent_representation(cells),
    "markers": lambda model, cells: model.get_markers(cells),
    "refine": lambda model, cells: model.refine(cells),
    "evaluate": lambda model, cells: model.evaluate(cells),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("of", ["SCTAB", "SCTABEnsemble"])
def test_a_query_model_that_cannot_tell_the_batch_says_so_once_per_verb(verb, of, mapped, query):
    model = mapped if of == "SCTABEnsemble" else mapped.members[0]
    query.obs["lane"] = "Lab 7"
    match = r"'Lab 7', in 150 of 150 cells: did you mean 'lab 7'\?"
    with pytest.warns(UserWarning, match=match) as said:
        VERBS[verb](model, query)
    assert len([w for w in said if "adapted" in str(w.message)]) == 1
    exec(str(said[0].message).split("`")[-2], {"adata": query})
    VERBS[verb](model, query)
    assert (model.predict(query) == model.predict()).all()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda obs: obs.drop(columns="lane"), r"no `adata.obs\['lane'\]`; if .* = 'lab 7'`"),
        (lambda obs: obs.rename(columns={"lane": "Lane"}), r"= adata.obs\['Lane'\]`"),
        (lambda obs: obs.assign(lane="lab 9"), r"'lab 9', in 150.*model knows 'lab 1', 'lab 2'"),
        (lambda obs: obs.assign(lane=np.nan), r"has 150 missing values"),
    ],
)
def test_what_is_wrong_with_the_batch_is_said(change, match, mapped, query):
    query.obs = change(query.obs)
    with pytest.warns(UserWarning, match=match):
        mapped.members[0].predict(query)


def test_only_the_chosen_cells_are_looked_at(mapped, query):
    query.obs.loc[query.obs_names[:9], "lane"] = "lab 9"
    model = mapped.members[0]
    model.predict(query, indices=np.arange(9, 150))
    with pytest.warns(UserWarning, match="'lab 9', in 3 of 5 cells"):
        model.predict(query, indices=[7, 9, 3, 11, 8])


def test_a_reference_model_answers_for_any_batch_in_silence(ensemble, query):
    del query.obs["lane"]
    assert len(ensemble.predict(query)) == 150


# ---------------------------------------------------------------- tables with names of cells


def test_masks_with_names_choose_the_same_cells_in_any_order(ensemble, query):
    model = ensemble.members[0]
    mask = query.obs["cell_type"] == "type 1"
    expected = model.predict(query, indices=mask.to_numpy(), soft=True)
    shuffled = mask.sample(frac=1, random_state=0)
    assert list(shuffled.index) != list(query.obs_names)
    for chosen in (mask, shuffled):
        frame = model.predict(query, indices=chosen, soft=True)
        pd.testing.assert_frame_equal(frame, expected)
    with pytest.raises(ValueError, match=r"50 of 150 cells are not among them.*reindex"):
        model.predict(query, indices=mask[:100])


def test_held_out_cells_may_be_masks_with_names(query):
    SCTAB.setup_anndata(query, labels_key="cell_type")
    model = SCTAB(query)
    held_out = pd.Series(np.arange(150) % 5 == 0, query.obs_names)
    parts = [~held_out[::-1], held_out.sample(frac=1, random_state=0)]
    model.train(max_epochs=1, datasplitter_kwargs={"external_indexing": parts}, **QUIET)
    assert sorted(model.validation_indices) == list(range(0, 150, 5))


def test_clusters_with_names_are_aligned(ensemble, query):
    model = ensemble.members[0]
    clusters = pd.Series(np.arange(150) // 7 % 4, query.obs_names)
    expected = model.refine(query, clusters.to_numpy())
    shuffled = clusters.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(model.refine(query, shuffled), expected)
    numbered = clusters.reset_index(drop=True)
    pd.testing.assert_frame_equal(model.refine(query, numbered), expected)
    cells = np.arange(0, 150, 2)
    expected = model.refine(query, clusters.to_numpy(), indices=cells)
    some = shuffled[shuffled.index.isin(query.obs_names[cells])]
    pd.testing.assert_frame_equal(model.refine(query, some, indices=cells), expected)
    with pytest.raises(ValueError, match="clusters are named by cell, but 75 of 150"):
        model.refine(query, some)


def test_scores_with_names_are_aligned_by_cell_and_gene(ensemble, query):
    model = ensemble.members[0]
    attention = model.get_attention(query)
    expected = model.deletion_test({"scores": attention}, query, n_genes=[2])
    frame = pd.DataFrame(attention.toarray(), query.obs_names, model.gene_names)
    shuffled = frame.sample(frac=1, random_state=0).iloc[:, ::-1]
    pd.testing.assert_frame_equal(
        model.deletion_test({"scores": shuffled}, query, n_genes=[2]), expected
    )
    with pytest.raises(ValueError, match="scores of 'scores' lack 1 of the model's genes: 'G29'"):
        model.deletion_test({"scores": frame.iloc[:, :-1]}, query)
    with pytest.raises(ValueError, match="but 10 of 150 cells are not among them"):
        model.deletion_test({"scores": frame[10:]}, query)
