"""What a training step does, by hand."""

import copy

import numpy as np
import pytest
import torch
from scvi import REGISTRY_KEYS
from torch.nn.functional import cross_entropy

from scvi_sctab._config import PRESETS, DepthConfig
from scvi_sctab.module import CellTypeClassifier
from scvi_sctab.nn import CSR, TabNetEncoder, normalize_counts
from scvi_sctab.train import ClassifierTrainingPlan

N_GENES, N_LABELS = 20, 3
WEIGHTS = torch.tensor([1.0, 3.0, 0.5])
VECTORS = CSR.from_dense(torch.full((1, N_GENES), 2.0))


def make_module(**arguments):
    torch.manual_seed(0)
    encoder = TabNetEncoder(N_GENES, n_d=6, n_a=4, n_independent=1, n_shared=1)
    module = CellTypeClassifier(encoder, N_GENES, N_LABELS, **arguments)
    if module.linear_skip is not None:
        torch.nn.init.normal_(module.linear_skip.weight)
    return module


def make_plan(module, **arguments):
    return ClassifierTrainingPlan(
        module, **{"class_weights": WEIGHTS, **PRESETS["small"].plan.to_kwargs(), **arguments}
    )


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(5, (40, N_GENES), generator=generator).float()
    labels = torch.randint(N_LABELS, (40, 1), generator=generator)
    return {REGISTRY_KEYS.X_KEY: counts, REGISTRY_KEYS.LABELS_KEY: labels}


def test_logits_are_the_linear_path_and_the_weighted_encoder(batch):
    module = make_module(linear_skip=True, encoder_weight=0.25).eval()
    _, outputs = module(batch, compute_loss=False)
    x = normalize_counts(batch[REGISTRY_KEYS.X_KEY])
    deep = module.final_mapping(module.encoder(x).embedding)
    torch.testing.assert_close(outputs["logits"], module.linear_skip(x) + 0.25 * deep)


@pytest.mark.parametrize("reduction", ["mean", "weighted_mean"])
def test_the_loss_is_that_of_both_paths_and_the_entropy_of_attention(batch, reduction):
    module = make_module(linear_skip=True, lambda_sparse=0.1).eval()
    plan = make_plan(module, reduction=reduction)
    x, labels = (normalize_counts(batch[REGISTRY_KEYS.X_KEY]), batch["labels"].flatten())
    embedding, mask_loss = module.encoder(x)
    ((mask, _),) = module.encoder._steps(x)
    entropy = torch.special.entr(mask).sum(dim=1).mean()
    torch.testing.assert_close(mask_loss, -entropy)
    expected = 0.1 * entropy
    for logits in (module.linear_skip(x), module.final_mapping(embedding)):
        per_cell = cross_entropy(logits, labels, reduction="none") * WEIGHTS[labels]
        norm = len(labels) if reduction == "mean" else WEIGHTS[labels].sum()
        expected = expected + per_cell.sum() / norm
    torch.testing.assert_close(plan._loss(batch, training=True).loss, expected)


def test_cells_without_a_label_do_not_change_the_loss(batch):
    plan = make_plan(make_module(linear_skip=True).eval())
    labelled = {key: value[:25] for key, value in batch.items()}
    batch["labels"][25:] = N_LABELS
    torch.testing.assert_close(
        plan._loss(batch, training=True).loss, plan._loss(labelled, training=True).loss
    )


@pytest.mark.parametrize(
    "arguments",
    [{"class_weights": WEIGHTS}, {"augmentation_vectors": VECTORS}],
    ids=["weighted", "augmented"],
)
def test_training_is_and_validation_is_not(batch, arguments):
    plain = {"class_weights": None}
    plan = make_plan(make_module().eval(), **{**plain, **arguments})
    expected = make_plan(plan.module, **plain)._loss(batch, training=False).loss
    torch.testing.assert_close(plan._loss(batch, training=False).loss, expected)
    assert not torch.isclose(plan._loss(batch, training=True).loss, expected)


def test_a_plan_with_augmentation_can_be_copied(batch):
    plan = make_plan(make_module().eval(), augmentation_vectors=VECTORS)
    copied = copy.deepcopy(plan)
    assert {name for name, _ in copied.named_buffers()} >= {"augmentation.values", "class_weights"}
    losses = []
    for each in (plan, copied):
        torch.manual_seed(0)
        losses.append(each._loss(batch, training=True).loss)
    torch.testing.assert_close(losses[1], losses[0])


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_dense_vectors_end_when_a_plan_moves(device):
    plan = make_plan(make_module(), augmentation_vectors=VECTORS)
    # A GPU makes them for its first batch.
    plan.augmentation._dense = VECTORS.to_dense()
    plan.to(device)
    assert plan.augmentation._dense is None


def test_the_gradient_of_the_encoder_is_clipped_and_that_of_the_linear_path_is_not(
    batch, monkeypatch
):
    plan = make_plan(make_module(linear_skip=True), gradient_clip_norm=1e-3, schedule="step")
    monkeypatch.setattr(plan, "optimizers", list)
    monkeypatch.setattr(plan, "manual_backward", lambda loss: loss.backward())
    trainer = type("Trainer", (), {"is_last_batch": False})()
    monkeypatch.setattr(type(plan), "trainer", property(lambda self: trainer))
    plan.training_step(batch, 0)
    norm = torch.stack([p.grad.norm() for p in plan._deep_parameters()]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)
    assert plan.module.linear_skip.weight.grad.norm() > 1e-2


def test_sgd_trains_the_linear_path_and_adamw_all_else(monkeypatch):
    module = make_module(linear_skip=True)
    plan = make_plan(module)
    monkeypatch.setattr(plan, "_scheduler", lambda optimizer: None)
    (adamw, sgd), _ = plan.configure_optimizers()
    assert isinstance(adamw, torch.optim.AdamW)
    assert isinstance(sgd, torch.optim.SGD)
    trained = [{id(p) for g in o.param_groups for p in g["params"]} for o in (adamw, sgd)]
    assert trained[1] == {id(p) for p in module.linear_skip.parameters()}
    assert trained[0] | trained[1] == {id(p) for p in module.parameters()}
    assert not trained[0] & trained[1]
    small = PRESETS["small"].plan
    assert adamw.param_groups[0]["weight_decay"] == small.weight_decay
    assert sgd.param_groups[0]["weight_decay"] == small.skip_weight_decay
    assert sgd.param_groups[0]["momentum"] == small.skip_momentum


@pytest.mark.parametrize("n_steps", range(1, 31))
def test_one_cycle_rises_and_ends_near_zero_for_any_number_of_steps(n_steps, monkeypatch):
    plan = make_plan(make_module(linear_skip=True), schedule="one_cycle")
    trainer = type("Trainer", (), {"estimated_stepping_batches": n_steps})()
    monkeypatch.setattr(type(plan), "trainer", property(lambda self: trainer))
    (adamw, _), (schedule, _) = plan.configure_optimizers()
    rates = []
    for step in range(n_steps):
        rates.append(adamw.param_groups[0]["lr"])
        adamw.step()
        if step < n_steps - 1:
            schedule.step()
    assert max(rates) <= plan.lr * (1 + 1e-6)
    if n_steps > 3:
        assert rates[-1] < 1e-3 * plan.lr
        assert np.argmax(rates) <= n_steps // 3


def test_the_rate_by_epochs_falls_by_a_tenth(monkeypatch):
    plan = make_plan(make_module(), schedule="step")
    (adamw,), (schedule,) = plan.configure_optimizers()
    adamw.step()
    schedule.step()
    assert adamw.param_groups[0]["lr"] == pytest.approx(0.9 * plan.lr)


@pytest.mark.parametrize("training", [True, False])
def test_cells_are_thinned_in_training_only_and_the_batch_stays(batch, training):
    module = make_module(linear_skip=True)
    plan = make_plan(module, depths=DepthConfig(depths=(5.0, 5.0), share=1.0))
    before, seen = batch[REGISTRY_KEYS.X_KEY].clone(), []
    module.linear_skip.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    plan._loss(batch, training=training)
    assert torch.equal(batch[REGISTRY_KEYS.X_KEY], before)
    n_expressed = (seen[0] > 0).sum(dim=1).float().mean()
    assert (n_expressed < 10) if training else (n_expressed > 13)
    torch.testing.assert_close(
        seen[0].expm1().sum(dim=1), torch.full((40,), 1e4), rtol=1e-3, atol=1
    )
