"""Statements rest on cells that were held out, and are withdrawn when that ground moves."""

import numpy as np
import pandas as pd
import pytest
import scvi
from anndata import AnnData
from lightning.pytorch.callbacks import Callback
from scipy import sparse

from scvi_sctab import SCTAB, SCTABEnsemble
from scvi_sctab.external import ProteinPredictor
from scvi_sctab.pretrain import BYOL, MaskedAutoencoder

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
FAST = {"max_epochs": 20, **QUIET}


def cells_of_four_types(n=600, seed=0):
    rng = np.random.default_rng(seed)
    kind = rng.integers(4, size=n)
    mean = 1 + 0.8 * np.kron(np.eye(4), np.ones(15))
    obs = pd.DataFrame(
        {"cell_type": [f"type {k}" for k in kind], "batch": rng.choice(["a", "b"], n)},
        [f"c{i}" for i in range(n)],
    )
    counts = sparse.csr_matrix(rng.poisson(mean[kind]).astype(np.float32))
    return AnnData(counts, obs, pd.DataFrame(index=[f"G{i}" for i in range(60)]))


@pytest.fixture
def cells():
    return cells_of_four_types()


def build(cells, **arguments):
    SCTAB.setup_anndata(cells, labels_key="cell_type", **arguments)
    return SCTAB(cells)


@pytest.fixture(scope="module")
def _trained(tmp_path_factory):
    scvi.settings.seed = 0
    model = build(cells_of_four_types())
    model.train(**FAST)
    path = tmp_path_factory.mktemp("held_out") / "model"
    model.save(path)
    return model, path, model.evaluate(), set(model.adata.obs_names[model.validation_indices])


@pytest.fixture
def trained(_trained):
    """A trained model, shared, its path, its held-out scores and names: do not train it."""
    return _trained


def shuffled(cells):
    return cells[np.random.default_rng(1).permutation(cells.n_obs)].copy()


def renamed(cells):
    cells.obs_names = "study-" + cells.obs_names
    return cells


def with_shared_names(cells):
    cells.obs_names = [f"c{i % 50}" for i in range(cells.n_obs)]
    return cells


def with_more_cells(cells):
    new = cells_of_four_types(100, seed=8)
    joined = AnnData(sparse.vstack([new.X, cells.X], format="csr"), var=cells.var)
    joined.obs = pd.concat([new.obs.set_index("n" + new.obs_names), cells.obs])
    return joined


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda cells: cells, id="as they were"),
        pytest.param(shuffled, id="in another order"),
        pytest.param(renamed, id="under other names"),
        pytest.param(with_shared_names, id="under names that repeat"),
        pytest.param(with_more_cells, id="among other cells"),
        pytest.param(lambda c: AnnData(c.X.toarray(), c.obs, c.var), id="stored densely"),
    ],
)
def test_a_loaded_model_evaluates_and_calibrates_on_the_cells_that_it_held_out(trained, change):
    model, path, scores, _ = trained
    again = SCTAB.load(path, change(cells_of_four_types()))
    pd.testing.assert_frame_equal(again.evaluate(), scores)
    report = again.evaluate(indices=again.validation_indices)
    pd.testing.assert_frame_equal(report, scores)
    before = model.calibration.scaling
    again.calibrate()
    assert again.calibration.scaling.temperature == pytest.approx(before.temperature, rel=1e-6)


def test_of_cells_that_were_filtered_in_place_the_held_out_ones_are_left(trained):
    _, path, scores, held_out = trained
    cells = cells_of_four_types()
    again = SCTAB.load(path, cells)
    cells._inplace_subset_obs(np.arange(7, cells.n_obs))
    n_left = len(held_out & set(cells.obs_names))
    assert len(held_out) - 7 <= n_left <= len(held_out)
    assert again.evaluate().loc["accuracy", "n_cells"] == n_left
    assert abs(again.evaluate().loc["accuracy", "f1"] - scores.loc["accuracy", "f1"]) < 0.05


@pytest.mark.parametrize("verb", ["evaluate", "calibrate"])
def test_other_cells_are_not_taken_for_those_held_out(trained, verb):
    again = SCTAB.load(trained[1], cells_of_four_types(seed=9))
    with pytest.raises(ValueError, match=r"None of the 60 cells that were held out.*`indices=`"):
        getattr(again, verb)()


@pytest.mark.parametrize("verb", ["evaluate", "calibrate"])
@pytest.mark.parametrize("change", [shuffled, renamed], ids=["moved", "renamed"])
def test_cells_that_were_trained_on_are_refused_with_a_cure_that_works(trained, verb, change):
    model = SCTAB.load(trained[1], adata=False)
    adata = change(cells_of_four_types())
    with pytest.raises(ValueError, match=r"trained on 540 of these 600 cells") as caught:
        getattr(model, verb)(adata)
    cure = str(caught.value).split("Leave them out: `")[1].split("`")[0]
    exec(cure, {"model": model, "adata": adata})
    assert int((~model.trained_on(adata)).sum()) == 60


def test_scores_of_named_cells_come_with_a_warning_if_they_were_trained_on(trained):
    model = trained[0]
    with pytest.warns(UserWarning, match=r"trained on 540 of these 540 cells"):
        report = model.evaluate(indices=model.train_indices)
    assert report.loc["accuracy", "n_cells"] == 540
    with pytest.raises(ValueError, match="trained on 540 of these 540 cells"):
        model.calibrate(indices=model.train_indices)


def test_cells_of_the_same_names_but_other_counts_were_not_trained_on(trained):
    assert not trained[0].trained_on(cells_of_four_types(seed=9)).any()


def test_cells_are_recognised_with_their_genes_in_another_order_and_more_of_them(trained):
    cells = cells_of_four_types()
    more = AnnData(
        sparse.hstack([cells.X[:, ::-1], cells.X[:, :3]], format="csr"),
        cells.obs,
        pd.DataFrame(index=[*cells.var_names[::-1], "new 1", "new 2", "new 3"]),
    )
    assert trained[0].trained_on(more).sum() == 540


# --- trained again -------------------------------------------------------------------------


def test_what_was_held_out_stays_held_out_when_a_model_is_trained_again(cells):
    model = build(cells)
    model.train(**FAST)
    held_out = np.sort(model.validation_indices)
    scvi.settings.seed = 1
    model.train(max_epochs=2, **QUIET)
    np.testing.assert_array_equal(np.sort(model.validation_indices), held_out)
    assert not model.trained_on(cells[held_out].copy()).any()
    assert model.calibration is not None


def test_cells_of_a_test_set_stay_out_of_training(cells):
    model = build(cells)
    model.train(train_size=0.7, validation_size=0.15, **FAST)
    aside = np.sort(model.test_indices)
    assert len(aside) == 89
    model.train(max_epochs=2, **QUIET)
    np.testing.assert_array_equal(np.sort(model.test_indices), aside)
    assert not model.trained_on(cells[aside].copy()).any()


def test_a_model_that_was_trained_on_all_cells_has_none_held_out_later(cells, caplog):
    model = build(cells)
    model.train(train_size=1.0, **FAST)
    model.train(max_epochs=2, **QUIET)
    assert "trained on all of these cells before" in caplog.text
    assert model.calibration is None
    with pytest.raises(ValueError, match="No cells were held out"):
        model.evaluate()


def test_another_split_withdraws_calibration_and_held_out_scores(cells):
    model = build(cells)
    model.train(**FAST)
    with pytest.warns(UserWarning, match=r"of the 120 cells to hold out were trained on before"):
        model.train(train_size=0.8, max_epochs=2, **QUIET)
    assert model.calibration is None
    with pytest.raises(ValueError, match="No cells were held out"):
        model.evaluate()
    model.calibrate(cells_of_four_types(seed=5))
    assert model.calibration is not None


def test_a_loaded_model_that_is_trained_on_holds_out_the_same_cells(trained, cells):
    again = SCTAB.load(trained[1], shuffled(cells))
    again.train(max_epochs=2, **QUIET)
    assert set(again.adata.obs_names[again.validation_indices]) == trained[3]


def test_an_ensemble_keeps_what_all_of_its_members_held_out(cells):
    SCTABEnsemble.setup_anndata(cells, labels_key="cell_type")
    team = SCTABEnsemble(cells, n_members=2)
    team.train(**FAST)
    held_out = np.sort(team.validation_indices)
    scvi.settings.seed = 3
    team.train(max_epochs=2, **QUIET)
    np.testing.assert_array_equal(np.sort(team.validation_indices), held_out)
    with pytest.raises(ValueError, match="trained on 540 of these 600 cells"):
        team.evaluate(cells)
    assert team.evaluate().loc["accuracy", "n_cells"] == 60


# --- broken off ----------------------------------------------------------------------------


class EndAt(Callback):
    """Raise an error at the end of an epoch."""

    def __init__(self, epoch, error):
        self.epoch, self.error = epoch, error

    def on_train_epoch_end(self, trainer, plan):
        if trainer.current_epoch == self.epoch:
            raise self.error


def state(model):
    weights = {name: t.clone() for name, t in model.module.state_dict().items()}
    return weights, model.calibration, model.training_record, model.history_, model.is_trained


def assert_same(before, after):
    for name, tensor in before[0].items():
        assert tensor.equal(after[0][name]), name
    assert before[1] is after[1]
    assert before[2] is after[2]
    assert before[4] == after[4]


@pytest.mark.parametrize("epoch", [0, 6])
def test_a_training_that_fails_leaves_the_old_model_whole(cells, epoch):
    model = build(cells)
    model.train(**FAST)
    before, n_epochs = state(model), len(model.history_["train_loss"])
    with pytest.raises(RuntimeError, match="full disk"):
        model.train(callbacks=[EndAt(epoch, RuntimeError("full disk"))], **FAST)
    assert_same(before, state(model))
    assert len(model.history_["train_loss"]) == n_epochs


def test_a_first_training_that_fails_leaves_an_untrained_model(cells):
    model = build(cells)
    before = state(model)
    with pytest.raises(RuntimeError, match="full disk"):
        model.train(callbacks=[EndAt(3, RuntimeError("full disk"))], **FAST)
    assert_same(before, state(model))
    with pytest.raises(RuntimeError, match="not trained"):
        model.predict(cells)


def test_a_refused_training_leaves_the_calibration(trained):
    model = trained[0]
    before = model.calibration
    for arguments in ({"train_size": 2.0}, {"max_epochs": 0}, {"nonsense": 1}):
        with pytest.raises(
            (ValueError, TypeError), match=r"train_size=2\.0|max_epochs=0|nonsense"
        ):
            model.train(**{**FAST, **arguments})
    assert model.calibration is before


@pytest.mark.parametrize("epoch", [3, 15], ids=["before the cycle settles", "after"])
def test_ctrl_c_keeps_the_best_epoch_so_far_and_calibrates(cells, caplog, epoch, capsys):
    model = build(cells)
    model.train(callbacks=[EndAt(epoch, KeyboardInterrupt())], **FAST)
    assert f"stopped by Ctrl-C in epoch {epoch + 1} of 20" in caplog.text
    assert model.is_trained
    assert len(model.calibration.truth) == 60
    best = model.history_["validation_f1_macro"]["validation_f1_macro"]
    settled = best[best.index >= 10]
    chosen = (settled if len(settled) else best).astype(float).max()
    assert model.evaluate().loc["macro average", "f1"] == pytest.approx(chosen, abs=0.02)


def test_ctrl_c_before_the_first_epoch_has_ended_leaves_the_old_model(cells):
    class Early(Callback):
        def on_train_batch_start(self, *_):
            raise KeyboardInterrupt

    model = build(cells)
    model.train(**FAST)
    before = state(model)
    with pytest.raises(KeyboardInterrupt):
        model.train(callbacks=[Early()], **FAST)
    assert_same(before, state(model))


def test_ctrl_c_works_again_after_a_training_that_it_ended(cells):
    import signal

    handler = signal.getsignal(signal.SIGINT)
    build(cells).train(callbacks=[EndAt(2, KeyboardInterrupt())], **FAST)
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_ensemble_goes_on_with_the_members_that_ctrl_c_left(cells, caplog):
    SCTABEnsemble.setup_anndata(cells, labels_key="cell_type")
    team = SCTABEnsemble(cells, n_members=3)

    class SecondMember(Callback):
        n_trainings = 0

        def on_train_start(self, *_):
            self.n_trainings += 1

        def on_train_epoch_end(self, trainer, plan):
            if self.n_trainings == 2 and trainer.current_epoch == 12:
                raise KeyboardInterrupt

    team.train(callbacks=[SecondMember()], **FAST)
    assert "the ensemble has 2 members now" in caplog.text
    assert len(team.members) == 2
    assert team.calibration is not None
    assert len(team.predict(cells)) == cells.n_obs


def test_a_masked_autoencoder_keeps_its_best_epoch_after_ctrl_c(cells):
    MaskedAutoencoder.setup_anndata(cells)
    model = MaskedAutoencoder(cells)
    model.train(callbacks=[EndAt(3, KeyboardInterrupt())], **{**FAST, "max_epochs": 10})
    assert model.is_trained
    assert model.get_latent_representation().shape[0] == cells.n_obs


# --- nothing to train ----------------------------------------------------------------------


def masked_autoencoder(cells):
    MaskedAutoencoder.setup_anndata(cells)
    return MaskedAutoencoder(cells)


def byol(cells):
    BYOL.setup_anndata(cells)
    return BYOL(cells)


def protein_predictor(cells):
    cells.obsm["protein"] = cells.X[:, :3].toarray()
    ProteinPredictor.setup_anndata(cells, "protein")
    return ProteinPredictor(cells)


def ensemble(cells):
    SCTABEnsemble.setup_anndata(cells, labels_key="cell_type")
    return SCTABEnsemble(cells, n_members=2)


@pytest.mark.parametrize("make", [build, ensemble, masked_autoencoder, byol, protein_predictor])
@pytest.mark.parametrize("max_epochs", [0, -1, 1.5, True])
def test_training_for_no_epoch_is_refused_by_every_model(cells, make, max_epochs):
    model = make(cells)
    with pytest.raises(ValueError, match=rf"max_epochs={max_epochs}.*at least one"):
        model.train(max_epochs=max_epochs, **QUIET)
    assert not model.is_trained


def test_training_for_no_step_is_refused(cells):
    with pytest.raises(ValueError, match="max_steps=0 trains nothing"):
        build(cells).train(max_steps=0, **FAST)
    with pytest.raises(ValueError, match="limit_train_batches=0 trains nothing"):
        build(cells).train(limit_train_batches=0, **FAST)


def test_pretraining_for_no_epoch_is_refused(cells):
    with pytest.raises(ValueError, match=r"max_epochs=0.*at least one"):
        build(cells).pretrain(max_epochs=0, **QUIET)


def test_a_query_is_not_trained_for_no_epoch(cells):
    model = build(cells, batch_key="batch")
    model.train(**FAST)
    query = cells_of_four_types(100, seed=3)
    query.obs["batch"] = "new"
    mapped = SCTAB.load_query_data(query, model)
    with pytest.raises(ValueError, match=r"max_epochs=0.*at least one"):
        mapped.train(max_epochs=0, **QUIET)


@pytest.mark.parametrize(
    ("argument", "cure"),
    [
        ("lr", r"plan_kwargs=\{'lr'"),
        ("use_gpu", "accelerator='gpu'"),
        ("epochs", "max_epochs="),
        ("max_epoch", "max_epochs="),
        ("patience", "early_stopping_patience="),
        ("early_stoping", "did you mean 'early_stopping'"),
        ("num_workers", "datasplitter_kwargs"),
    ],
)
@pytest.mark.parametrize("make", [build, masked_autoencoder])
def test_a_guessed_argument_of_train_gets_the_one_that_is_meant(cells, make, argument, cure):
    if argument == "early_stoping":
        cure = "early_stopping"
    with pytest.raises(TypeError, match=rf"train\(\) has no argument '{argument}': .*{cure}"):
        make(cells).train(**{argument: 1}, **FAST)


# --- labels --------------------------------------------------------------------------------


def test_labels_that_changed_since_set_up_are_noticed(cells):
    model = build(cells)
    model.train(**FAST)
    cells.obs["cell_type"] = cells.obs["cell_type"].astype(str).replace("type 1", "type one")
    message = r"has changed since `setup_anndata` in \d+ cells .*from 'type 1' to 'type one'"
    for verb in (model.evaluate, model.calibrate, lambda: model.train(**FAST)):
        with pytest.raises(ValueError, match=message):
            verb()
    with pytest.warns(UserWarning, match=r"'type one' \(near 'type \d'\)"):
        model.evaluate(labels_key="cell_type")


def test_evaluation_leaves_out_cells_without_a_label_and_names_unknown_ones(trained):
    model = trained[0]
    truth = cells_of_four_types(200, seed=4)
    labels = truth.obs["cell_type"].astype(object)
    labels.iloc[:10], labels.iloc[10:20], labels.iloc[20:30] = None, "Unknown", "nan"
    labels.iloc[30:50] = "Type-2"
    truth.obs["cell_type"] = labels
    with pytest.warns(
        UserWarning, match=r"not know 1 labels.*'Type-2' \(near 'type 2'\).*20 cells"
    ):
        report = model.evaluate(truth)
    assert report.loc["accuracy", "n_cells"] == 170
    assert report.loc["Type-2", "f1"] == 0


def test_a_model_of_an_early_version_says_what_to_type(cells):
    model = build(cells)
    model.train(**FAST)
    model.training_record_ = None
    with pytest.raises(ValueError, match=r"`indices=model.validation_indices`"):
        model.evaluate()
    assert model.evaluate(indices=model.validation_indices).loc["accuracy", "n_cells"] == 60
    with pytest.raises(ValueError, match="does not know which cells it was trained on"):
        model.trained_on(cells)


@pytest.mark.parametrize("verb", ["annotate", "get_prediction_sets", "get_novelty"])
def test_the_warning_about_shift_does_not_advise_to_calibrate_on_what_was_trained_on(
    trained, verb, monkeypatch
):
    model = trained[0]
    table = pd.DataFrame({"distance": [0.9], "limit": [0.1], "shifted": [True]}, ["probability"])
    monkeypatch.setattr(type(model.calibration), "shift", lambda *_: table)
    with pytest.warns(UserWarning, match=r"540 of the 540 were trained on") as caught:
        getattr(model, verb)(indices=model.train_indices)
    assert "model.calibrate" not in str(caught[0].message)
    with pytest.warns(UserWarning, match=r"calibrate on 50 or more labelled cells"):
        getattr(model, verb)(cells_of_four_types(seed=5))
