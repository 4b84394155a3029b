"""A query of other batches is mapped onto a trained model, which stays what it was."""

from copy import deepcopy
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from lightning.pytorch.callbacks import Callback
from scipy import sparse

from scvi_sctab import SCTAB
from scvi_sctab._config import GUARD
from scvi_sctab.annotation import same_values
from scvi_sctab.data import GeneMismatchError
from scvi_sctab.train import select_confident

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
QUERY_DONORS = ["1488", "107"]


def with_samples(adata):
    adata.obs["sample"] = (
        adata.obs["donor_id"].astype(str) + "_" + adata.obs["condition"].astype(str)
    )
    return adata


def without_rare(adata):
    rare = adata.obs["cell_type"].value_counts().loc[lambda n: n < 5].index
    return adata[~adata.obs["cell_type"].isin(rare)].copy()


@pytest.fixture(scope="module")
def _mapped(_cuts):
    """A reference of control cells, its model, and stimulated cells without labels."""
    scvi.settings.seed = 0
    adata = with_samples(_cuts[0].copy())
    of_query = adata.obs["condition"] == "stim"
    reference, query = adata[~of_query].copy(), adata[of_query].copy()
    reference = without_rare(reference)
    SCTAB.setup_anndata(
        reference, labels_key="cell_type", batch_key="sample", donor_key="donor_id"
    )
    model = SCTAB(reference)
    model.train(max_epochs=25, train_size=1, **QUIET)
    return model, query


@pytest.fixture
def reference_model(_mapped):
    """Shared: do not train it further."""
    return _mapped[0]


@pytest.fixture
def stimulated(_mapped):
    query = _mapped[1].copy()
    query.obs = query.obs[["sample", "donor_id"]].copy()
    return query


def snapshot(model):
    return {name: tensor.clone() for name, tensor in model.module.state_dict().items()}


def test_a_query_model_predicts_at_once_as_the_reference_does(reference_model, stimulated):
    mapped = SCTAB.load_query_data(stimulated, reference_model)
    pd.testing.assert_frame_equal(
        mapped.predict(soft=True), reference_model.predict(stimulated, soft=True), check_exact=True
    )


def test_training_adapts_the_query_and_leaves_the_reference_exactly(reference_model, stimulated):
    before = reference_model.predict(soft=True)
    untrained = reference_model.predict(stimulated, soft=True)
    mapped = SCTAB.load_query_data(stimulated, reference_model)
    old = snapshot(mapped)
    mapped.train(**QUIET)
    pd.testing.assert_frame_equal(
        mapped.predict(reference_model.adata, soft=True), before, check_exact=True
    )
    assert (mapped.predict(soft=True) - untrained).abs().to_numpy().max() > 1e-3
    moved = {name for name, t in mapped.module.state_dict().items() if (t != old[name]).any()}
    assert moved == {"query_paths.paths.0.weight", "query_paths.paths.0.bias"}
    rows = mapped.module.batch_embedding.rows[0]
    n_known = len(reference_model.conditions[0].categories)
    assert torch.equal(rows[:n_known], old["batch_embedding.rows.0"][:n_known])
    buffers = dict(mapped.module.named_buffers())
    assert all(torch.equal(buffers[name], old[name]) for name in buffers)


def test_annotations_also_tell_what_the_reference_would_say(reference_model, stimulated):
    mapped = SCTAB.load_query_data(stimulated, reference_model)
    mapped.train(**QUIET)
    table, unadapted = mapped.annotate(), reference_model.annotate(stimulated)
    assert (table["label"] == mapped.predict()).all()
    assert (table["reference_label"] == unadapted["label"]).all()
    np.testing.assert_allclose(table["reference_probability"], unadapted["probability"], rtol=1e-5)
    assert "reference_label" not in unadapted
    assert mapped.history["self_training_loss"].shape[0] > 0


def test_the_latent_space_is_one_for_all_batches(reference_model, stimulated):
    renamed = reference_model.adata.copy()
    renamed.obs["sample"] = renamed.obs["sample"].to_numpy()[::-1]
    assert (reference_model.predict(renamed, soft=True) != reference_model.predict(soft=True)).any(
        axis=None
    )
    np.testing.assert_array_equal(
        reference_model.get_latent_representation(renamed),
        reference_model.get_latent_representation(),
    )


def test_the_reference_model_itself_is_left_alone(reference_model, stimulated):
    old = snapshot(reference_model)
    mapped = SCTAB.load_query_data(stimulated, reference_model, policy="all")
    mapped.train(max_epochs=2, **QUIET)
    for name, tensor in reference_model.module.state_dict().items():
        assert torch.equal(tensor, old[name]), name


@pytest.mark.parametrize(
    ("policy", "moves", "stays"),
    [
        ("head", "linear_skip.weight", "encoder.initial_bn.weight"),
        ("all", "encoder.initial_bn.weight", "encoder.initial_bn.running_mean"),
        (["final_mapping.*"], "final_mapping.weight", "linear_skip.weight"),
    ],
)
def test_a_policy_trains_what_it_names_and_nothing_else(
    reference_model, stimulated, policy, moves, stays
):
    mapped = SCTAB.load_query_data(stimulated, reference_model, policy=policy)
    old = snapshot(mapped)
    mapped.train(max_epochs=2, **QUIET)
    new = mapped.module.state_dict()
    assert not torch.equal(new[moves], old[moves])
    assert torch.equal(new[stays], old[stays])
    report = mapped.surgery_report()
    assert not report.reference_kept
    assert any("parts of the reference" in warning for warning in report.warnings)
    assert all(p.requires_grad for p in mapped.module.parameters())


def test_surgery_upon_surgery_keeps_the_reference_and_the_first_query(
    reference_model, stimulated, monkeypatch
):
    few = replace(GUARD, min_cells=1)  # the second query has 105 cells
    monkeypatch.setattr("scvi_sctab.model._query_training.GUARD", few)
    donors = stimulated.obs["donor_id"].isin(QUERY_DONORS).to_numpy()
    first = SCTAB.load_query_data(stimulated[~donors].copy(), reference_model)
    first.train(**QUIET)
    second = SCTAB.load_query_data(stimulated[donors].copy(), first)
    of_first, of_reference = first.predict(soft=True), reference_model.predict(soft=True)
    second.train(**QUIET)
    for adata, expected in ((first.adata, of_first), (reference_model.adata, of_reference)):
        pd.testing.assert_frame_equal(second.predict(adata, soft=True), expected, check_exact=True)
    assert second.surgery_report().new_batches["sample"] == ["107_stim", "1488_stim"]
    zero_shot = reference_model.predict(second.adata, soft=True)
    assert (second.predict(soft=True) - zero_shot).abs().to_numpy().max() > 1e-3


@pytest.mark.parametrize("form", ["model.safetensors", "model.pt"])
def test_a_saved_reference_maps_as_the_one_in_memory(reference_model, stimulated, tmp_path, form):
    reference_model.save(tmp_path / "saved")
    if form == "model.pt":
        (tmp_path / "saved" / "model.safetensors").unlink()
        with pytest.raises(ValueError, match="allow_pickle"):
            SCTAB.load_query_data(stimulated, tmp_path / "saved")
    mapped = SCTAB.load_query_data(stimulated, tmp_path / "saved", allow_pickle=form == "model.pt")
    pd.testing.assert_frame_equal(
        mapped.predict(soft=True), reference_model.predict(stimulated, soft=True), check_exact=True
    )


def test_a_query_model_is_saved_with_its_report_and_can_be_trained_further(
    reference_model, stimulated, tmp_path
):
    mapped = SCTAB.load_query_data(stimulated, reference_model)
    mapped.train(**QUIET)
    mapped.save(tmp_path / "mapped", save_anndata=True)
    loaded = SCTAB.load(tmp_path / "mapped")
    pd.testing.assert_frame_equal(
        loaded.predict(soft=True), mapped.predict(soft=True), check_exact=True
    )
    assert str(loaded.surgery_report()) == str(mapped.surgery_report())
    before = loaded.predict(reference_model.adata, soft=True)
    loaded.train(**QUIET)
    pd.testing.assert_frame_equal(
        loaded.predict(reference_model.adata, soft=True), before, check_exact=True
    )


def test_genes_in_another_order_with_versions_or_missing_are_aligned(reference_model, stimulated):
    order = np.random.default_rng(0).permutation(stimulated.n_vars)[:-20]
    partial = stimulated[:, order].copy()
    mapped = SCTAB.load_query_data(partial, reference_model)
    pd.testing.assert_frame_equal(
        mapped.predict(soft=True), reference_model.predict(partial, soft=True), check_exact=True
    )
    report = mapped.surgery_report()
    assert sorted(report.missing_genes) == sorted(
        set(stimulated.var_names) - set(partial.var_names)
    )
    assert report.gene_overlap == pytest.approx(1 - 20 / stimulated.n_vars)
    assert sparse.issparse(mapped.adata.X)


def test_nothing_is_written_into_the_query(reference_model, stimulated):
    stimulated.obs["cell_type"] = np.nan
    columns, keys = list(stimulated.obs), set(stimulated.uns)
    SCTAB.load_query_data(stimulated, reference_model).train(**QUIET)
    assert list(stimulated.obs) == columns
    assert set(stimulated.uns) == keys
    assert stimulated.obs["cell_type"].isna().all()


def test_a_query_without_cells_is_mapped_by_its_registry(reference_model, stimulated):
    mapped = SCTAB.load_query_data(stimulated, reference_model)
    again = SCTAB.load_query_data(None, reference_model, registry=mapped.registry)
    pd.testing.assert_frame_equal(
        again.predict(stimulated, soft=True), mapped.predict(soft=True), check_exact=True
    )
    with pytest.raises(ValueError, match="no AnnData to train on"):
        again.train()


def test_prepared_genes_are_those_of_the_reference(reference_model, stimulated):
    order = np.random.default_rng(0).permutation(stimulated.n_vars)[:-20]
    partial = stimulated[:, order].copy()
    partial.layers["more"] = partial.X * 2
    expected = reference_model.predict(partial, soft=True)
    prepared = SCTAB.prepare_query_anndata(partial, reference_model, inplace=False)
    genes = SCTAB.prepare_query_anndata(partial, reference_model, return_reference_var_names=True)
    assert list(prepared.var_names) == list(genes) == list(reference_model.gene_names)
    assert (prepared.layers["more"] != 2 * prepared.X).nnz == 0
    assert list(partial.var_names) != list(genes)
    SCTAB.prepare_query_anndata(partial, reference_model)
    assert list(partial.var_names) == list(genes)
    assert sparse.issparse(partial.X)
    pd.testing.assert_frame_equal(reference_model.predict(partial, soft=True), expected)


@pytest.mark.filterwarnings("ignore:.*pull_on_update", "ignore:The inplace keyword")  # by mudata
def test_one_modality_of_a_mudata_is_prepared(reference_model, stimulated):
    import mudata

    proteins = stimulated[:, :5].copy()
    proteins.var_names = [f"protein {i}" for i in range(5)]
    mdata = mudata.MuData({"rna": stimulated[:, ::-1].copy(), "protein": proteins})
    SCTAB.prepare_query_mudata(mdata, reference_model)
    assert list(mdata["rna"].var_names) == list(reference_model.gene_names)
    assert list(mdata["protein"].var_names) == list(proteins.var_names)
    with pytest.raises(KeyError, match="no modality 'adt'"):
        SCTAB.prepare_query_mudata(mdata, reference_model, modality="adt")


def without(adata, label):
    return adata[adata.obs["cell_type"] != label].copy()


@pytest.fixture(scope="module")
def _without_b(_cuts):
    """A model that never saw B cells, and a query with some of them labelled."""
    scvi.settings.seed = 0
    adata = with_samples(_cuts[0].copy())
    of_query = adata.obs["donor_id"].isin(["1015", "1256"])
    reference, query = without_rare(without(adata[~of_query], "B")), adata[of_query].copy()
    SCTAB.setup_anndata(reference, labels_key="cell_type", batch_key="sample")
    model = SCTAB(reference)
    model.train(max_epochs=25, train_size=1, **QUIET)
    return model, query


@pytest.fixture
def without_b(_without_b):
    """Shared: do not train the model further."""
    return _without_b


def test_a_new_label_is_learnt_and_the_old_ones_kept(without_b):
    model, query = without_b
    truth = query.obs["cell_type"].astype(str).to_numpy()
    is_new = truth == "B"
    known = ~is_new & np.isin(truth, model.labels)
    given = np.random.default_rng(0).random(len(truth)) < 0.5
    query = query.copy()
    query.obs["cell_type"] = np.where(given & (is_new | known), truth, "unknown")
    before = model.predict(query)
    with pytest.warns(UserWarning, match="does not know: 'B'"):
        mapped = SCTAB.load_query_data(query, model, learn_labels=True)
    assert list(mapped.labels) == [*model.labels, "B"]
    tensors = mapped.predict(soft=True)
    assert list(mapped.predict()) == list(before)
    ratio = tensors[model.labels].to_numpy() / model.predict(query, soft=True).to_numpy()
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-3)
    mapped.train(**QUIET)
    predicted = mapped.predict()
    held_out = ~given
    assert (predicted[held_out & is_new] == "B").mean() > 0.6
    accuracy = {
        name: (labels == truth)[held_out & known].mean()
        for name, labels in (("before", before), ("after", predicted))
    }
    assert accuracy["after"] > accuracy["before"] - 0.05
    kept = mapped.predict(model.adata) == model.predict()
    assert kept.mean() > 0.98


@pytest.mark.filterwarnings("ignore:Not adapted:UserWarning")
def test_labels_that_came_with_a_query_are_known_once_it_is_calibrated(reference):
    adata = with_samples(reference)
    of_query = adata.obs["donor_id"].isin(["1015", "1256", "1488"])
    reference, query = without_rare(without(adata[~of_query], "B")), adata[of_query].copy()
    SCTAB.setup_anndata(reference, labels_key="cell_type", batch_key="sample")
    model = SCTAB(reference)
    model.train(max_epochs=10, train_size=0.8, **QUIET)
    with pytest.warns(UserWarning, match="does not know: .*'B'"):
        mapped = SCTAB.load_query_data(query, model, learn_labels=True)
    mapped.train(**QUIET)
    first = np.random.default_rng(0).random(query.n_obs) < 0.5
    mapped.calibrate(query, indices=np.flatnonzero(first))
    p = mapped.get_novelty(query, np.flatnonzero(~first))
    new = (query.obs["cell_type"] == "B").to_numpy()[~first]
    assert new.sum() > 10
    assert not np.isnan(p).any()
    assert (p[new] <= 0.05).mean() < 0.15
    assert mapped.calibration.centers.whitening.shape[0] == len(mapped.labels)


def test_cells_teach_no_labels_before_the_new_ones_are_learnt(without_b, monkeypatch):
    model, query = without_b
    query = query.copy()
    is_b = (query.obs["cell_type"] == "B").to_numpy()
    truth = query.obs["cell_type"].astype(str).to_numpy()
    unlabeled = (np.arange(len(truth)) % 2 == 1) | ~np.isin(truth, [*model.labels, "B"])
    query.obs["cell_type"] = np.where(unlabeled, "unknown", truth)
    with pytest.warns(UserWarning, match="does not know: 'B'"):
        mapped = SCTAB.load_query_data(query, model, learn_labels=True)
    rounds = []

    def spy(probabilities, share):
        rounds.append(probabilities[is_b[unlabeled], -1].mean())
        return select_confident(probabilities, share)

    monkeypatch.setattr("scvi_sctab.model._query_training.select_confident", spy)
    before = mapped.predict(soft=True)["B"].to_numpy()[is_b].mean()
    # Of two rounds only the second labels cells, when the model has seen what B cells are.
    mapped.train(max_epochs=6, **QUIET)
    assert len(rounds) == 1
    assert rounds[0] > before


def test_old_logits_are_bit_identical_until_trained(without_b):
    model, query = without_b
    with pytest.warns(UserWarning, match="does not know: 'B'"):
        mapped = SCTAB.load_query_data(query, model, learn_labels=True)
    everyone = np.arange(query.n_obs)
    logits = [
        torch.cat([torch.from_numpy(p.logits) for p in m._logits_of(m._select(query, everyone))])
        for m in (model, mapped)
    ]
    assert torch.equal(logits[0], logits[1][:, : len(model.labels)])


def test_what_is_known_of_the_reference_goes_with_it(reference_model, stimulated, tmp_path):
    assert reference_model.reference_["diversity"] > 2
    assert np.isfinite(reference_model.reference_["energy_floor"])
    first = SCTAB.load_query_data(stimulated, reference_model)
    first.save(tmp_path / "first")
    stimulated.obs["sample"] = "another"
    second = SCTAB.load_query_data(stimulated, tmp_path / "first")
    assert first.reference_ == second.reference_ == reference_model.reference_


@pytest.mark.filterwarnings("ignore:Not adapted:UserWarning")
@pytest.mark.parametrize("as_type", [int, float, str], ids=["int", "float", "str"])
def test_names_of_batches_are_compared_whatever_their_type(reference, as_type):
    scvi.settings.seed = 0
    adata = without_rare(reference)
    adata.obs["lane"] = adata.obs["donor_id"].cat.codes.astype(int)
    of_query = adata.obs["lane"] > 4
    reference, query = without_rare(adata[~of_query]), adata[of_query].copy()
    SCTAB.setup_anndata(reference, labels_key="cell_type", batch_key="lane")
    model = SCTAB(reference)
    model.train(max_epochs=2, train_size=1, **QUIET)
    with torch.no_grad():
        model.module.batch_embedding.rows[0].normal_()
    expected = model.predict(soft=True)
    again = reference.copy()
    again.obs["lane"] = again.obs["lane"].astype(as_type)
    pd.testing.assert_frame_equal(model.predict(again, soft=True), expected, check_exact=True)
    query.obs = query.obs[["lane"]].astype(as_type)
    mapped = SCTAB.load_query_data(query, model)
    assert mapped.surgery_report().new_batches == {"lane": ["5", "6", "7"]}
    mapped.train(**QUIET)
    pd.testing.assert_frame_equal(mapped.predict(again, soft=True), expected, check_exact=True)


def test_covariates_condition_the_encoder_as_batches_do(reference):
    scvi.settings.seed = 0
    reference = without_rare(with_samples(reference))
    setup = {"batch_key": "sample", "categorical_covariate_keys": ["condition"]}
    SCTAB.setup_anndata(reference, labels_key="cell_type", **setup)
    model = SCTAB(reference)
    model.train(max_epochs=3, train_size=1, **QUIET)
    assert [rows.shape[0] for rows in model.module.batch_embedding.rows] == [16, 2]
    assert all(rows.any() for rows in model.module.batch_embedding.rows)
    before = model.predict(soft=True)
    swapped = reference.copy()
    swapped.obs["condition"] = np.where(swapped.obs["condition"] == "stim", "ctrl", "stim")
    assert (model.predict(swapped, soft=True) - before).abs().to_numpy().max() > 1e-6
    query = reference[:40].copy()
    query.obs = pd.DataFrame({"sample": "new", "condition": "heat"}, index=query.obs_names)
    mapped = SCTAB.load_query_data(query, model)
    assert mapped.surgery_report().new_batches == {"sample": ["new"], "condition": ["heat"]}
    pd.testing.assert_frame_equal(mapped.predict(reference, soft=True), before, check_exact=True)
    query.obs["sample"] = reference.obs["sample"].iloc[0]
    refuse(query, model, ValueError, "Nothing is left to train")


def test_a_layer_of_a_backed_query_is_read(reference_model, stimulated, tmp_path):
    expected = reference_model.predict(stimulated, soft=True)
    stimulated.write_h5ad(tmp_path / "query.h5ad")
    backed = anndata.read_h5ad(tmp_path / "query.h5ad", backed="r")
    mapped = SCTAB.load_query_data(backed, reference_model)
    pd.testing.assert_frame_equal(mapped.predict(soft=True), expected, check_exact=True)


def test_a_training_that_breaks_off_leaves_the_query_model_as_it_was(reference_model, stimulated):
    mapped = SCTAB.load_query_data(stimulated, reference_model, policy="head")
    before = mapped.predict(soft=True)

    class Stop(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        mapped.train(max_epochs=3, callbacks=[Stop()], **QUIET)
    assert not mapped.surgery_report().trained
    assert (mapped.calibration is None) == (reference_model.calibration is None)
    assert all(p.requires_grad for p in mapped.module.parameters())
    pd.testing.assert_frame_equal(mapped.predict(soft=True), before, check_exact=True)


# ---------------------------------------------------------------- bad input


def test_a_registry_of_other_genes_or_labels_is_refused(reference_model, stimulated):
    registry = deepcopy(SCTAB.load_query_data(stimulated, reference_model).registry)
    state = registry["field_registries"]["X"]["state_registry"]
    state["column_names"] = state["column_names"][::-1]
    refuse(None, reference_model, ValueError, "genes of the registry are not", registry=registry)
    registry = deepcopy(SCTAB.load_query_data(stimulated, reference_model).registry)
    state = registry["field_registries"]["labels"]["state_registry"]
    state["categorical_mapping"] = state["categorical_mapping"][::-1]
    refuse(None, reference_model, ValueError, "labels of the registry are not", registry=registry)


def test_what_would_shrink_the_reference_is_refused(reference_model, stimulated):
    stimulated.obs["cell_type"] = np.where(np.arange(stimulated.n_obs) % 9, "unknown", "Paneth")
    with pytest.warns(UserWarning, match="'Paneth'"):
        mapped = SCTAB.load_query_data(stimulated, reference_model, learn_labels=True)
    with pytest.raises(ValueError, match="weight_decay would shrink"):
        mapped.train(plan_kwargs={"weight_decay": 0.1}, **QUIET)
    with pytest.raises(ValueError, match="Running statistics"):
        mapped.train(plan_kwargs={"frozen_statistics": False}, **QUIET)


def test_arguments_without_effect_are_named(reference_model, stimulated):
    mapped = SCTAB.load_query_data(stimulated, reference_model)
    with pytest.warns(UserWarning, match="max_epochs, plan_kwargs had no effect"):
        mapped.train(max_epochs=3, plan_kwargs={"lr": 1.0}, **QUIET)


def test_a_query_of_few_cells_is_not_adapted_and_says_so(reference_model, stimulated):
    few = stimulated[:5].copy()
    mapped = SCTAB.load_query_data(few, reference_model)
    with pytest.warns(
        UserWarning,
        match="Not adapted: .*(sure of too few of its cells|few of the reference's types|too unlike|mean probability)",
    ):
        mapped.train(**QUIET)
    pd.testing.assert_frame_equal(
        mapped.predict(soft=True), reference_model.predict(few, soft=True), check_exact=True
    )


def test_a_model_is_not_loaded_with_batches_that_it_does_not_know(
    reference_model, stimulated, tmp_path
):
    reference_model.save(tmp_path / "saved")
    with pytest.raises(ValueError, match="does not know: .*_stim.*load_query_data"):
        SCTAB.load(tmp_path / "saved", adata=stimulated)
    known = reference_model.adata.copy()
    assert SCTAB.load(tmp_path / "saved", adata=known).adata is known


def refuse(query, model, error, message, **kwargs):
    with pytest.raises(error, match=message):
        SCTAB.load_query_data(query, model, **kwargs)


def test_a_query_without_common_genes_is_refused(reference_model, stimulated):
    stimulated.var_names = [f"gene {i}" for i in range(stimulated.n_vars)]
    refuse(stimulated, reference_model, GeneMismatchError, "has only 0 of the model's")
    with pytest.raises(GeneMismatchError, match="has only 0 of the model's"):
        SCTAB.prepare_query_anndata(stimulated, reference_model)


def test_ensembl_ids_against_symbols_are_refused_with_the_column_that_fits(
    reference_model, stimulated
):
    stimulated.var["symbol"] = stimulated.var_names.to_numpy()
    stimulated.var_names = [f"ENSG{i:011d}" for i in range(stimulated.n_vars)]
    refuse(stimulated, reference_model, GeneMismatchError, r"query.var\['symbol'\]")


def test_a_missing_batch_column_is_refused(reference_model, stimulated):
    del stimulated.obs["sample"]
    refuse(stimulated, reference_model, KeyError, r"batch_key='sample'.*query.obs\['sample'\] = ")


def test_missing_values_of_the_batch_are_refused(reference_model, stimulated):
    stimulated.obs.loc[stimulated.obs_names[3], "sample"] = np.nan
    refuse(stimulated, reference_model, ValueError, "batch_key='sample' has 1 missing values")


def test_a_reference_of_another_class_is_refused(reference_model, stimulated, tmp_path):
    refuse(stimulated, object(), TypeError, "is a object, not a SCTAB")
    scvi.model.SCVI.setup_anndata(stimulated)
    scvi.model.SCVI(stimulated).save(tmp_path / "scvi")
    refuse(stimulated, tmp_path / "scvi", ValueError, "only model.pt")
    refuse(stimulated, tmp_path / "scvi", ValueError, "different class", allow_pickle=True)


def test_an_untrained_reference_is_refused(reference, stimulated):
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    refuse(stimulated, SCTAB(reference), RuntimeError, "not trained")
    refuse(stimulated, None, ValueError, "Give a reference")


def test_a_reference_without_batches_maps_by_its_head_only(model, query):
    query.obs["cell_type"] = "unknown"
    refuse(query, model, ValueError, r"set up without `batch_key`.*predict\(query\)")
    mapped = SCTAB.load_query_data(query, model, policy="head")
    mapped.train(max_epochs=1, **QUIET)
    assert not mapped.surgery_report().reference_kept


def test_a_query_of_known_batches_has_nothing_to_train(reference_model):
    known = reference_model.adata.copy()
    refuse(known, reference_model, ValueError, "Nothing is left to train.*knows every batch")


def test_some_known_batches_are_reported(reference_model, stimulated):
    names = stimulated.obs["sample"].astype(str)
    stimulated.obs["sample"] = names.where(names != "107_stim", "107_ctrl")
    report = SCTAB.load_query_data(stimulated, reference_model).surgery_report()
    assert report.known_batches == {"sample": ["107_ctrl"]}
    assert any("107_ctrl" in warning for warning in report.warnings)


def test_policies_that_do_not_exist_are_refused(reference_model, stimulated):
    refuse(stimulated, reference_model, ValueError, "none of 'batch', 'head'", policy="heads")
    refuse(stimulated, reference_model, ValueError, "No parameter fits", policy=["decoder.*"])


def test_new_labels_need_cells(reference_model, stimulated):
    stimulated.obs["cell_type"] = "unknown"
    stimulated.obs.loc[stimulated.obs_names[0], "cell_type"] = "Paneth"
    refuse(
        stimulated,
        reference_model,
        ValueError,
        "fewer than 2 cells cannot be learnt: 'Paneth'",
        learn_labels=True,
    )


@pytest.mark.parametrize("name", ["Unknown", "unassigned"])
def test_unlabelled_cells_of_another_name_are_not_learnt(reference_model, stimulated, name):
    stimulated.obs["cell_type"] = name
    refuse(
        stimulated,
        reference_model,
        ValueError,
        f"holds '{name}'.*learnt as a type",
        learn_labels=True,
    )


def test_nothing_is_held_out_of_a_query(reference_model, stimulated):
    mapped = SCTAB.load_query_data(stimulated, reference_model)
    with pytest.raises(ValueError, match="none are held out"):
        mapped.train(train_size=0.9)


def test_a_report_is_of_a_query_model(reference_model):
    with pytest.raises(RuntimeError, match="load_query_data"):
        reference_model.surgery_report()


def test_a_query_of_no_cells_is_refused(reference_model, stimulated):
    refuse(stimulated[:0].copy(), reference_model, ValueError, "no cells")


def test_a_second_query_without_batches_of_its_own_leaves_the_first_adapter(
    reference_model, stimulated
):
    first = SCTAB.load_query_data(stimulated, reference_model)
    first.train(**QUIET)
    adapter = snapshot(first)["query_paths.paths.0.weight"]
    stimulated.obs["cell_type"] = np.where(np.arange(stimulated.n_obs) % 9, "unknown", "Paneth")
    with pytest.warns(UserWarning, match="'Paneth'"):
        second = SCTAB.load_query_data(stimulated, first, learn_labels=True)
    second.train(max_epochs=1, **QUIET)
    n_known = len(first.labels)
    after = snapshot(second)["query_paths.paths.0.weight"]
    assert torch.equal(after[:n_known], adapter)
    assert not torch.equal(adapter, torch.zeros_like(adapter))


def test_a_query_model_is_not_pretrained(reference_model, stimulated):
    mapped = SCTAB.load_query_data(stimulated, reference_model)
    with pytest.raises(ValueError, match="A query model is not pretrained"):
        mapped.pretrain()


def test_a_report_is_a_copy_of_the_record(reference_model, stimulated):
    mapped = SCTAB.load_query_data(stimulated, reference_model)
    mapped.train(**QUIET)
    before = mapped.query_record.to_dict()
    report = mapped.surgery_report()
    report.parameters.drop(report.parameters.index, inplace=True)
    report.known_batches.clear()
    assert same_values(mapped.query_record.to_dict(), before)


def test_the_indices_of_a_loaded_query_model_are_those_of_the_query(
    reference_model, stimulated, tmp_path
):
    mapped = SCTAB.load_query_data(stimulated, reference_model, policy="head")
    mapped.train(max_epochs=1, **QUIET)
    before = np.sort(mapped.train_indices)
    mapped.save(tmp_path / "mapped")
    loaded = SCTAB.load(tmp_path / "mapped", stimulated)
    np.testing.assert_array_equal(np.sort(loaded.train_indices), before)


def test_a_query_model_with_other_cells_keeps_its_adapter_and_says_so(
    reference_model, stimulated, tmp_path
):
    mapped = SCTAB.load_query_data(stimulated, reference_model)
    mapped.train(**QUIET)
    mapped.save(tmp_path / "mapped")
    loaded = SCTAB.load(tmp_path / "mapped", reference_model.adata.copy())
    before = snapshot(loaded)
    with pytest.warns(UserWarning, match="None of these cells is of the query's batches"):
        loaded.train(**QUIET)
    assert all(torch.equal(t, before[name]) for name, t in snapshot(loaded).items())
