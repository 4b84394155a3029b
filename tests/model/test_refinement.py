"""Votes settle what cells are unsure of, and leave rare types alone."""

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist

from scvi_sctab.annotation import (
    AnnotationState,
    nearest_neighbors,
    neighborhoods_of_groups,
    neighborhoods_of_neighbors,
    vote,
)
from scvi_sctab.data import CellSelection
from scvi_sctab.model._annotator import CellAnnotator

COLUMNS = [
    "label",
    "probability",
    "raw_label",
    "changed",
    "cluster_frequency",
    "cluster_entropy",
]


def draw(n_cells=40, n_labels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(n_labels, 0.5), n_cells), rng.integers(4, size=n_cells)


def test_the_vote_is_that_of_a_naive_loop():
    own, codes = draw()
    base, w = own.mean(axis=0), 0.3
    refined = vote(own, neighborhoods_of_groups(own, codes), base, w)
    for i, code in enumerate(codes):
        said = [base if j == i else own[j] for j in np.flatnonzero(codes == code)]
        expected = own[i] * (np.mean(said, axis=0) / base) ** w
        np.testing.assert_allclose(refined[i], expected / expected.sum(), rtol=1e-10)


def test_groups_and_neighbours_that_are_the_same_cells_say_the_same():
    own, codes = draw()
    width = np.bincount(codes).max()
    members = [np.flatnonzero(codes == code) for code in codes]
    neighbors = np.array([np.pad(m, (0, width - len(m)), constant_values=-1) for m in members])
    for got, expected in zip(
        neighborhoods_of_neighbors(own, neighbors),
        neighborhoods_of_groups(own, codes),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected)


def test_the_frequency_is_the_share_of_own_labels():
    own = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]])
    around = neighborhoods_of_groups(own, np.array([0, 0, 0, 1]))
    np.testing.assert_allclose(around.frequency, [[2 / 3, 1 / 3]] * 3 + [[0, 1]])
    assert around.size.ravel().tolist() == [3, 3, 3, 1]


def test_neighbours_are_the_nearest_of_the_same_batch_and_the_cell_itself_comes_first():
    rng = np.random.default_rng(0)
    latent, batches = rng.normal(size=(30, 4)), rng.integers(2, size=30)
    latent[3], batches[3] = latent[5], batches[5]
    distances = cdist(latent, latent) + np.where(batches[:, None] == batches, 0, np.inf)
    np.fill_diagonal(distances, -1)
    found = nearest_neighbors(latent, batches, 5)
    # By their distances: two cells lie in the same place.
    reached = np.take_along_axis(distances, found, axis=1)
    np.testing.assert_allclose(np.sort(reached), np.sort(distances)[:, :5])
    assert all(len(set(row)) == 5 for row in found)
    np.testing.assert_array_equal(found[:, 0], np.arange(30))


def test_a_cell_alone_and_a_group_of_all_cells_keep_their_probabilities():
    own, _ = draw()
    base = own.mean(axis=0)
    alone = vote(own, neighborhoods_of_groups(own, np.arange(len(own))), base)
    np.testing.assert_allclose(alone, own)
    everyone = vote(own, neighborhoods_of_groups(own, np.zeros(len(own), int)), base)
    np.testing.assert_array_equal(everyone.argmax(axis=1), own.argmax(axis=1))


def test_rare_cells_survive_a_cluster_of_others_and_doubtful_ones_are_settled():
    own = np.repeat([[0.98, 0.01, 0.01], [0.01, 0.98, 0.01]], 50, axis=0)
    own[:2] = [0.1, 0.0, 0.9]  # of a type that no cluster is of
    own[2] = [0.45, 0.55, 0.0]  # in doubt
    refined = vote(own, neighborhoods_of_groups(own, np.repeat([0, 1], 50)), own.mean(axis=0))
    assert refined[:3].argmax(axis=1).tolist() == [2, 2, 0]


def test_a_frequent_type_gains_nothing_by_being_frequent():
    own = np.repeat([[0.9, 0.1], [0.4, 0.6]], [90, 10], axis=0)
    mixed = np.arange(100) % 5
    refined = vote(own, neighborhoods_of_groups(own, mixed), own.mean(axis=0), weight=1)
    np.testing.assert_array_equal(refined.argmax(axis=1), own.argmax(axis=1))


def test_clusters_are_named_or_given(model, query):
    table = model.refine(query, "cell_type")
    assert list(table.columns) == COLUMNS
    assert list(table["label"].cat.categories) == list(model.labels)
    np.testing.assert_array_equal(table["raw_label"], model.predict(query))
    np.testing.assert_array_equal(table["changed"], table["label"] != table["raw_label"])
    assert table["cluster_entropy"].between(0, 1).all()
    pd.testing.assert_frame_equal(model.refine(query, query.obs["cell_type"]), table)
    own = table["raw_label"].astype(str)
    share = own.groupby(query.obs["cell_type"], observed=True).value_counts(normalize=True)
    pairs = zip(query.obs["cell_type"], table["label"], strict=True)
    expected = [share.get(pair, 0.0) for pair in pairs]
    np.testing.assert_allclose(table["cluster_frequency"], expected)


def test_neighbours_settle_cells_and_no_weight_leaves_them_alone(model, query):
    table = model.refine(query)
    assert 0 < table["changed"].mean() < 0.1
    soft = model.predict(query, soft=True)
    alone = model.refine(query, weight=0)
    assert not alone["changed"].any()
    np.testing.assert_allclose(alone["probability"], soft.max(axis=1), rtol=1e-5)


def test_cells_vote_on_labels_of_equal_weight_whatever_the_frequencies(model, query, monkeypatch):
    expected = model.refine(query)
    scaling = model.calibration.scaling
    told = {"bias": 3 * np.arange(len(model.labels), dtype=float) + scaling.bias}
    monkeypatch.setattr(model, "calibration_", {**model.calibration_, **told})
    table = model.refine(query)
    pd.testing.assert_series_equal(table["label"], expected["label"])
    pd.testing.assert_series_equal(table["cluster_entropy"], expected["cluster_entropy"])
    assert np.abs(table["probability"] - expected["probability"]).max() > 0.1
    alone = model.refine(query, weight=0)["probability"]
    np.testing.assert_allclose(alone, model.predict(query, soft=True).max(axis=1), rtol=1e-4)


def test_only_the_chosen_cells_vote(model, query):
    cells = np.arange(query.n_obs)[::-2]
    clusters = query.obs["cell_type"].to_numpy()
    expected = model.refine(query[cells].copy(), clusters[cells])
    pd.testing.assert_frame_equal(model.refine(query, clusters, indices=cells), expected)


class Oracle(CellAnnotator):
    """No network: whatever has probabilities and embeds can vote."""

    def __init__(self, adata, probabilities, batch_key=None):
        self.adata = adata
        self.soft = pd.DataFrame(probabilities, index=adata.obs_names)
        self.registry = {"setup_args": {"batch_key": batch_key}}
        self.annotation = AnnotationState(self.soft.columns.astype(str).to_numpy())

    def _require_trained(self):
        pass

    def _select(self, adata, indices, layer, min_gene_overlap):
        positions = np.arange(self.adata.n_obs) if indices is None else np.asarray(indices)
        return CellSelection(self.adata, positions, layer, min_gene_overlap)

    def _class_balanced(self, cells):
        return self.soft.iloc[cells.positions]

    def _latent(self, cells):
        return self.soft.to_numpy()[cells.positions]


def test_batches_do_not_vote_together_unless_asked_to(query):
    query = query[:60].copy()
    query.obs["batch"] = np.repeat(["a", "b"], 30)
    own, _ = draw(60)
    registered, free = Oracle(query, own, "batch"), Oracle(query, own)
    within = registered.refine()
    pd.testing.assert_frame_equal(free.refine(batch_key="batch"), within)
    first = Oracle(query[:30].copy(), own[:30]).refine()
    pd.testing.assert_frame_equal(within.iloc[:30], first)
    across = registered.refine(across_batches=True)
    pd.testing.assert_frame_equal(across, free.refine())
    assert not across["probability"].equals(within["probability"])
    clusters = np.tile(["x", "y"], 30)
    within = registered.refine(clusters=clusters)
    first = Oracle(query[:30].copy(), own[:30]).refine(clusters=clusters[:30])
    pd.testing.assert_frame_equal(within.iloc[:30], first)
    del query.obs["batch"]
    pd.testing.assert_frame_equal(registered.refine(), free.refine())


def test_bad_arguments_are_named(model, query):
    with pytest.raises(KeyError, match=r"clusters='leidn' is not a column"):
        model.refine(query, "leidn")
    with pytest.raises(ValueError, match=r"clusters are \(3,\), not one for each"):
        model.refine(query, [0, 1, 2])
    with pytest.raises(ValueError, match=r"missing values \(NaN\)"):
        model.refine(query, np.full(query.n_obs, np.nan))
    with pytest.raises(KeyError, match=r"batch_key='lane' is not a column"):
        model.refine(query, batch_key="lane")
    with pytest.raises(ValueError, match=r"n_neighbors=0 leaves nobody to vote"):
        model.refine(query, n_neighbors=0)
    with pytest.raises(ValueError, match=r"weight=-1 must be 0"):
        model.refine(query, weight=-1)
