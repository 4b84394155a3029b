"""Encoder and decoder of self-supervised learning."""

import torch

from scvi_sctab.nn import CSR, SELUDecoder, SELUEncoder


def test_the_layers_are_those_of_the_publication():
    encoder = SELUEncoder(100)
    linear = [layer for layer in encoder.layers if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in linear] == [512, 512, 256, 256, 64]
    assert [i for i, layer in enumerate(encoder.layers) if layer in linear] == [0, 3, 6, 9, 12]
    assert isinstance(encoder.layers[-1], torch.nn.Linear)
    assert encoder.layers[2].p == 0.1


def test_sparse_and_dense_cells_embed_alike():
    encoder = SELUEncoder(50, (12, 6)).eval()
    x = torch.rand(9, 50) * (torch.rand(9, 50) < 0.3)
    torch.testing.assert_close(encoder(CSR.from_dense(x)).embedding, encoder(x).embedding)


def test_a_condition_shifts_the_first_layer():
    encoder = SELUEncoder(50, (12, 6)).eval()
    x, shift = torch.rand(9, 50), torch.rand(12)
    shifted = encoder(x, shift.expand(9, 12)).embedding
    with torch.no_grad():
        encoder.layers[0].bias += shift
    torch.testing.assert_close(encoder(x).embedding, shifted)


def test_a_standardised_embedding_has_mean_0_and_spread_1_but_where_it_is_constant():
    encoder = SELUEncoder(50, (12, 6)).eval()
    with torch.no_grad():
        encoder.layers[-1].weight[2] = 0
    x = torch.rand(200, 50)
    z = encoder(x).embedding.detach()
    encoder.standardize(z.mean(dim=0), z.std(dim=0))
    again = encoder(x).embedding
    torch.testing.assert_close(again.mean(dim=0), torch.zeros(6), atol=1e-4, rtol=0)
    expected = torch.ones(6)
    expected[2] = 0
    torch.testing.assert_close(again.std(dim=0), expected, atol=1e-3, rtol=0)


def test_a_decoder_of_some_genes_says_of_them_what_one_of_all_says():
    decoder = SELUDecoder(6, 40, (8, 12)).eval()
    z, genes = torch.rand(5, 6), torch.tensor([3, 30, 7])
    torch.testing.assert_close(decoder(z, genes=genes), decoder(z)[:, genes])
    decoder.start_from(torch.arange(40.0))
    torch.testing.assert_close(decoder.final_mapping.bias.data, torch.arange(40.0))
