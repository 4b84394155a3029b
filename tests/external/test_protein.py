"""Surface proteins from RNA."""

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from mudata import MuData

from scvi_sctab.data import get_proteins, join_proteins
from scvi_sctab.external import ProteinPredictor
from scvi_sctab.external.protein import ProteinModule
from scvi_sctab.external.protein._scores import score_columns
from scvi_sctab.nn import SELUEncoder
from scvi_sctab.pretrain import BYOL

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
SMALL = {"widths": (32, 24, 8)}
NAMES = ["first", "second", "third"]


def log_proteins(cells):
    """Three proteins that follow what genes say of cells."""
    dense = cells.X.toarray()
    share = np.log1p(1e4 * dense / dense.sum(axis=1, keepdims=True))
    genes = np.argsort(-share.var(axis=0))[:3]
    return pd.DataFrame(1 + share[:, genes] / 2, index=cells.obs_names, columns=NAMES)


def with_proteins(cells):
    cells = cells.copy()
    cells.obsm["protein"] = np.expm1(log_proteins(cells))
    return cells


@pytest.fixture
def cells(unlabelled):
    return with_proteins(unlabelled)


def trained(cells, max_epochs=3, **arguments):
    ProteinPredictor.setup_anndata(cells, "protein", batch_key=arguments.pop("batch_key", None))
    model = ProteinPredictor(cells, **SMALL, **arguments)
    model.train(max_epochs=max_epochs, **QUIET)
    return model


@pytest.fixture(scope="module")
def _predictor(_cuts):
    return trained(with_proteins(_cuts[0])[::2].copy(), 20)


@pytest.fixture
def predictor(_predictor):
    """A trained model of every other cell, shared: do not train it further."""
    return _predictor


def test_proteins_that_follow_genes_are_learnt_for_other_cells(predictor, cells):
    others = cells[1::2].copy()
    truth = np.log1p(others.obsm["protein"])
    predicted = predictor.predict_protein(others)
    assert predicted.index.equals(others.obs_names)
    assert list(predicted.columns) == NAMES
    errors = ((predicted - truth) ** 2).mean()
    assert (errors < 0.6 * truth.var()).all()
    scores = predictor.get_protein_scores(others)
    assert list(scores.index) == NAMES
    np.testing.assert_allclose(scores["mse"], errors, rtol=1e-4)
    assert (scores["pearson"] > 0.6).all()
    assert (scores["n"] == others.n_obs).all()
    assert predictor.get_latent_representation(others).shape == (others.n_obs, 8)


@pytest.mark.parametrize("path", ["network", "linear"])
def test_each_path_learns_the_whole_task(path, predictor):
    module = predictor.module
    cells = predictor.adata
    truth = np.log1p(cells.obsm["protein"]).to_numpy()

    def outputs(tensors):
        *_, generated = module(tensors, compute_loss=False)
        output = generated["paths"][["network", "linear"].index(path)]
        return (output * module.std + module.mean).cpu().numpy()

    parts = predictor._map_cells(outputs, predictor._select(cells), None)
    error = ((np.concatenate(list(parts)) - truth) ** 2).mean(axis=0)
    assert (error < 0.7 * truth.var(axis=0)).all()


def test_genes_are_matched_by_name(predictor, reference):
    order = np.random.default_rng(0).permutation(reference.n_vars)
    predicted = predictor.predict_protein(reference)
    pd.testing.assert_frame_equal(
        predictor.predict_protein(reference[:, order].copy()), predicted, rtol=1e-5
    )
    some = predictor.predict_protein(reference, indices=[7, 3], batch_size=1)
    pd.testing.assert_frame_equal(some, predicted.iloc[[7, 3]], rtol=1e-4)
    assert predictor.predict_protein(reference, indices=[]).shape == (0, 3)


def tensors(proteins, n_genes=12):
    rng = np.random.default_rng(0)
    counts = rng.poisson(3, (len(proteins), n_genes)).astype(np.float32)
    return {
        "X": torch.from_numpy(counts),
        "proteins": torch.tensor(proteins, dtype=torch.float32),
        "conditions": torch.zeros(len(proteins), 1, dtype=torch.int64),
    }


def module_of(**arguments):
    torch.manual_seed(0)
    return ProteinModule(SELUEncoder(12, (6, 4)), 12, 2, **{"n_hidden": 64, **arguments})


def test_what_was_not_measured_carries_no_loss_and_no_gradient():
    module = module_of().eval()
    nan = float("nan")
    *_, output = module(tensors([[1.0, nan], [2.0, nan], [nan, nan]]))
    output.loss.backward()
    assert torch.isfinite(output.loss)
    for final in (module.head[-1], module.linear_path):
        assert final.weight.grad[0].any()
        assert not final.weight.grad[1].any()
        assert final.bias.grad[1] == 0
    proteins = module.predict(tensors([[0.0, 0.0]] * 3))[:2, 0]
    expected = ((proteins - torch.tensor([1.0, 2.0])) ** 2).mean()
    torch.testing.assert_close(output.loss, expected)
    *_, nothing = module(tensors([[nan, nan]]))
    assert nothing.loss == 0


def test_genes_and_proteins_are_standardised_within_the_module():
    module = module_of()
    generator = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(module.linear_path.weight, generator=generator)
    batch = tensors([[0.0, 0.0]] * 4)
    x = module._get_inference_input(batch)["x"]
    mean, scale = x.mean(dim=0), torch.tensor(2.5)
    module.standardize((torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])), (mean, scale))
    module.linear_path.bias.data.copy_(torch.tensor([0.3, -0.2]))
    module.head[-1].weight.data.zero_()
    module.head[-1].bias.data.zero_()
    linear = (x - mean) / scale @ module.linear_path.weight.T + module.linear_path.bias
    expected = linear / 2 * torch.tensor([3.0, 4.0]) + torch.tensor([1.0, 2.0])
    torch.testing.assert_close(module.eval().predict(batch), expected)


def test_what_is_standardised_by_is_that_of_the_cells_to_train_on(cells):
    cells.obsm["protein"].iloc[:100, 1] = np.nan
    ProteinPredictor.setup_anndata(cells, "protein")
    model = ProteinPredictor(cells, **SMALL)
    trained_on = np.arange(50, 400)
    model._start(trained_on)
    truth = log_proteins(cells).to_numpy()
    np.testing.assert_allclose(model.module.mean[0], truth[50:400, 0].mean(), rtol=1e-5)
    np.testing.assert_allclose(model.module.mean[1], truth[100:400, 1].mean(), rtol=1e-5)
    np.testing.assert_allclose(model.module.std[1], truth[100:400, 1].std(), rtol=1e-5)
    dense = cells.X.toarray()[trained_on]
    x = np.log1p(1e4 * dense / dense.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(model.module.gene_mean, x.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.module.gene_scale, np.sqrt(x.var(axis=0).sum()), rtol=1e-4)


def test_cells_without_any_protein_are_not_learnt_from(cells):
    cells.obsm["protein"].iloc[::2] = np.nan
    ProteinPredictor.setup_anndata(cells, "protein")
    model = ProteinPredictor(cells, **SMALL)
    splitter = model._splitter(train_size=0.8, batch_size=64)
    seen = np.concatenate([splitter.train_idx, splitter.val_idx])
    assert sorted(seen) == list(range(1, cells.n_obs, 2))
    batch = next(iter(splitter.val_dataloader()))
    expected = log_proteins(cells).to_numpy()[splitter.val_idx[:64]]
    np.testing.assert_allclose(batch["proteins"], expected, rtol=1e-5)


def test_batches_differ_by_a_shift_and_an_unknown_one_shifts_nothing(cells):
    cells.obs["lane"] = np.where(np.arange(cells.n_obs) % 2 == 0, "a", "b")
    cells.obsm["protein"].loc[cells.obs["lane"] == "b"] *= 8
    model = trained(cells, 20, batch_key="lane", batch_dropout=0.3)
    by_lane = {}
    for lane in ("a", "b", "new"):
        told = cells.copy()
        told.obs["lane"] = lane
        by_lane[lane] = model.predict_protein(told)
    untold = cells.copy()
    del untold.obs["lane"]
    pd.testing.assert_frame_equal(by_lane["new"], model.predict_protein(untold))
    shift = by_lane["b"] - by_lane["a"]
    assert (shift.std() < 1e-4).all()
    assert (shift.mean() > 0.8).all()
    assert ((by_lane["a"] < by_lane["new"]) & (by_lane["new"] < by_lane["b"])).all(axis=None)


def test_both_forms_bring_a_model_back_and_it_trains_on(cells, predictor, tmp_path):
    expected = predictor.predict_protein(cells)
    predictor.save(tmp_path / "model")
    loaded = ProteinPredictor.load(tmp_path / "model", adata=False)
    pd.testing.assert_frame_equal(loaded.predict_protein(cells), expected)
    # Proteins are matched by name.
    cells.obsm["protein"] = cells.obsm["protein"][["third", "first"]]
    again = ProteinPredictor.load(tmp_path / "model", cells)
    assert again.get_protein_scores()["n"].tolist() == [cells.n_obs, 0, cells.n_obs]
    again.train(max_epochs=2, **QUIET)
    assert (again.predict_protein() != expected).any(axis=None)
    torch.testing.assert_close(again.module.mean, loaded.module.mean)
    (tmp_path / "model" / "model.safetensors").unlink()
    pickled = ProteinPredictor.load(tmp_path / "model", cells, allow_pickle=True)
    pd.testing.assert_frame_equal(pickled.predict_protein(), expected)


def test_a_pretrained_encoder_is_taken_over_and_a_frozen_one_stays(autoencoder, cells):
    shuffled = cells[:, ::-1].copy()
    latent = autoencoder.get_latent_representation(cells)
    for frozen in (True, False):
        model = ProteinPredictor.from_pretrained(
            autoencoder, shuffled, "protein", freeze_encoder=frozen
        )
        assert list(model.adata.var_names) == list(autoencoder.gene_names)
        before = {k: v.clone() for k, v in model.module.encoder.state_dict().items()}
        model.train(max_epochs=3, **QUIET)
        same = [torch.equal(v, before[k]) for k, v in model.module.encoder.state_dict().items()]
        assert all(same) is frozen
        assert any(same) is frozen
        if frozen:
            standardised = (latent - latent.mean(axis=0)) / latent.std(axis=0)
            np.testing.assert_allclose(
                model.get_latent_representation(), standardised, rtol=1e-3, atol=1e-3
            )
            assert not model.module.encoder.training
    np.testing.assert_array_equal(autoencoder.get_latent_representation(cells), latent)


def test_without_a_linear_path_the_network_predicts_alone(cells):
    model = trained(cells, linear_skip=False)
    assert model.module.linear_path is None
    assert np.isfinite(model.predict_protein().to_numpy()).all()


def test_scores_are_those_of_numpy_where_proteins_were_measured():
    rng = np.random.default_rng(0)
    predicted, measured = (pd.DataFrame(rng.normal(size=(20, 3))) for _ in range(2))
    measured.iloc[:5, 0] = np.nan
    measured[1] = 0.1
    measured[2] = np.nan
    scores = score_columns(predicted, measured)
    expected = np.corrcoef(predicted.iloc[5:, 0], measured.iloc[5:, 0])[0, 1]
    assert scores.loc[0, "pearson"] == pytest.approx(expected)
    assert scores["n"].tolist() == [15, 20, 0]
    assert scores.loc[1, "mse"] == pytest.approx(((predicted[1] - 0.1) ** 2).mean())
    assert scores["pearson"].isna().tolist() == [False, True, True]
    assert np.isnan(scores.loc[2, "mse"])


def test_cells_are_scored_each_by_its_own_proteins(predictor):
    truth = np.log1p(predictor.adata.obsm["protein"])
    varies = np.flatnonzero(truth.std(axis=1) > 0.1)[:9]
    scores = predictor.get_cell_scores(indices=varies)
    predicted = predictor.predict_protein(indices=varies).to_numpy()
    pairs = zip(predicted, truth.iloc[varies].to_numpy(), strict=True)
    expected = [np.corrcoef(*pair)[0, 1] for pair in pairs]
    np.testing.assert_allclose(scores["pearson"], expected, rtol=1e-4)
    assert scores.index.equals(predictor.adata.obs_names[varies])


@pytest.mark.filterwarnings("ignore:.*pull_on_update")  # by mudata
def test_proteins_of_a_mudata_are_put_beside_its_genes(unlabelled):
    counts = np.arange(12.0).reshape(4, 3)
    proteins = AnnData(counts, obs=pd.DataFrame(index=unlabelled.obs_names[[3, 2, 1, 0]]))
    proteins.var_names = NAMES
    mdata = MuData({"rna": unlabelled, "prot": proteins})
    joined = join_proteins(mdata, protein="prot")
    frame = get_proteins(joined, "protein_expression")
    np.testing.assert_array_equal(frame.iloc[:4], counts[::-1])
    assert frame.iloc[4:].isna().all(axis=None)
    assert list(frame.columns) == NAMES
    assert "protein_expression" not in unlabelled.obsm
    with pytest.raises(KeyError, match="protein='protein' is not in `mdata.mod`; did you mean"):
        join_proteins(MuData({"rna": unlabelled, "proteins": proteins}))


def test_proteins_of_other_cells_are_not_taken_for_missing(unlabelled):
    protein = AnnData(np.ones((unlabelled.n_obs, 2), np.float32))
    protein.obs_names = [f"{name}-1" for name in unlabelled.obs_names]
    mdata = {"rna": unlabelled, "protein": protein}
    with pytest.raises(ValueError, match="'rna' and 'protein' share no cell.*-1'"):
        join_proteins(Modalities(mdata))
    protein.obs_names = [unlabelled.obs_names[0]] * unlabelled.n_obs
    with pytest.raises(ValueError, match="Cells of 'protein' share names"):
        join_proteins(Modalities(mdata))


class Modalities:
    """As a MuData, which would name the cells anew."""

    def __init__(self, mod):
        self.mod = mod


def test_proteins_of_an_array_are_named_by_uns_or_numbered(unlabelled):
    unlabelled.obsm["protein"] = np.ones((unlabelled.n_obs, 3))
    unlabelled.uns["names"] = np.array(NAMES)
    assert list(get_proteins(unlabelled, "protein")) == ["0", "1", "2"]
    ProteinPredictor.setup_anndata(unlabelled, "protein", "names")
    assert list(ProteinPredictor(unlabelled, **SMALL).protein_names) == NAMES


def test_names_in_uns_are_those_of_a_pretrained_model_too(autoencoder, unlabelled):
    values = with_proteins(unlabelled).obsm["protein"].to_numpy()
    unlabelled.obsm["protein"], unlabelled.uns["names"] = values, NAMES
    model = ProteinPredictor.from_pretrained(autoencoder, unlabelled, "protein", "names")
    model.train(max_epochs=1, **QUIET)
    assert list(model.get_protein_scores(unlabelled).n) == [unlabelled.n_obs] * 3
    unlabelled.uns["names"] = ["x", "y", "z"]
    with pytest.raises(ValueError, match="None of the model's proteins, 'first'.*'x', 'y', 'z'"):
        model.get_protein_scores(unlabelled)


def test_a_hidden_layer_has_units(cells):
    ProteinPredictor.setup_anndata(cells, "protein")
    with pytest.raises(ValueError, match="n_hidden=0"):
        ProteinPredictor(cells, n_hidden=0)


def test_cells_of_an_unknown_batch_are_not_sent_to_a_method_that_is_not_there(cells, tmp_path):
    cells.obs["lane"] = "a"
    trained(cells, 1, batch_key="lane").save(tmp_path / "model")
    cells.obs["lane"] = "b"
    with pytest.raises(ValueError, match="does not know: 'b'. To predict alone") as caught:
        ProteinPredictor.load(tmp_path / "model", cells)
    assert "load_query_data" not in str(caught.value)


def negative(cells):
    cells.obsm["protein"].iloc[3, 1] = -1


def infinite(cells):
    cells.obsm["protein"].iloc[3, 1] = np.inf


def missing(cells):
    cells.obsm["protein"].iloc[:] = np.nan


def twice(cells):
    cells.obsm["protein"].columns = ["a", "b", "a"]


WRONG = {
    "negative": (negative, "negative or infinite values, of 'second'"),
    "infinite": (infinite, "negative or infinite values, of 'second'"),
    "missing": (missing, "no protein was measured in any cell"),
    "twice": (twice, "Proteins are duplicated.*'a'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_proteins_are_refused_that_are(name, cells):
    change, message = WRONG[name]
    change(cells)
    with pytest.raises(ValueError, match=message):
        ProteinPredictor.setup_anndata(cells, "protein")


def test_what_does_not_exist_is_named(cells, predictor, reference, tmp_path):
    with pytest.raises(KeyError, match="protein_expression_obsm_key='proteins'.*mean 'protein'"):
        ProteinPredictor.setup_anndata(cells, "proteins")
    with pytest.raises(KeyError, match="protein_names_uns_key='names' is not in `adata.uns`"):
        ProteinPredictor.setup_anndata(cells, "protein", "names")
    with pytest.raises(KeyError, match="batch_key='lane'"):
        ProteinPredictor.setup_anndata(cells, "protein", batch_key="lane")
    with pytest.raises(KeyError, match="is not in `adata.obsm`"):
        predictor.get_protein_scores(reference)
    predictor.save(tmp_path / "model")
    cells.obsm["protein"].columns = ["x", "y", "z"]
    with pytest.raises(ValueError, match="None of the model's proteins, 'first'.*'x', 'y', 'z'"):
        ProteinPredictor.load(tmp_path / "model", cells)


def test_another_model_is_refused_as_a_reference_of_files(predictor, tmp_path):
    predictor.save(tmp_path / "model")
    with pytest.raises(ValueError, match="holds a ProteinPredictor, not a BYOL"):
        BYOL.load(tmp_path / "model")


class MyPredictor(ProteinPredictor):
    """A user's subclass."""


def test_a_subclass_trains_saves_and_loads_its_files_and_those_of_its_parent(
    cells, predictor, tmp_path
):
    MyPredictor.setup_anndata(cells, "protein")
    model = MyPredictor(cells, **SMALL)
    model.train(max_epochs=1, **QUIET)
    model.save(tmp_path / "mine")
    loaded = MyPredictor.load(tmp_path / "mine", cells)
    pd.testing.assert_frame_equal(loaded.predict_protein(cells), model.predict_protein(cells))
    predictor.save(tmp_path / "theirs")
    theirs = MyPredictor.load(tmp_path / "theirs")
    pd.testing.assert_frame_equal(theirs.predict_protein(cells), predictor.predict_protein(cells))
    with pytest.raises(ValueError, match="holds a MyPredictor, not a ProteinPredictor"):
        ProteinPredictor.load(tmp_path / "mine")


def test_scvi_sctab_has_it_among_its_external_models():
    import scvi_sctab

    assert scvi_sctab.external.ProteinPredictor is ProteinPredictor


@pytest.mark.parametrize("idle", ["encoder_weight", "reconstruction_weight", "lambda_sparse"])
def test_a_hyperparameter_of_labels_is_refused(cells, idle):
    ProteinPredictor.setup_anndata(cells, "protein")
    with pytest.raises(TypeError, match=rf"ProteinPredictor has no hyperparameters \['{idle}'\]"):
        ProteinPredictor(cells, **SMALL, **{idle: 0.5})
