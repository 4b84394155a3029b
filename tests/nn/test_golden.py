"""The network against numbers printed by the original scTab code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch.nn.functional import cross_entropy

from scvi_sctab.data import to_tensor
from scvi_sctab.nn import CSR, TabNet, normalize_counts

GOLDEN = Path(__file__).parents[1] / "golden" / "tabnet_golden_a.npz"
FLOAT32_ATOL = 1e-3


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


def tensors(golden, prefix):
    return {
        key.removeprefix(prefix): torch.from_numpy(np.asarray(value))
        for key, value in golden.items()
        if key.startswith(prefix)
    }


@pytest.fixture
def network(golden):
    network = TabNet(**json.loads(str(golden["config_json"])))
    network.load_state_dict(tensors(golden, "state_dict/"), strict=True)
    return network


@pytest.fixture
def x(golden):
    return torch.from_numpy(golden["x"])


@pytest.fixture(params=["dense", "sparse"])
def store(request):
    """How cells are handed to the network: each test holds of both paths through it."""
    if request.param == "dense":
        return lambda x: x
    return lambda x: CSR.from_torch(to_tensor(csr_matrix(x.numpy())))


def dense(matrix):
    return matrix.to_dense() if isinstance(matrix, CSR) else matrix


def assert_close(actual, expected, rtol=1e-6):
    """Compare in units of the largest expected value, in float64."""
    expected = torch.as_tensor(np.asarray(expected)).double()
    scale = max(float(expected.abs().max()), 1e-6)
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=rtol * scale)


def test_parameter_names_and_shapes_are_the_originals_in_their_order(network, golden):
    expected = json.loads(str(golden["param_names_json"]))
    assert [[name, list(p.shape)] for name, p in network.named_parameters()] == expected


def test_state_dict_keys_are_the_originals_aliases_included(network, golden):
    assert set(network.state_dict()) == set(tensors(golden, "state_dict/"))
    assert len(network.state_dict()) == 114


def test_normalisation_gives_the_original_input(golden):
    x = normalize_counts(torch.from_numpy(golden["counts"]).float())
    torch.testing.assert_close(x, torch.from_numpy(golden["x"]), rtol=1e-6, atol=1e-6)


def test_evaluation_in_float32_is_the_originals(network, golden, x, store):
    network.eval()
    with torch.no_grad():
        logits, mask_loss = network(store(x))
        embedding = network.encoder(store(x)).embedding
        ((mask, step),) = network.encoder._steps(store(x))
    for actual, key in [(logits, "logits"), (mask_loss, "M_loss"), (embedding, "embedding"),
                        (dense(mask), "mask_0"), (step, "steps_output_0")]:  # fmt: skip
        expected = torch.from_numpy(golden[f"eval/{key}"])
        torch.testing.assert_close(actual, expected, rtol=0, atol=FLOAT32_ATOL)


def test_evaluation_in_float64_is_the_originals_to_a_millionth(network, golden, x, store):
    network.double().eval()
    with torch.no_grad():
        logits, mask_loss = network(store(x.double()))
        attention = network.encoder.attention(store(x.double()))
    assert_close(logits, golden["eval64/logits"])
    assert_close(mask_loss, golden["eval64/M_loss"])
    assert_close(dense(attention), golden["eval64/M_explain"])


def test_masks_are_probabilities_with_exact_zeros(network, x, store):
    network.eval()
    with torch.no_grad():
        mask = dense(network.encoder._steps(store(x))[0][0])
    torch.testing.assert_close(mask.sum(dim=1), torch.ones(256))
    assert (mask >= 0).all()
    assert (mask == 0).float().mean() > 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_training_step_gives_the_original_logits_gradients_and_statistics(
    network, golden, x, dtype, store
):
    network.to(dtype).train()
    logits, mask_loss = network(store(x.to(dtype)))
    loss = cross_entropy(logits, torch.from_numpy(golden["labels"]))
    loss.backward()
    assert_close(logits, golden["train/logits"], rtol=1e-4)
    assert_close(mask_loss, golden["train/M_loss"], rtol=1e-5)
    assert_close(loss, golden["train/ce_loss"], rtol=1e-5)
    gradients = tensors(golden, "train/grad/")
    assert set(gradients) == {name for name, _ in network.named_parameters()}
    total = float(golden["train/grad_norm_total"])
    for name, parameter in network.named_parameters():
        error = (parameter.grad - gradients[name]).norm() / total
        assert error < 1e-5, name
    state = network.state_dict()
    for name, expected in tensors(golden, "train/state_after/").items():
        assert_close(state[name], expected, rtol=1e-5)


def test_sparsity_term_changes_the_loss_and_the_gradients_as_in_the_original(
    network, golden, x, store
):
    network.double().train()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    norms = []
    for lambda_sparse in (0.0, 0.01):
        network.load_state_dict(state)
        network.zero_grad()
        logits, mask_loss = network(store(x.double()))
        loss = cross_entropy(logits, torch.from_numpy(golden["labels"]))
        (loss - lambda_sparse * mask_loss).backward()
        norms.append({name: float(p.grad.norm()) for name, p in network.named_parameters()})
    assert_close(loss - 0.01 * mask_loss, golden["train_lambda0.01/loss"], rtol=1e-5)
    # The attention is what the term acts on; elsewhere the change drowns in float32.
    for name in ("fc.weight", "bn.bn.weight", "bn.bn.bias"):
        key = f"encoder.att_transformers.0.{name}"
        expected = golden[f"train_lambda0.01/grad_norm/{key}"] - golden[f"train/grad_norm/{key}"]
        assert norms[1][key] - norms[0][key] == pytest.approx(float(expected), rel=0.02), name


@pytest.mark.parametrize(("n_cells", "n_parts"), [(200, 3), (50, 1)])
def test_ghost_batches_are_cut_like_the_originals(network, golden, x, n_cells, n_parts, store):
    network.double().train()
    logits, mask_loss = network(store(x[:n_cells].double()))
    assert_close(logits, golden[f"train_batch{n_cells}/logits"], rtol=1e-4)
    assert_close(mask_loss, golden[f"train_batch{n_cells}/M_loss"], rtol=1e-5)
    state = network.state_dict()
    for name, expected in tensors(golden, f"train_batch{n_cells}/state_after/").items():
        assert state[name] == expected, name
    assert state["encoder.att_transformers.0.bn.bn.num_batches_tracked"] == 400 + n_parts
