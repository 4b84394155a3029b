import numpy as np
import pytest
from scipy import sparse
from scipy.stats import norm

from scvi_sctab.annotation import (
    Populations,
    Profiles,
    cluster_cells,
    compare_populations,
    embed_cells,
    gene_excess,
    possible_causes,
)

N_GENES, N_LABELS = 60, 4


def labels_with_own_genes():
    """Each label has ten genes of its own; twenty genes are of none."""
    mean = np.full((N_LABELS, N_GENES), 0.1)
    for label in range(N_LABELS):
        mean[label, 10 * label : 10 * label + 10] = 2.0
    return Profiles(mean, np.full(mean.shape, 0.5), np.full(N_LABELS, 100))


def populations(mean, nearest, novelty=None):
    n = len(mean)
    probabilities = np.full((n, N_LABELS), 0.01)
    probabilities[np.arange(n), nearest] = 0.97
    profiles = Profiles(np.asarray(mean), np.full((n, N_GENES), 0.5), np.full(n, 50))
    return Populations(
        np.zeros(0, int), profiles, probabilities, np.ones(n) if novelty is None else novelty
    )


def with_new_type(labels):
    new = labels.mean[0].copy()
    new[:10], new[40:50] = 0.1, 2.0
    return populations(np.vstack([labels.mean, labels.mean[:2], new]), [0, 1, 2, 3, 0, 1, 0])


def test_profiles_are_the_moments_of_each_group():
    rng = np.random.default_rng(0)
    cells = sparse.random(30, 8, 0.4, format="csr", random_state=rng)
    codes = rng.integers(-1, 3, 30)
    found = Profiles.fit([cells[:11], cells[11:]], codes, 3)
    dense = cells.toarray()
    for group in range(3):
        np.testing.assert_allclose(found.mean[group], dense[codes == group].mean(axis=0))
        np.testing.assert_allclose(found.sd[group], dense[codes == group].std(axis=0), atol=1e-12)
        assert found.n_cells[group] == (codes == group).sum()


def test_profiles_survive_saving_in_half_precision():
    labels = labels_with_own_genes()
    again = Profiles.from_dict(labels.to_dict())
    np.testing.assert_allclose(again.mean, labels.mean, rtol=1e-3)
    np.testing.assert_array_equal(again.n_cells, labels.n_cells)


def test_a_population_with_genes_that_its_label_lacks_is_found():
    labels = labels_with_own_genes()
    frame = compare_populations(with_new_type(labels), labels)
    assert frame["score"].argmax() == 6
    assert frame["p_value"][6] < 0.01
    assert (frame["q_value"][:6] > 0.5).all()


def test_cells_far_from_all_labels_are_found_without_genes_of_their_own():
    labels = labels_with_own_genes()
    known = populations(np.vstack([labels.mean] * 2), [0, 1, 2, 3] * 2, np.r_[np.ones(7), 6.0])
    frame = compare_populations(known, labels)
    assert frame["q_value"][7] < 0.01
    assert (frame["q_value"][:7] > 0.5).all()


def test_genes_that_another_laboratory_captures_more_are_not_new():
    labels = labels_with_own_genes()
    capture = np.exp(np.random.default_rng(0).normal(0, 0.7, N_GENES))
    shifted = np.log1p(np.expm1(labels.mean) * capture)
    excess = gene_excess(populations(shifted, [0, 1, 2, 3]), labels)
    np.testing.assert_allclose(excess, 0, atol=0.2)
    uncorrected = (shifted - labels.mean) / 0.6
    assert np.abs(uncorrected).max() > 1


def test_a_shift_of_all_populations_is_not_novelty():
    labels = labels_with_own_genes()
    far = populations(np.vstack([labels.mean] * 2), [0, 1, 2, 3] * 2, np.full(8, 5.0))
    assert (compare_populations(far, labels)["p_value"] == 1).all()


def test_p_values_are_those_of_two_independent_normal_signs():
    labels = labels_with_own_genes()
    found = populations(np.vstack([labels.mean] * 2), [0, 1, 2, 3] * 2, np.r_[np.ones(7), 1.9])
    frame = compare_populations(found, labels)
    score = frame["score"][7]
    drawn = np.maximum(np.random.default_rng(0).normal(size=(400_000, 2)), 0).sum(axis=1)
    assert frame["p_value"][7] == pytest.approx((drawn > score).mean(), abs=0.005)
    assert score == pytest.approx(1.0, abs=1e-6)  # .9 nats above the median
    assert norm.sf(score) < frame["p_value"][7]


def test_a_population_of_a_label_without_a_profile_is_not_tested():
    labels = labels_with_own_genes()
    lacking = Profiles(
        labels.mean * [[1], [1], [1], [0]],
        labels.sd * [[1], [1], [1], [0]],
        np.array([9, 9, 9, 0]),
    )
    found = populations(np.vstack([labels.mean] * 2), [0, 1, 2, 3] * 2)
    frame = compare_populations(found, lacking)
    assert frame["score"].isna().tolist() == [False, False, False, True] * 2
    assert (frame["q_value"].dropna() == 1).all()
    assert frame["nearest"].tolist() == [0, 1, 2, 3] * 2


def test_a_population_of_a_label_that_a_query_added_is_not_tested():
    labels = labels_with_own_genes()
    known = Profiles(labels.mean[:3], labels.sd[:3], labels.n_cells[:3])
    found = populations(np.vstack([labels.mean] * 2), [0, 1, 2, 3] * 2)
    frame = compare_populations(found, known)
    assert frame["score"].isna().tolist() == [False, False, False, True] * 2
    assert (frame["q_value"].dropna() == 1).all()


def test_four_populations_have_no_p_value():
    labels = labels_with_own_genes()
    frame = compare_populations(populations(labels.mean, [0, 1, 2, 3]), labels)
    assert frame["p_value"].isna().all()
    assert frame["q_value"].isna().all()


def test_doublets_and_cells_of_few_molecules_are_named():
    labels = labels_with_own_genes()
    doublet = np.log1p((np.expm1(labels.mean[0]) + np.expm1(labels.mean[1])) / 2)
    found = populations(np.vstack([labels.mean, doublet]), [0, 1, 2, 3, 0])
    names = np.array(["A", "B", "C", "D"])
    causes = possible_causes(found, labels, names, np.array([900, 1000, 1000, 300, 1900]))
    assert causes[:3] == ["", "", ""]
    assert causes[3] == "low quality"
    assert causes[4] in ("doublets of A and B", "doublets of B and A")


def test_a_mixture_without_more_molecules_is_not_called_doublets():
    labels = labels_with_own_genes()
    mixed = np.log1p((np.expm1(labels.mean[0]) + np.expm1(labels.mean[1])) / 2)
    found = populations(np.vstack([labels.mean, mixed]), [0, 1, 2, 3, 0])
    causes = possible_causes(found, labels, np.array(["A", "B", "C", "D"]), np.full(5, 1000))
    assert causes == [""] * 5


def test_clusters_are_those_that_the_cells_were_drawn_from():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [120, 80, 40])
    codes = cluster_cells(rng.normal(size=(240, 5)) + 12 * np.eye(3, 5)[truth])
    # The resolution is fine: a group may be cut, but no cluster joins two of them.
    for code in np.unique(codes):
        assert len(np.unique(truth[codes == code])) == 1
    assert len(np.unique(codes)) < 40
    assert (np.diff(np.bincount(codes)) <= 0).all()


def test_clusters_are_the_same_each_time():
    cells = np.random.default_rng(0).normal(size=(300, 6))
    first = cluster_cells(cells)
    assert len(np.unique(first)) > 3
    for _ in range(5):
        np.testing.assert_array_equal(cluster_cells(cells), first)


def test_clusters_of_the_same_size_are_in_the_order_of_their_cells():
    rng = np.random.default_rng(0)
    groups = np.repeat([2, 0, 1, 3], 8)
    codes = cluster_cells(rng.normal(scale=0.01, size=(32, 4)) + 50 * np.eye(4)[groups])
    first = np.unique(codes, return_index=True)[1]
    sizes = np.bincount(codes)
    assert (np.diff(sizes) <= 0).all()
    assert all(
        a < b for a, b, n, m in zip(first, first[1:], sizes, sizes[1:], strict=False) if n == m
    )


@pytest.mark.parametrize("n_cells", [0, 1, 2, 3, 20])
def test_few_cells_are_clustered(n_cells):
    codes = cluster_cells(np.random.default_rng(0).normal(size=(n_cells, 4)))
    assert codes.shape == (n_cells,)


def test_principal_components_and_latent_space_weigh_the_same():
    rng = np.random.default_rng(0)
    expression = sparse.csr_matrix(rng.poisson(1.0, (80, 50)).astype(np.float32))
    joined = embed_cells(expression, 1000 * rng.normal(size=(80, 6)))
    assert joined.shape == (80, 36)
    assert joined[:, :6].var(axis=0).sum() == pytest.approx(1, rel=1e-5)
    assert joined[:, 6:].var(axis=0).sum() == pytest.approx(1, rel=1e-5)
