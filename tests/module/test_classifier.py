"""What a classifier says of itself."""

import pytest
import torch

from scvi_sctab._config import PRESETS, override
from scvi_sctab.module import build_classifier, build_reconstruction

N_GENES, N_LABELS = 20, 3
LATENT = {
    "arguments": {"n_input": N_GENES, "n_latent": 4, "n_hidden": 8},
    "has_batch": False,
}


def build(pretrained=None, **arguments):
    config = override(PRESETS["small"].network, {"n_d": 8, "n_a": 4})
    return build_classifier(config, N_GENES, N_LABELS, pretrained=pretrained, **arguments)


def test_it_reads_genes_and_has_a_loss_without_labels_where_it_reconstructs():
    module = build()
    assert module.reads_genes
    assert not module.has_unsupervised_loss
    config = PRESETS["small"].network
    module.reconstruction = build_reconstruction(module.encoder, N_GENES, (), config)
    assert module.has_unsupervised_loss


@pytest.mark.parametrize("frozen", [True, False])
def test_on_a_latent_space_it_reads_none_and_has_such_a_loss_unless_frozen(frozen):
    module = build({**LATENT, "frozen": frozen})
    assert not module.reads_genes
    assert module.has_unsupervised_loss is not frozen


def test_linear_parts_are_those_that_there_are():
    module = build(first_query_batches=[1], n_categories=[2])
    assert module.linear_parts == [module.linear_skip, module.query_paths]
    module.linear_skip = None
    assert module.linear_parts == [module.query_paths]


def test_new_parameters_are_listed_in_the_order_of_the_state_dict():
    small, large = build(n_categories=[2]), build(n_categories=[3], first_query_batches=[2])
    grown = large.grow_from(small.state_dict(), [2])
    new = [name for name, entries in grown.items() if entries is None]
    names = [name for name, _ in large.named_parameters()]
    assert new == sorted(new, key=names.index)
    assert len(new) == 2
    torch.testing.assert_close(large.linear_skip.weight, small.linear_skip.weight)
