"""Genes of a panel to design."""

import re
import warnings

import numpy as np
import pytest
from scipy import sparse

from scvi_sctab.explanation import choose_genes, label_moments


@pytest.fixture
def expression():
    """Three labels; genes 0 and 1 mark label 0, gene 2 tells 1 from 2, gene 3 varies freely."""
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2], 200)
    x = rng.normal(0.0, 0.5, (600, 6))
    x[codes == 0, :2] += 3.0
    x[codes == 1, 2] += 1.0
    x[:, 3] += rng.normal(0.0, 10.0, 600)
    return x, codes


def test_moments_are_those_of_each_label(expression):
    x, codes = expression
    mean, variance = label_moments(sparse.csr_matrix(x), codes, 4)
    for label in range(3):
        np.testing.assert_allclose(mean[label], x[codes == label].mean(axis=0))
        np.testing.assert_allclose(variance[label], x[codes == label].var(axis=0))
    assert not mean[3].any()


def test_a_gene_of_the_hard_pair_comes_before_a_second_marker_of_the_easy_one(expression):
    x, codes = expression
    chosen = choose_genes(*label_moments(sparse.csr_matrix(x), codes, 3), 4, 1.0)
    assert set(chosen.genes[:1]) <= {0, 1}
    assert chosen.genes[1] == 2
    assert chosen.pairs[1].tolist() == [1, 2]
    assert len(set(chosen.genes)) == 4
    assert 3 not in chosen.genes[:3]


def test_each_gene_lowers_the_sum_of_bounds_most(expression):
    """By the definition, over all sets that one more gene makes."""
    x, codes = expression
    mean, variance = label_moments(sparse.csr_matrix(x), codes, 3)

    def bound(genes):
        total = 0.0
        for a, b in [(0, 1), (0, 2), (1, 2)]:
            square = (mean[a] - mean[b]) ** 2 / (variance[a] + variance[b] + 0.1) / 4
            total += np.exp(-0.3 * square[genes].sum())
        return total

    chosen = choose_genes(mean, variance, 5, 0.3).genes.tolist()
    for i, gene in enumerate(chosen):
        free = [other for other in range(6) if other not in chosen[:i]]
        assert gene == min(free, key=lambda other: bound([*chosen[:i], other]))


def test_a_panel_is_a_table_that_repeats_and_contains_smaller_ones(model):
    panel = model.select_panel(40)
    assert list(panel.columns) == ["gene", "rank", "label", "against"]
    assert panel["rank"].tolist() == list(range(1, 41))
    assert panel["gene"].is_unique
    assert set(panel["gene"]) <= set(model.gene_names)
    assert set(panel["label"]) | set(panel["against"]) <= set(model.labels)
    assert panel.equals(model.select_panel(40))
    assert panel.head(12).equals(model.select_panel(12))
    means = model.adata[model.train_indices].to_df()
    means = np.log1p(means.div(means.sum(axis=1), axis=0) * 1e4)
    means = means.groupby(model.adata.obs["cell_type"].astype(str)[means.index]).mean()
    for gene, _, label, against in panel.to_numpy():
        assert means.loc[label, gene] > means.loc[against, gene]


def test_it_is_better_than_random_genes_of_the_same_number(model):
    rng = np.random.default_rng(0)
    drawn = [rng.choice(model.gene_names, 20, replace=False) for _ in range(3)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Labels that the panel")
        chosen, *others = (
            model.restrict(genes).panel_record.macro_f1
            for genes in (model.select_panel(20)["gene"], *drawn)
        )
    assert chosen > max(others)


def test_labels_candidates_and_exclusions_are_respected(model):
    t_cells = ["CD4 Naive T", "CD8 T"]
    panel = model.select_panel(15, t_cells)
    named = set(panel["label"]) | set(panel["against"])
    assert named <= {*t_cells, "other labels"}
    assert set(t_cells) <= named
    candidates = model.gene_names[:30]
    among = model.select_panel(15, candidates=candidates, exclude=candidates[:10])
    assert set(among["gene"]) <= set(candidates[10:])


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"n_genes": 9}, ValueError, "n_genes=9 is not between 10 and"),
        ({"n_genes": 301}, ValueError, "the number of candidates, 300"),
        ({"n_genes": 10, "labels": ["CD8"]}, ValueError, "'CD8' (near 'CD8 T')"),
        ({"n_genes": 10, "labels": []}, ValueError, "name labels of the model"),
        ({"n_genes": 10, "exclude": ["nothing"]}, ValueError, "exclude: the model knows none"),
        ({"n_genes": 10, "candidates": "CD8A"}, TypeError, "candidates= takes a list"),
    ],
)
def test_arguments_that_choose_nothing_are_refused(model, arguments, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        model.select_panel(**arguments)


def test_a_model_without_its_cells_names_the_cure(model, tmp_path):
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"SCTAB.load\(path, adata\)"):
        type(model).load(tmp_path / "model").select_panel(10)
