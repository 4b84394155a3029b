"""Barlow Twins and BYOL: who learns, what moves the target, and what collapse looks like."""

from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from scvi_sctab.module import BarlowTwinsModule, BYOLModule
from scvi_sctab.nn import (
    CellViews,
    EncoderOutput,
    GeneLinear,
    LinearEncoder,
    MLPEncoder,
    embedding_spread,
    normalize_counts,
)
from scvi_sctab.train import UpdateMovingAverage, WarnCollapse

N_CELLS, N_GENES, N_LATENT = 40, 60, 6
pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
]


class SELUEncoder(nn.Module):
    """As that of Richter et al.: the last layer is linear, dropout before it."""

    def __init__(self, dropout=0.1):
        super().__init__()
        self.n_output, self.n_condition = N_LATENT, 8
        self.first, self.last = GeneLinear(N_GENES, 8), nn.Linear(8, N_LATENT)
        self.between = nn.Sequential(nn.SELU(), nn.Dropout(dropout))

    def forward(self, x, condition=None):
        z = self.last(self.between(self.first(x)))
        return EncoderOutput(z, z.new_zeros(()))


ENCODERS = {
    "linear": lambda: LinearEncoder(N_GENES, N_LATENT),
    "mlp": lambda: MLPEncoder(N_GENES, N_LATENT, n_layers=2),
    "selu": SELUEncoder,
}
MODULES = {
    "barlow": lambda encoder, views: BarlowTwinsModule(encoder, views, widths=(8, 7)),
    "byol": lambda encoder, views: BYOLModule(encoder, views, n_hidden=8, n_projection=7),
}
modules = pytest.mark.parametrize("kind", MODULES)


def make_module(kind, encoder="selu", **views):
    torch.manual_seed(0)
    return MODULES[kind](ENCODERS[encoder](), CellViews(**views))


def make_batch(n_cells=N_CELLS, store=lambda x: x):
    counts = np.random.default_rng(0).poisson(0.7, (n_cells, N_GENES))
    return {"X": store(torch.tensor(counts, dtype=torch.float32))}


def run(module, batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return module(batch, get_inference_input_kwargs={"generator": generator})


class Plan(pl.LightningModule):
    """The least that trains a module."""

    def __init__(self, module, lr=0.01):
        super().__init__()
        self.module, self.lr = module, lr

    def step(self, batch, mode):
        output = run(self.module, batch)[-1]
        logged = {f"{mode}_{name}": value for name, value in output.extra_metrics.items()}
        self.log_dict(logged, on_epoch=True, on_step=False, batch_size=output.n_obs_minibatch)
        return output.loss

    def training_step(self, batch, batch_idx):
        return self.step(batch, "train")

    def validation_step(self, batch, batch_idx):
        self.step(batch, "validation")

    def configure_optimizers(self):
        trained = [p for p in self.module.parameters() if p.requires_grad]
        return torch.optim.SGD(trained, lr=self.lr)


def fit(module, *callbacks, epochs=1, lr=0.01, validate=False):
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    cells = make_batch()["X"]
    batches = DataLoader([{"X": part} for part in cells.split(20)], batch_size=None)
    trainer.fit(Plan(module, lr), batches, batches if validate else None)


@modules
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("store", [lambda x: x, torch.Tensor.to_sparse_csr], ids=["dense", "csr"])
def test_every_parameter_of_the_encoder_gets_a_gradient(kind, encoder, store):
    module = make_module(kind, encoder)
    output = run(module, make_batch(store=store))[-1]
    assert output.n_obs_minibatch == N_CELLS
    output.loss.backward()
    for name, parameter in module.named_parameters():
        if name.startswith("target_"):
            assert parameter.grad is None
            assert not parameter.requires_grad
        elif parameter.ndim == 2:
            assert (parameter.grad.norm(dim=1) > 1e-6).all(), name
        else:
            assert parameter.grad is not None, name


@modules
def test_sparse_and_dense_cells_of_the_same_views_have_the_same_loss(kind):
    module = make_module(kind, mask_rate=0.0, noise=0.2).eval()
    dense, sparse = (
        run(module, make_batch(store=store))[-1].loss
        for store in (lambda x: x, torch.Tensor.to_sparse_csr)
    )
    torch.testing.assert_close(dense, sparse)


@modules
def test_what_all_embeddings_have_in_common_is_not_seen_in_training(kind):
    torch.manual_seed(0)
    module = MODULES[kind](SELUEncoder(dropout=0.0), CellViews())
    expected = run(module, make_batch())[-1].loss
    nn.init.constant_(module.encoder.last.bias, 3.0)
    torch.testing.assert_close(run(module, make_batch())[-1].loss, expected, rtol=1e-3, atol=0)


def project(module, views):
    return [module.projector(module.encoder(view).embedding) for view in views]


def draw_views(module, batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return module.views(normalize_counts(batch["X"]), generator)


def test_barlow_twins_compares_the_projections_of_both_views():
    module, batch = make_module("barlow").double().eval(), make_batch()
    batch["X"] = batch["X"].double()
    first, second = project(module, draw_views(module, batch))
    correlation = np.corrcoef(first.detach().T, second.detach().T)[:7, 7:]
    off = correlation[~np.eye(7, dtype=bool)]
    expected = ((np.diag(correlation) - 1) ** 2).sum() + 0.0051 * (off**2).sum()
    assert run(module, batch)[-1].loss.item() == pytest.approx(expected, rel=0.02)
    module.off_diagonal = 1.0
    assert run(module, batch)[-1].loss > expected + 0.5 * (off**2).sum()


def test_byol_predicts_the_target_of_the_other_view_both_ways():
    module, batch = make_module("byol").eval(), make_batch()
    nn.init.normal_(module.target_encoder.first.weight)  # no longer a copy
    views = draw_views(module, batch)
    predictions = [module.predictor(z) for z in project(module, views)]
    targets = [
        module.target_projector(module.target_encoder(view).embedding).detach() for view in views
    ]
    expected = 0.0
    for prediction, target in zip(predictions, reversed(targets), strict=True):
        cosines = [
            (p @ t / (p.norm() * t.norm())).item() for p, t in zip(prediction, target, strict=True)
        ]
        expected += np.mean([2 - 2 * cosine for cosine in cosines])
    assert run(module, batch)[-1].loss.item() == pytest.approx(expected, rel=1e-4)


@modules
def test_the_spread_of_embeddings_and_projections_is_reported(kind):
    module, batch = make_module(kind).eval(), make_batch()
    embedding = module.encoder(draw_views(module, batch)[0]).embedding
    expected = {
        "embedding_spread": embedding_spread(embedding),
        "projection_spread": embedding_spread(module.projector(embedding)),
    }
    torch.testing.assert_close(run(module, batch)[-1].extra_metrics, expected)


@modules
def test_whole_cells_are_embedded(kind):
    module, batch = make_module(kind).eval(), make_batch()
    embedding = module.embed(batch)
    assert embedding.shape == (N_CELLS, N_LATENT)
    expected = module.encoder(normalize_counts(batch["X"])).embedding
    torch.testing.assert_close(embedding, expected)


@modules
def test_validation_repeats_by_generator_and_takes_a_single_cell(kind):
    module, batch = make_module(kind).eval(), make_batch()
    losses = [run(module, batch, seed)[-1].loss for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    assert torch.isfinite(run(module, make_batch(1))[-1].loss)


@modules
def test_no_cells_are_sampled(kind):
    with pytest.raises(NotImplementedError, match="An encoder does not generate cells"):
        make_module(kind).sample()


def test_in_training_the_target_is_trained_on_batches_without_learning():
    module = make_module("byol")
    before = {n: p.clone() for n, p in module.named_parameters() if n.startswith("target_")}
    assert module.train().target_encoder.training
    run(module, make_batch())[-1].loss.backward()
    assert all(torch.equal(module.get_parameter(n), p) for n, p in before.items())
    assert not module.eval().target_encoder.training


class Record(pl.Callback):
    """Keep the weights of target and online network."""

    def __init__(self):
        self.weights = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        state = pl_module.module.state_dict()
        self.weights.append({name: tensor.clone() for name, tensor in state.items()})


def test_after_each_step_of_a_fit_the_target_has_moved_by_its_share():
    module = make_module("byol")
    module.decay = 0.9
    before, after = Record(), Record()
    start = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    fit(module, before, UpdateMovingAverage(), after, lr=0.5)
    assert len(before.weights) == 2
    trained = [n for n, p in module.named_parameters() if n.startswith("target_")]
    assert len(trained) == 8
    for old, new in zip(before.weights, after.weights, strict=True):
        for name in trained:
            online = old[name.removeprefix("target_")]
            difference = online - old[name]
            assert difference.abs().max() > 0
            expected = old[name] + 0.1 * difference
            torch.testing.assert_close(new[name], expected)
            assert torch.equal(new[name.removeprefix("target_")], online)
    stayed = [name for name in trained if torch.equal(module.state_dict()[name], start[name])]
    # The only one whose gradient is 0, see below.
    assert stayed == ["target_encoder.last.bias"]


def test_the_target_takes_over_the_statistics_of_batch_norm():
    module = make_module("byol")
    fit(module, UpdateMovingAverage())
    for name, buffer in module.projector.named_buffers():
        assert torch.equal(buffer, module.target_projector.get_buffer(name))
    assert int(module.target_projector[1].num_batches_tracked) == 4  # two views, two steps


def collapse(encoder):
    """Let it return its last bias and nothing else."""
    nn.init.zeros_(encoder.first.weight)
    nn.init.zeros_(encoder.last.weight)
    nn.init.ones_(encoder.last.bias)
    encoder.requires_grad_(False)


@pytest.mark.parametrize("validate", [True, False])
def test_collapse_is_warned_of_in_a_fit(validate):
    module = make_module("barlow")
    collapse(module.encoder)
    message = r"alike to the loss: embedding_spread is 0 and .* below 0.1 for 2 epochs"
    with pytest.warns(UserWarning, match=message):
        fit(module, WarnCollapse(patience=2), epochs=4, validate=validate)


def test_without_a_predictor_the_projections_collapse_and_the_embeddings_hide_it():
    module = make_module("byol", "mlp")
    module.predictor, module.decay = nn.Identity(), 0.0
    callbacks = UpdateMovingAverage(), WarnCollapse()
    with pytest.warns(UserWarning, match=r"to the loss: projection_spread is 0\.\d+, below"):
        fit(module, *callbacks, epochs=40, lr=1.0)
    _, outputs, output = run(module, make_batch())
    assert output.extra_metrics["embedding_spread"] > 0.5
    projection = outputs["projection1"]
    assert nn.functional.cosine_similarity(projection, projection[:1]).min() > 0.9


@modules
def test_a_healthy_fit_is_not_warned_of(kind):
    fit(make_module(kind), WarnCollapse(patience=1), epochs=2, validate=True)


def watch(callback, metrics):
    callback.on_fit_start(None, None)
    for values in metrics:
        logged = {name: torch.tensor(value) for name, value in values.items()}
        callback.on_train_epoch_end(SimpleNamespace(callback_metrics=logged), None)


VALIDATION, TRAIN = "validation_embedding_spread", "train_embedding_spread"
PROJECTION = "validation_projection_spread"


@pytest.mark.parametrize(
    "metrics",
    [
        pytest.param([{VALIDATION: 0.01}] * 2, id="too short"),
        pytest.param([{VALIDATION: s} for s in (0.01, 0.01, 0.3, 0.01, 0.01)], id="recovered"),
        pytest.param([{VALIDATION: 0.05}] * 3, id="at the limit"),
        pytest.param([{VALIDATION: 0.4, TRAIN: 0.01}] * 3, id="validation counts"),
        pytest.param([{VALIDATION: 0.4, PROJECTION: 0.05}] * 3, id="at the limit behind"),
        pytest.param([{"train_loss": 0.0}] * 3, id="not logged"),
    ],
)
def test_no_warning_where_the_spread_is(metrics):
    watch(WarnCollapse(min_spread=0.05, patience=3), metrics)


@pytest.mark.parametrize("where", [VALIDATION, TRAIN, PROJECTION])
@pytest.mark.parametrize("spread", [0.049, float("nan")])
def test_a_spread_that_is_low_or_no_number_is_warned_of_once_in_each_training(where, spread):
    callback = WarnCollapse(min_spread=0.05, patience=3)
    for _ in range(2):
        with pytest.warns(UserWarning, match="raise `decay`") as caught:
            watch(callback, [{"train_projection_spread": 0.5} | {where: spread}] * 7)
        assert len(caught) == 1
