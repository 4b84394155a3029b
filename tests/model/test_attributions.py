"""Attributions add up, and what they name is what labels hang on."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from scvi_sctab import SCTAB
from scvi_sctab._optional import import_optional


def expression(model, query):
    counts = query[:, model.gene_names].X.toarray()
    return np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))


def centred_logits(model, x):
    """Of dense expression, by the parts of the network."""
    module = model.module.eval()
    x = torch.as_tensor(x, dtype=torch.float32)
    with torch.no_grad():
        logits = module.final_mapping(module.encoder(x)[0]) * module.encoder_weight
        logits = logits + x @ module.linear_skip.weight.T + module.linear_skip.bias
    return (logits - logits.mean(dim=1, keepdim=True)).numpy()


@pytest.fixture
def linear(reference):
    """A model whose logits are linear in the expression, from the first step on."""
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    model = SCTAB(reference, encoder="linear", linear_skip=False)
    model.train(max_epochs=1, enable_progress_bar=False)
    return model


def test_integrated_gradients_add_up_to_the_logit_less_that_of_no_expression(model, query):
    pytest.importorskip("captum")
    cells = np.arange(0, query.n_obs, 25)
    x = expression(model, query[cells])
    after, before = centred_logits(model, x), centred_logits(model, np.zeros_like(x))
    for label in (None, "B"):
        values = model.get_attributions(query, cells, label=label, n_steps=200, batch_size=8)
        assert isinstance(values, sparse.csr_matrix)
        assert values.shape == x.shape
        k = after.argmax(axis=1) if label is None else list(model.labels).index(label)
        rows = np.arange(len(cells))
        expected = after[rows, k] - before[rows, k]
        np.testing.assert_allclose(values.sum(axis=1).A1, expected, rtol=0.02, atol=0.1)
        assert np.abs(expected).mean() > 1


def test_genes_that_a_cell_does_not_express_get_nothing(model, query):
    pytest.importorskip("captum")
    values = model.get_attributions(query, np.arange(5), method="input_x_gradient")
    assert values.nnz > 0
    assert not values.toarray()[expression(model, query[:5]) == 0].any()


@pytest.mark.parametrize("method", ["integrated_gradients", "input_x_gradient"])
def test_attributions_of_a_linear_model_are_weights_times_expression(linear, query, method):
    pytest.importorskip("captum")
    values = linear.get_attributions(query, np.arange(9), "B", method, n_steps=3, batch_size=4)
    module = linear.module
    weight = (module.final_mapping.weight @ module.encoder.linear.weight).detach().numpy()
    weight = weight[list(linear.labels).index("B")] - weight.mean(axis=0)
    expected = weight * expression(linear, query[:9])
    np.testing.assert_allclose(values.toarray(), expected, rtol=1e-3, atol=1e-5)


def test_attributions_do_not_depend_on_batches_or_order_of_cells(model, query):
    pytest.importorskip("captum")
    cells = np.arange(12)
    expected = model.get_attributions(query, cells, n_steps=5)
    backwards = model.get_attributions(query, cells[::-1], n_steps=5, batch_size=5)
    np.testing.assert_allclose(backwards.toarray()[::-1], expected.toarray(), atol=1e-4)
    assert model.get_attributions(query, []).shape == (0, len(model.gene_names))


def test_a_wrong_label_or_method_is_named(model, query):
    pytest.importorskip("captum")
    with pytest.raises(ValueError, match="'CD14 Mon' is no label.*did you mean 'CD14 Mono'"):
        model.get_attributions(query, label="CD14 Mon")
    with pytest.raises(ValueError, match="method='lime' is none of integrated_gradients"):
        model.get_attributions(query, method="lime")


def test_a_missing_package_says_how_to_install_it(model, query, monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name="captum")

    monkeypatch.setattr("scvi_sctab._optional.import_module", absent)
    with pytest.raises(
        ImportError, match=r"needs 'captum.attr': `pip install 'scvi-sctab\[interp"
    ):
        model.get_attributions(query)


def test_a_package_that_lacks_something_itself_is_not_called_missing(monkeypatch):
    def broken(name):
        raise ModuleNotFoundError("No module named 'inner'", name="inner")

    monkeypatch.setattr("scvi_sctab._optional.import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="inner"):
        import_optional("captum.attr", "interpret", "get_attributions()")


def test_deletion_is_what_becomes_of_the_label_without_the_genes(model, query):
    cells = np.arange(0, 300, 10)
    x = expression(model, query[cells])
    scores = np.random.default_rng(0).normal(size=x.shape)
    table = model.deletion_test({"a": sparse.csr_matrix(scores)}, query, cells, [3, 7])
    assert table["ranking"].tolist() == ["a", "a", "random", "random"]
    assert table["n_genes"].tolist() == [3, 7, 3, 7]
    rows = np.arange(len(cells))

    def probabilities(x):
        return torch.as_tensor(centred_logits(model, x)).softmax(dim=1).numpy()

    before = probabilities(x)
    label = before.argmax(axis=1)
    for number, row in table[table["ranking"] == "a"].set_index("n_genes").iterrows():
        deleted = x.copy()
        for i, cell in enumerate(deleted):
            expressed = np.flatnonzero(cell)
            cell[expressed[np.argsort(-scores[i, expressed])[:number]]] = 0
        after = probabilities(deleted)
        drop = before[rows, label] - after[rows, label]
        assert row["drop"] == pytest.approx(drop.mean(), abs=1e-4)
        assert row["drop_sd"] == pytest.approx(drop.std(), abs=1e-4)
        assert row["changed"] == pytest.approx((after.argmax(axis=1) != label).mean())


def test_genes_that_speak_for_a_label_matter_more_than_random_ones(model, query):
    cells = np.arange(0, query.n_obs, 5)
    markers = model.get_markers(query, indices=cells, n_genes=len(model.gene_names))
    attention = model.get_attention(query, cells)
    rankings = {"markers": markers, "attention": attention}
    table = model.deletion_test(rankings, query, cells, [10], batch_size=32)
    drop = table.set_index("ranking")["drop"]
    assert drop["markers"] > 2 * drop["random"] > 0
    first = model.deletion_test(rankings, query, cells, [10])
    pd.testing.assert_frame_equal(first.iloc[:2], table.iloc[:2], atol=1e-4)


def test_deleting_all_genes_of_every_cell_leaves_no_ranking_behind(model, query):
    everything = [len(model.gene_names)]
    scores = model.get_attention(query, np.arange(20))
    drop = model.deletion_test({"a": scores}, query, np.arange(20), everything)["drop"]
    assert drop[0] == pytest.approx(drop[1])


def test_scores_that_do_not_fit_are_refused(model, query):
    with pytest.raises(ValueError, match=r"scores of 'a' are \(2, 3\), not \(5, 300\)"):
        model.deletion_test({"a": sparse.csr_matrix((2, 3))}, query, np.arange(5))
    markers = model.get_markers(query)
    with pytest.raises(ValueError, match=r"no markers of \['B'\]"):
        model.deletion_test({"a": markers[markers["group"] != "B"]}, query)


@pytest.mark.filterwarnings("ignore:All cells are in one group")  # hardly trained
def test_markers_without_a_linear_path_are_those_of_the_gradient(reference):
    pytest.importorskip("captum")
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    for encoder in ("tabnet", "mlp"):
        model = SCTAB(reference, encoder=encoder, linear_skip=False)
        model.train(max_epochs=4, enable_progress_bar=False, accelerator="cpu")
        cells = np.arange(0, reference.n_obs, 20)
        markers = model.get_markers(indices=cells, n_genes=len(model.gene_names))
        scores = model.get_attributions(indices=cells, method="input_x_gradient").toarray()
        predicted = model.predict(indices=cells)
        for label, found in markers.groupby("group"):
            expected = scores[predicted == label].mean(axis=0)
            found = found.set_index("gene").loc[model.gene_names, "contribution"]
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)
        assert markers["attention"].notna().all() == (encoder == "tabnet")
