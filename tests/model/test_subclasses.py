"""A user's subclass of SCTAB trains, saves, loads, maps and joins an ensemble."""

import pandas as pd
import pytest

from scvi_sctab import SCTAB, SCTABEnsemble

STEPS = {"max_epochs": 2, "enable_progress_bar": False, "accelerator": "cpu"}


class MySCTAB(SCTAB):
    """Adds nothing."""


@pytest.fixture(scope="module")
def mine(_cuts):
    cells = _cuts[0].copy()
    MySCTAB.setup_anndata(
        cells, labels_key="cell_type", donor_key="donor_id", batch_key="condition"
    )
    model = MySCTAB(cells)
    model.train(**STEPS)
    return model


def test_it_is_saved_and_loaded(mine, query, tmp_path):
    mine.save(tmp_path / "model")
    loaded = MySCTAB.load(tmp_path / "model")
    assert type(loaded) is MySCTAB
    assert loaded.digest == mine.digest
    pd.testing.assert_frame_equal(loaded.predict(query, soft=True), mine.predict(query, soft=True))
    with pytest.raises(ValueError, match="holds a MySCTAB, not a SCTAB"):
        SCTAB.load(tmp_path / "model")


def test_it_loads_files_of_its_parent(model, query, tmp_path):
    model.save(tmp_path / "model")
    loaded = MySCTAB.load(tmp_path / "model", model.adata)
    assert type(loaded) is MySCTAB
    pd.testing.assert_frame_equal(
        loaded.predict(query, soft=True), model.predict(query, soft=True)
    )


@pytest.mark.usefixtures("unguarded")
def test_a_query_is_mapped_onto_it(mine, query, tmp_path):
    mine.save(tmp_path / "model")
    query.obs["condition"] = "pbmc3k"
    for reference in (mine, tmp_path / "model"):
        mapped = MySCTAB.load_query_data(query, reference)
        assert type(mapped) is MySCTAB
        mapped.train(enable_progress_bar=False, accelerator="cpu")
        assert len(mapped.predict()) == query.n_obs


class MyEnsemble(SCTABEnsemble):
    """Has members of the user's class."""

    member_class = MySCTAB


def test_an_ensemble_of_it_is_built_saved_and_loaded(mine, query, tmp_path):
    ensemble = MyEnsemble(mine.adata, n_members=2)
    assert {type(member) for member in ensemble.members} == {MySCTAB}
    joined = MyEnsemble.from_members([mine, mine])
    joined.save(tmp_path / "ensemble")
    loaded = MyEnsemble.load(tmp_path / "ensemble")
    assert [type(member) for member in loaded.members] == [MySCTAB, MySCTAB]
    pd.testing.assert_frame_equal(
        loaded.predict(query, soft=True), joined.predict(query, soft=True)
    )


def test_an_ensemble_sets_cells_up_for_its_members(reference):
    MyEnsemble.setup_anndata(reference, labels_key="cell_type")
    assert {type(member) for member in MyEnsemble(reference, n_members=1).members} == {MySCTAB}


class TunedSCTAB(SCTAB):
    """Has an argument of its own."""

    def __init__(self, adata=None, note="none", **kwargs):
        super().__init__(adata, **kwargs)
        self.note = note
        self.init_params_ = self._get_init_params(locals())


def test_one_with_an_argument_of_its_own_keeps_what_its_parent_resolved(reference, tmp_path):
    TunedSCTAB.setup_anndata(reference, labels_key="cell_type", batch_key="condition")
    model = TunedSCTAB(reference, note="first", n_d=9, coarse_labels={"DC": ["B"]})
    model.train(**STEPS)
    arguments = model._arguments()
    assert arguments["preset"] == "small"
    assert (arguments["note"], arguments["n_d"], arguments["n_a"]) == ("first", 9, 16)
    model.save(tmp_path / "model")
    loaded = TunedSCTAB.load(tmp_path / "model")
    assert (loaded.note, loaded.preset_, loaded.network_config.n_d) == ("first", "small", 9)
    assert loaded.coarse_labels == {"DC": ["B"]}
    pd.testing.assert_frame_equal(loaded.predict(reference, soft=True), model.predict(soft=True))
    reference.obs["condition"] = "new"
    assert TunedSCTAB.load_query_data(reference, model).note == "first"
