"""Checkpoints laid out as ssl_in_scg published them, small and written with plain torch."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse
from torch import nn

from scvi_sctab import SCTAB
from scvi_sctab.pretrain import BYOL, BarlowTwins, MaskedAutoencoder

N_GENES, WIDTHS = 40, [16, 16, 8, 8, 4]
GENES = [f"ENSG{i:011d}" for i in range(N_GENES)]
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


def mlp(n_input, widths, final=()):
    layers = []
    for before, after in zip([n_input, *widths], widths[:-1], strict=False):
        layers += [nn.Linear(before, after), nn.SELU(), nn.Dropout(0.1)]
    return nn.Sequential(*layers, nn.Linear([n_input, *widths][-2], widths[-1]), *final)


def encoder():
    return mlp(N_GENES, WIDTHS)


def projector(n_input, n_hidden, n_output):
    return nn.Sequential(
        nn.Linear(n_input, n_hidden),
        nn.BatchNorm1d(n_hidden),
        nn.ReLU(),
        nn.Linear(n_hidden, n_output),
    )


def masked_autoencoder():
    decoder = nn.Sequential(mlp(4, [8, 8, 16, 16, N_GENES]), nn.Sigmoid())
    return nn.ModuleDict({"encoder": encoder(), "decoder": decoder})


def masked_autoencoder_with_a_linear_decoder():
    decoder = nn.Sequential(mlp(4, [N_GENES]), nn.Sigmoid())
    return nn.ModuleDict({"encoder": encoder(), "decoder": decoder})


def masked_autoencoder_of_counts():
    decoder = nn.Sequential(mlp(4, [8, 8, 16, 16, 2 * N_GENES], [nn.Softplus()]))
    network = nn.ModuleDict({"encoder": encoder(), "decoder": decoder})
    network.register_parameter("px_r", nn.Parameter(torch.randn(N_GENES)))
    return network


def barlow_twins():
    parts = {"backbone": encoder(), "projector": projector(4, 8, 8)}
    return nn.ModuleDict({**parts, "bn": nn.BatchNorm1d(8, affine=False)})


def barlow_twins_of_lightning():
    twins = barlow_twins()
    return nn.ModuleDict({"inner_model": twins["backbone"], "barlow_twins": twins})


def byol(last_layer_learnt=False):
    net = encoder()
    online = nn.ModuleDict({"net": net, "projector": projector(8, 12, 8)})
    target = copy.deepcopy(online)
    with torch.no_grad():
        for layer in target["net"][: None if last_layer_learnt else -1]:
            for parameter in layer.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
    networks = {"net": net, "online_encoder": online, "target_encoder": target}
    networks["online_predictor"] = projector(8, 12, 8)
    return nn.ModuleDict({"inner_model": net, "byol": nn.ModuleDict(networks)})


def lightning(network, **changes):
    """Wrap what Lightning wraps; Barlow Twins records its arguments, classes among them."""
    return {
        "epoch": 3,
        "global_step": 7440,
        "pytorch-lightning_version": "2.0.9",
        "state_dict": network.state_dict(),
        "loops": {},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.1), "dirpath": "a"}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}],
        "lr_schedulers": [{"step_size": 2, "gamma": 0.9, "verbose": True}],
        "hparams_name": "kwargs",
        "hyper_parameters": {
            "units_encoder": WIDTHS,
            "optimizer": torch.optim.AdamW,
            "activation": nn.SELU,
        },
        **changes,
    }


LAYOUTS = {
    "decoder in reverse": (MaskedAutoencoder, masked_autoencoder, "encoder", lightning),
    "linear decoder": (
        MaskedAutoencoder,
        masked_autoencoder_with_a_linear_decoder,
        "encoder",
        lightning,
    ),
    "decoder of counts": (MaskedAutoencoder, masked_autoencoder_of_counts, "encoder", lightning),
    "Barlow Twins by itself": (BarlowTwins, barlow_twins, "backbone", nn.Module.state_dict),
    "Barlow Twins": (BarlowTwins, barlow_twins_of_lightning, "inner_model", lightning),
    "BYOL": (BYOL, byol, "inner_model", lightning),
}


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    rates = rng.gamma(1, 2, (2, N_GENES))
    labels = np.repeat([0, 1], 60)
    counts = sparse.csr_matrix(rng.poisson(rates[labels]).astype(np.float32))
    obs = pd.DataFrame({"type": np.array(["B", "T"])[labels]}, index=[f"c{i}" for i in range(120)])
    return AnnData(counts, obs=obs, var=pd.DataFrame(index=GENES))


@pytest.fixture(params=LAYOUTS)
def published(request, tmp_path):
    """A file, its class, and the encoder in it."""
    cls, build, name, wrap = LAYOUTS[request.param]
    torch.manual_seed(3)
    network = build()
    torch.save(wrap(network), tmp_path / "a.ckpt")
    return cls, tmp_path / "a.ckpt", network[name].eval()


def imported(cls, path, genes=GENES):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The last layer of this BYOL", UserWarning)
        return cls.from_ssl_in_scg_checkpoint(path, genes)


def expected(network, cells):
    counts = torch.from_numpy(cells.X.toarray())
    with torch.no_grad():
        return network(torch.log1p(1e4 * counts / counts.sum(dim=1, keepdim=True))).numpy()


@pytest.fixture
def autoencoder_file(tmp_path):
    torch.manual_seed(0)
    torch.save(lightning(masked_autoencoder()), tmp_path / "RandomMask.ckpt")
    return tmp_path / "RandomMask.ckpt"


def test_each_published_layout_embeds_as_its_own_network(published, cells):
    cls, path, network = published
    model = imported(cls, path)
    assert type(model) is cls
    assert model.is_trained
    assert model.adata is None
    latent = model.get_latent_representation(cells)
    np.testing.assert_allclose(latent, expected(network, cells), atol=1e-5)


def test_genes_of_a_query_are_matched_by_name(published, cells):
    cls, path, network = published
    order = np.random.default_rng(1).permutation(N_GENES)
    permuted = cells[:, order].copy()
    permuted.var_names = [f"{name}.4" for name in permuted.var_names]
    latent = imported(cls, path).get_latent_representation(permuted)
    np.testing.assert_allclose(latent, expected(network, cells), atol=1e-5)


def test_an_imported_model_is_saved_and_loaded_without_pickle(published, cells, tmp_path):
    cls, path, _ = published
    model = imported(cls, path)
    model.save(tmp_path / "model")
    (tmp_path / "model" / "model.pt").unlink()
    loaded = cls.load(tmp_path / "model")
    np.testing.assert_array_equal(
        loaded.get_latent_representation(cells), model.get_latent_representation(cells)
    )


def test_it_trains_on_with_cells_of_your_own(published, cells):
    cls, path, _ = published
    model = cls.load_query_data(cells, imported(cls, path))
    before = model.get_latent_representation()
    model.train(max_epochs=1, **QUIET)
    assert len(model.history["validation_loss"]) == 1
    assert np.abs(model.get_latent_representation() - before).max() > 1e-4


def test_its_registry_is_that_of_cells(autoencoder_file, cells):
    MaskedAutoencoder.setup_anndata(cells)
    own = MaskedAutoencoder(cells).registry
    registry = imported(MaskedAutoencoder, autoencoder_file).registry
    assert registry.keys() == own.keys()
    assert registry["setup_args"] == own["setup_args"]
    assert registry["field_registries"].keys() == own["field_registries"].keys()


@pytest.mark.parametrize("freeze_encoder", [False, True])
def test_a_classifier_starts_from_it(published, cells, freeze_encoder):
    cls, path, network = published
    model = SCTAB.from_pretrained(
        imported(cls, path), "type", freeze_encoder=freeze_encoder, adata=cells
    )
    first = model.module.encoder.layers[0].weight.detach().clone()
    torch.testing.assert_close(first, network[0].weight.detach())
    model.train(max_epochs=3, **QUIET)
    assert torch.equal(model.module.encoder.layers[0].weight, first) == freeze_encoder
    assert set(model.predict(cells)) <= {"B", "T"}


def test_the_sigmoid_decoder_is_left_and_a_new_one_must_be_trained(autoencoder_file, cells):
    model = imported(MaskedAutoencoder, autoencoder_file)
    for verb in (model.reconstruct, model.get_reconstruction_error):
        with pytest.raises(RuntimeError, match="its decoder has learnt nothing"):
            verb(cells)
    model = MaskedAutoencoder.load_query_data(cells, model)
    model.train(max_epochs=1, **QUIET)
    # Log-normalised expression of 40 genes; a sigmoid would end at 1.
    assert model.reconstruct(cells).mean() > 3


def test_a_last_layer_of_byol_that_never_learnt_is_warned_about(tmp_path):
    torch.save(lightning(byol()), tmp_path / "a.ckpt")
    with pytest.warns(UserWarning, match="never learnt: .* random projection of the 8 units"):
        BYOL.from_ssl_in_scg_checkpoint(tmp_path / "a.ckpt", GENES)
    torch.save(lightning(byol(last_layer_learnt=True)), tmp_path / "b.ckpt")
    BYOL.from_ssl_in_scg_checkpoint(tmp_path / "b.ckpt", GENES)


def test_the_target_of_byol_starts_from_its_encoder(tmp_path):
    torch.save(lightning(byol()), tmp_path / "a.ckpt")
    module = imported(BYOL, tmp_path / "a.ckpt").module
    pairs = zip(module.encoder.parameters(), module.target_encoder.parameters(), strict=True)
    assert all(torch.equal(own, target) for own, target in pairs)


def test_a_run_gives_its_best_checkpoint(tmp_path, cells):
    torch.manual_seed(0)
    for name in ("best_checkpoint_val", "last_checkpoint"):
        network = masked_autoencoder().eval()
        torch.save(lightning(network), tmp_path / f"{name}.ckpt")
        if name.startswith("best"):
            best = network["encoder"]
    latent = imported(MaskedAutoencoder, tmp_path).get_latent_representation(cells)
    np.testing.assert_allclose(latent, expected(best, cells), atol=1e-5)


def test_another_number_of_genes_is_refused_with_both(autoencoder_file):
    with pytest.raises(ValueError, match="has 40 genes, but 39 var_names were given"):
        MaskedAutoencoder.from_ssl_in_scg_checkpoint(autoencoder_file, GENES[:-1])
    with pytest.raises(ValueError, match="ENSG00000000000"):
        MaskedAutoencoder.from_ssl_in_scg_checkpoint(autoencoder_file, [GENES[0], *GENES[:-1]])


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (barlow_twins().state_dict(), r"is one of BarlowTwins; take `BarlowTwins\.from_ssl"),
        (byol().state_dict(), "is one of BYOL"),
        (nn.ModuleDict({"classifier": encoder()}).state_dict(), "is a classifier's"),
        ({"classifier.encoder.initial_bn.weight": torch.ones(4)}, "is scTab's"),
        ({"z.weight": torch.ones(4)}, r"has \['z\.weight'\]"),
        ({}, r"has \[\]"),
    ],
)
def test_other_checkpoints_are_told(tmp_path, state, message):
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=f"not a checkpoint of MaskedAutoencoder: it {message}"):
        MaskedAutoencoder.from_ssl_in_scg_checkpoint(tmp_path / "a.ckpt", GENES)


@pytest.mark.parametrize(
    "change",
    [
        {"encoder.3.weight": torch.ones(16, 17)},
        {"encoder.3.bias": torch.ones(5)},
        {"encoder.3.weight": torch.full((16, 16), torch.nan)},
        {"encoder.3.weight": "text"},
        {"encoder.1.running_mean": torch.ones(16)},
    ],
)
def test_layers_that_do_not_fit_each_other_are_refused(tmp_path, change):
    state = {**masked_autoencoder().state_dict(), **change}
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"damaged or of another network.*'encoder\.0\.weight'"):
        MaskedAutoencoder.from_ssl_in_scg_checkpoint(tmp_path / "a.ckpt", GENES)


def test_a_missing_layer_is_refused(tmp_path):
    state = masked_autoencoder().state_dict()
    del state["encoder.6.weight"], state["encoder.6.bias"]
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="damaged or of another network"):
        MaskedAutoencoder.from_ssl_in_scg_checkpoint(tmp_path / "a.ckpt", GENES)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)


def test_pickled_code_is_refused_and_not_executed(tmp_path):
    trace = tmp_path / "executed"
    evil = lightning(masked_autoencoder(), extra=Malicious(str(trace)))
    torch.save(evil, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"cannot be read without running code(.|\n)*mkdir"):
        MaskedAutoencoder.from_ssl_in_scg_checkpoint(tmp_path / "a.ckpt", GENES)
    (tmp_path / "b.ckpt").write_bytes(pickle.dumps(Malicious(str(trace))))
    with pytest.raises(ValueError, match="not a checkpoint or is damaged"):
        MaskedAutoencoder.from_ssl_in_scg_checkpoint(tmp_path / "b.ckpt", GENES)
    assert not trace.exists()


def test_damaged_and_missing_files_are_told(autoencoder_file, tmp_path):
    content = autoencoder_file.read_bytes()
    (tmp_path / "half.ckpt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="not a checkpoint or is damaged"):
        MaskedAutoencoder.from_ssl_in_scg_checkpoint(tmp_path / "half.ckpt", GENES)
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(ValueError, match="not a checkpoint: it holds a list"):
        MaskedAutoencoder.from_ssl_in_scg_checkpoint(tmp_path / "list.ckpt", GENES)
    with pytest.raises(FileNotFoundError, match="There is no file .*none"):
        MaskedAutoencoder.from_ssl_in_scg_checkpoint(tmp_path / "none.ckpt", GENES)
    with pytest.raises(FileNotFoundError, match="There is no file .*best_checkpoint_val"):
        MaskedAutoencoder.from_ssl_in_scg_checkpoint(tmp_path, GENES)
