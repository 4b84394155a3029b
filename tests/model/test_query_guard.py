"""Queries that adaptation would harm are not adapted to, and the model says so."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from scipy.special import logsumexp

from scvi_sctab import SCTAB
from scvi_sctab._config import GUARD
from scvi_sctab.model._query_guard import refuse_query, resembling_cells
from scvi_sctab.model._query_training import read_query_cells
from scvi_sctab.model._records import QueryRecord, ReferenceStatistics
from scvi_sctab.train import QueryCells

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
TYPES = ["B", "T", "NK", "monocyte"]
N_GENES = 80


def draw_cells(counts, batch, seed, capture=None):
    """Cells whose type has ten genes of its own; ``counts`` by type, ``capture`` by gene."""
    rng = np.random.default_rng(seed)
    base = np.random.default_rng(7).gamma(2.0, 1.0, N_GENES)
    labels = np.repeat(list(counts), list(counts.values()))
    own = {name: np.arange(10) + 10 * k for k, name in enumerate([*TYPES, "platelet"])}
    mean = np.tile(base, (len(labels), 1))
    for row, label in zip(mean, labels, strict=True):
        row[own[label]] *= 2.0
    mean = mean * (1.0 if capture is None else capture)
    obs = pd.DataFrame(
        {"cell_type": labels, "batch": [f"{batch}{k % 2}" for k in range(len(labels))]},
        index=[f"{batch}-{k}" for k in range(len(labels))],
    )
    genes = pd.DataFrame(index=[f"gene{k}" for k in range(N_GENES)])
    return AnnData(rng.poisson(mean).astype(np.float32), obs=obs, var=genes)


def capture_of_elsewhere():
    return np.exp(np.random.default_rng(3).normal(0, 0.5, N_GENES))


@pytest.fixture(scope="module")
def own_reference():
    scvi.settings.seed = 0
    adata = draw_cells(dict.fromkeys(TYPES, 150), "here", 0)
    SCTAB.setup_anndata(adata, labels_key="cell_type", batch_key="batch")
    model = SCTAB(adata, preset="small")
    model.train(max_steps=250, **QUIET)
    return model


def map_and_train(model, query):
    """The query model, the truth, and labels before and after."""
    truth = query.obs["cell_type"].to_numpy(str)
    query = query.copy()
    query.obs = query.obs[["batch"]].copy()
    mapped = SCTAB.load_query_data(query, model)
    before = mapped.predict().astype(str)
    mapped.train(**QUIET)
    return mapped, truth, before, mapped.predict().astype(str)


def test_a_benign_shift_is_adapted_to_and_labels_get_better(own_reference):
    query = draw_cells(dict.fromkeys(TYPES, 150), "there", 1, capture_of_elsewhere())
    mapped, truth, before, after = map_and_train(own_reference, query)
    report = mapped.surgery_report()
    assert not report.not_adapted
    assert "self_training_loss" in mapped.history
    assert (after == truth).mean() >= (before == truth).mean() + 0.01


def test_half_of_the_adapter_is_kept(own_reference, monkeypatch):
    query = draw_cells(dict.fromkeys(TYPES, 150), "there", 1, capture_of_elsewhere())
    half = map_and_train(own_reference, query)[0].module.query_paths.paths[-1]
    whole = replace(GUARD, strength=1.0)
    monkeypatch.setattr("scvi_sctab.model._query_training.GUARD", whole)
    full = map_and_train(own_reference, query)[0].module.query_paths.paths[-1]
    assert float(full.bias.detach().abs().max()) > 0.01
    for one, other in ((half.weight, full.weight), (half.bias, full.bias)):
        torch.testing.assert_close(one, GUARD.strength * other)


def test_a_population_of_an_unknown_type_costs_no_accuracy(own_reference):
    counts = dict.fromkeys(TYPES, 120) | {"platelet": 120}
    query = draw_cells(counts, "there", 2, capture_of_elsewhere())
    _, truth, before, after = map_and_train(own_reference, query)
    known = np.isin(truth, TYPES)
    assert (after == truth)[known].mean() >= (before == truth)[known].mean() - 0.003


def test_a_narrow_query_is_not_adapted_to_and_says_so(own_reference, tmp_path):
    query = draw_cells({"T": 200}, "there", 3)
    with pytest.warns(UserWarning, match="Not adapted: it holds few of the reference's types"):
        mapped, _, _, _ = map_and_train(own_reference, query)
    pd.testing.assert_frame_equal(
        mapped.predict(soft=True), own_reference.predict(query, soft=True), check_exact=True
    )
    mapped.save(tmp_path / "mapped", save_anndata=True)
    for model in (mapped, SCTAB.load(tmp_path / "mapped")):
        report = model.surgery_report()
        assert report.seems_sorted
        assert "few of the reference's types" in report.not_adapted
        for text in (str(report), report._repr_html_()):
            assert "not adapted" in text
            assert "Map it together with other samples" in text


def test_cells_resemble_a_type_unless_their_novelty_p_value_is_low(own_reference):
    query = draw_cells(dict.fromkeys(TYPES, 50) | {"platelet": 50}, "there", 4)
    mapped = SCTAB.load_query_data(query, own_reference)
    positions = np.arange(0, query.n_obs, 2)
    cells = read_query_cells(mapped, positions)
    found = resembling_cells(mapped, positions, cells, is_calibrated=True)
    p_values = mapped.annotate(mapped.adata[positions].copy())["novelty_p_value"].to_numpy()
    np.testing.assert_array_equal(found, p_values > GUARD.novelty)
    assert 0 < found.sum() < len(found)
    by_energy = resembling_cells(mapped, positions, cells, is_calibrated=False)
    floor = own_reference.reference_statistics.energy_floor
    np.testing.assert_array_equal(by_energy, logsumexp(cells.linear, axis=1) >= floor)


STATISTICS = ReferenceStatistics(energy_floor=-10.0, diversity=4.0)


def make_query(codes, probability=0.9):
    """Cells predicted as ``codes`` with a probability."""
    probabilities = np.full((len(codes), 4), (1 - probability) / 3)
    probabilities[np.arange(len(codes)), codes] = probability
    logits = np.log(probabilities)
    return QueryCells(logits, logits, logits, np.full(len(codes), 4)), probabilities


@pytest.mark.parametrize(
    ("codes", "probability", "share", "expected"),
    [
        pytest.param(np.arange(60) % 4, 0.9, 1.0, None, id="fine"),
        pytest.param(np.arange(60) % 2, 0.9, 1.0, "few of the reference's types", id="narrow"),
        pytest.param(np.arange(60) % 3, 0.9, 1.0, None, id="three of four types"),
        pytest.param(np.arange(60) % 4, 0.9, 0.3, "too unlike the reference", id="unlike"),
        pytest.param(np.arange(60) % 4, 0.9, 0.4, None, id="many novel cells"),
        pytest.param(np.arange(60) % 4, 0.6, 1.0, "mean probability of 60%", id="doubtful"),
    ],
)
def test_queries_are_refused_for_a_reason(codes, probability, share, expected):
    cells, probabilities = make_query(codes, probability)
    resembling = np.arange(60) < share * 60
    refusal = refuse_query(cells, resembling, probabilities, STATISTICS)
    if expected is None:
        assert refusal is None
    else:
        assert expected in refusal.reason
        assert refusal.is_narrow == ("types, as" in refusal.reason)


def test_diversity_is_not_compared_with_an_unknown_one():
    cells, probabilities = make_query(np.zeros(60, int))
    assert refuse_query(cells, np.ones(60, bool), probabilities, None) is None


def test_probabilities_that_are_not_calibrated_do_not_count():
    cells, _ = make_query(np.arange(60) % 4, probability=0.5)
    assert refuse_query(cells, np.ones(60, bool), None, STATISTICS) is None


def test_records_of_early_versions_have_no_reason(own_reference):
    query = draw_cells(dict.fromkeys(TYPES, 60), "there", 1)
    mapped, *_ = map_and_train(own_reference, query)
    saved = mapped.query_record.to_dict()
    del saved["training"]["not_adapted"]
    assert QueryRecord.from_dict(saved).training.not_adapted == ""
