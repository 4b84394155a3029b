"""Models of CellTypist are imported exactly, and their pickles execute nothing.

The models and CellTypist's own results are made by ``celltypist/make.py``.
"""

import builtins
import copyreg
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from scvi_sctab import SCTAB, SCTABEnsemble, datasets
from scvi_sctab.base import _plain_pickle

FOLDER = Path(__file__).parent / "celltypist"
LOW = {"min_gene_overlap": 0.1}
pytestmark = pytest.mark.filterwarnings("ignore:The query has only:UserWarning")


@pytest.fixture(scope="module")
def cells():
    return datasets.pbmc3k()[::40].copy()


@pytest.fixture(scope="module")
def expected():
    return np.load(FOLDER / "expected.npz")


def compare(model, cells, expected, name):
    found = model.predict(cells, soft=True, **LOW)[expected[f"{name}_labels"]]
    assert (found.index == expected["cells"]).all()
    assert_allclose(found, expected[f"{name}_probabilities"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["logistic", "sgd", "binary"])
def test_probabilities_are_those_of_celltypist(name, cells, expected):
    model = SCTAB.from_celltypist(FOLDER / f"{name}.pkl")
    compare(model, cells, expected, name)


def test_labels_are_those_of_the_highest_probability(cells, expected):
    model = SCTAB.from_celltypist(FOLDER / "logistic.pkl")
    best = expected["logistic_probabilities"].argmax(axis=1)
    assert (model.predict(cells, **LOW) == expected["logistic_labels"][best]).all()


def test_dense_cells_in_any_order_of_genes_get_the_same(cells, expected):
    shuffled = cells[:, np.random.default_rng(0).permutation(cells.n_vars)].copy()
    shuffled.X = shuffled.X.toarray()
    compare(SCTAB.from_celltypist(FOLDER / "logistic.pkl"), shuffled, expected, "logistic")


def test_a_cell_is_normalised_by_all_its_counts(cells):
    model = SCTAB.from_celltypist(FOLDER / "logistic.pkl")
    few = cells[:, cells.var_names.isin(model.gene_names)].copy()
    whole, cut = model.predict(cells, soft=True, **LOW), model.predict(few, soft=True, **LOW)
    assert np.abs(whole.to_numpy() - cut.to_numpy()).max() > 0.1


def test_it_is_saved_and_loaded_without_a_pickle(cells, expected, tmp_path):
    SCTAB.from_celltypist(FOLDER / "logistic.pkl").save(tmp_path / "model")
    (tmp_path / "model" / "model.pt").unlink()
    compare(SCTAB.load(tmp_path / "model"), cells, expected, "logistic")


def test_after_calibration_there_are_sets_novelty_and_terms():
    model = SCTAB.from_celltypist(FOLDER / "logistic.pkl")
    kang = datasets.pbmc_kang18()
    annotated = model.annotate(kang[:50].copy(), **LOW)
    assert "prediction_set" not in annotated
    half = np.arange(kang.n_obs) % 2 == 0
    model.calibrate(kang[half].copy(), labels_key="cell_type")
    model.set_ontology()
    rest = kang[~half].copy()
    sets = model.get_prediction_sets(rest, error_rate=0.1)
    truth = sets.columns.get_indexer(rest.obs["cell_type"])
    # The cells that it was trained on: the rate holds for cells exchangeable with the others, and
    # sets may only be wider, by chance of the two halves.
    assert 0.87 < sets.to_numpy()[np.arange(len(sets)), truth].mean() < 0.96
    assert_allclose(model.predict(rest, soft=True).sum(axis=1), 1, atol=1e-5)
    annotated = model.annotate(rest)
    assert {"prediction_set", "novel", "term"} <= set(annotated)
    assert (annotated["term_probability"] <= 1).all()


def test_uncalibrated_terms_rest_on_shares(cells):
    model = SCTAB.from_celltypist(FOLDER / "binary.pkl")
    model.set_ontology()
    found = model.annotate(cells)
    assert found["uncertainty"].between(0, 1).all()
    lymphocyte = model.hierarchy.lowest_common_ancestor([[True, True]])
    both = found["term"] == model.hierarchy.names[lymphocyte[0]]
    assert both.any()  # cells with neither or both labels
    assert_allclose(found.loc[both, "term_probability"], 1, atol=1e-6)


def test_it_is_not_trained_nor_adapted(cells):
    model = SCTAB.from_celltypist(FOLDER / "binary.pkl")
    with pytest.raises(ValueError, match="not trained: it predicts"):
        model.train()
    with pytest.raises(ValueError, match="not adapted to a query"):
        SCTAB.load_query_data(cells, model)


RAN = []


class Harmful:
    """Payload: what it was pickled with is called when it is read by `pickle.load`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def record(*arguments):
    RAN.append(arguments)


class Stateful:
    """Payload in the state of an object that is allowed."""

    def __reduce__(self):
        return np.ndarray, ((1,),), Harmful(record, "state")


PAYLOADS = {
    "a command": lambda folder: Harmful(os.system, f"touch {folder / 'ran'}"),
    "eval": lambda folder: Harmful(builtins.eval, f"open({str(folder / 'ran')!r}, 'w')"),
    "eval by copyreg": lambda folder: Harmful(
        copyreg._reconstructor, Harmful, object, Harmful(builtins.eval, "1")
    ),
    "a function of this file": lambda folder: Harmful(record, "called"),
    "getattr": lambda folder: Harmful(getattr, "text", "join"),
    "a state": lambda folder: Stateful(),
    "an array of objects": lambda folder: np.array([Harmful(record, "array")], dtype=object),
    "loading of another file": lambda folder: Harmful(np.load, str(folder / "x.npy"), None, True),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", PAYLOADS)
@pytest.mark.parametrize("place", ["Model", "Scaler_", "description", "alone"])
def test_a_harmful_pickle_is_refused_and_nothing_runs(tmp_path, kind, place, protocol):
    RAN.clear()
    payload = PAYLOADS[kind](tmp_path)
    content = payload if place == "alone" else {"Model": 1, "Scaler_": 2, place: payload}
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(ValueError, match="refused: it asks for .*Nothing of it was executed"):
        SCTAB.from_celltypist(path)
    assert not RAN
    assert not (tmp_path / "ran").exists()


def test_the_payload_would_run_otherwise():
    RAN.clear()
    pickle.loads(pickle.dumps(PAYLOADS["a function of this file"](None)))
    assert RAN == [("called",)]


def write(path, content):
    path.write_bytes(pickle.dumps(content))
    return path


def test_what_is_no_model_of_celltypist_is_refused(tmp_path):
    path = tmp_path / "model.pkl"
    with pytest.raises(FileNotFoundError):
        SCTAB.from_celltypist(path)
    with pytest.raises(ValueError, match="not a model of CellTypist"):
        SCTAB.from_celltypist(write(path, {"weights": np.zeros(3)}))
    with pytest.raises(ValueError, match="not a model of CellTypist"):
        SCTAB.from_celltypist(write(path, [1, 2]))
    whole = (FOLDER / "logistic.pkl").read_bytes()
    for content in (b"", b"not a pickle", whole[: len(whole) // 2], whole[100:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged, or no pickle of a model"):
            SCTAB.from_celltypist(path)


@pytest.mark.parametrize("array", [np.zeros(2, dtype=[("a", "f8")]), np.zeros(2, "M8[s]")])
def test_arrays_are_numbers_or_names(tmp_path, array):
    with pytest.raises(ValueError, match="damaged, or no pickle.*type"):
        SCTAB.from_celltypist(write(tmp_path / "model.pkl", {"Model": array}))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_any_protocol_and_order_are_read_as_they_are(tmp_path, protocol):
    from scvi_sctab.base._plain_pickle import read_plain_pickle

    arrays = {
        "matrix": np.arange(6.0).reshape(2, 3),
        "columns first": np.asfortranarray(np.arange(6, dtype="i4").reshape(2, 3)),
        "other byte order": np.arange(3, dtype=">f4"),
        "names": np.array(["a", "bc"]),
        "objects": np.array(["a", None, 1], dtype=object),
        "scalar": np.float32(0.5),
    }
    path = tmp_path / "arrays.pkl"
    path.write_bytes(pickle.dumps(arrays, protocol))
    found = read_plain_pickle(path, {})
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].shape == array.shape, name
        assert (found[name] == array).all(), name


def test_a_small_file_cannot_stand_for_a_large_object(tmp_path):
    shared = []
    for _ in range(60):
        shared = [shared, shared]
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"Model": shared, "Scaler_": 1}))
    assert path.stat().st_size < 2000
    with pytest.raises(ValueError, match="too many parts"):
        SCTAB.from_celltypist(path)


def test_a_pickle_cannot_change_what_reads_the_next_one(tmp_path):
    """`BUILD` may set attributes of whatever a name stands for."""
    path = tmp_path / "model.pkl"
    path.write_bytes(b"c_codecs\nencode\n(N}S'__doc__'\nS'changed'\nstb.")
    with pytest.raises(ValueError, match="damaged, or no pickle of a model"):
        SCTAB.from_celltypist(path)
    assert "changed" not in str(_plain_pickle._NUMPY["_codecs", "encode"].__doc__)
    SCTAB.from_celltypist(FOLDER / "logistic.pkl")


def test_it_joins_no_ensemble_and_is_not_explained_as_ours_are(cells):
    model = SCTAB.from_celltypist(FOLDER / "logistic.pkl")
    with pytest.raises(ValueError, match="Models of CellTypist are not joined"):
        SCTABEnsemble.from_members([model, model])
    with pytest.raises(ValueError, match="explained by their coefficients"):
        model.deletion_test(cells, min_gene_overlap=0.1)


def test_its_encoder_is_not_for_models_of_ones_own(reference):
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    with pytest.raises(ValueError, match=r"SCTAB\.from_celltypist\(path\)"):
        SCTAB(reference, encoder="celltypist")
