"""The loss against sklearn and by hand; the transforms."""

import pytest
import torch
from sklearn.metrics import log_loss

from scvi_sctab.nn import LinearEncoder, MLPEncoder, TabNetEncoder, normalize_counts
from scvi_sctab.nn import weighted_cross_entropy as loss


@pytest.fixture
def cells():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(40, 4, generator=generator), torch.randint(4, (40,), generator=generator)


def test_weighted_loss_is_that_of_sklearn(cells):
    logits, labels = cells
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0])
    expected = log_loss(labels, logits.double().softmax(1), sample_weight=weights[labels])
    assert float(loss(logits, labels, weights)) == pytest.approx(expected, rel=1e-5)


def test_unlabelled_cells_do_not_count(cells):
    logits, labels = cells
    masked = labels.clone()
    masked[10:] = -100
    torch.testing.assert_close(loss(logits, masked), loss(logits[:10], labels[:10]))


def test_a_batch_without_labels_costs_nothing_and_has_a_gradient(cells):
    logits = cells[0].requires_grad_()
    value = loss(logits, torch.full((40,), -100), torch.ones(4))
    value.backward()
    assert value == 0
    assert (logits.grad == 0).all()


def test_the_plain_mean_divides_by_the_number_of_labelled_cells(cells):
    logits, labels = cells
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0])
    ratio = float(loss(logits, labels, weights, "mean") / loss(logits, labels, weights))
    assert ratio == pytest.approx(float(weights[labels].mean()))


def test_sparse_counts_are_normalised_as_dense_ones():
    counts = torch.randint(4, (6, 9)).float()
    torch.testing.assert_close(
        normalize_counts(counts.to_sparse()), normalize_counts(counts), rtol=0, atol=0
    )


def test_normalised_cells_sum_to_ten_thousand_and_empty_ones_to_zero():
    counts = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    torch.testing.assert_close(
        normalize_counts(counts).expm1().sum(dim=1), torch.tensor([1e4, 0.0])
    )


@pytest.mark.parametrize("encoder", [TabNetEncoder, MLPEncoder, LinearEncoder])
def test_encoders_share_one_protocol(encoder):
    module = encoder(12)
    embedding, mask_loss = module(torch.rand(5, 12))
    assert embedding.shape == (5, module.n_output)
    assert mask_loss.shape == ()
    assert mask_loss <= 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_independent": 0, "n_shared": 0}, "both 0"),
        ({"n_steps": 0}, "at least one"),
        ({"mask_type": "softmax"}, "none of"),
    ],
)
def test_a_network_that_cannot_be_built_says_why(arguments, message):
    with pytest.raises(ValueError, match=message):
        TabNetEncoder(12, **arguments)


@pytest.mark.parametrize("arguments", [{"n_independent": 0}, {"n_shared": 0}, {"n_steps": 3}])
def test_other_layouts_work_and_share_their_weights(arguments):
    encoder = TabNetEncoder(12, n_d=4, n_a=3, **arguments)
    encoder(torch.rand(8, 12)).embedding.sum().backward()
    blocks = [encoder.initial_splitter, *encoder.feat_transformers]
    if arguments.get("n_shared") != 0:
        assert len({id(block.shared.shared_layers) for block in blocks}) == 1
    assert encoder.attention(torch.rand(8, 12)).shape == (8, 12)


def test_later_steps_look_elsewhere_when_gamma_is_one():
    encoder = TabNetEncoder(30, n_d=4, n_a=4, n_steps=2, gamma=1.0).eval()
    with torch.no_grad():
        (first, _), (second, _) = encoder._steps(torch.rand(16, 30))
    assert (first * second).sum() < (first * first).sum()
