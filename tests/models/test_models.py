"""Ready-made models: listed without heavy imports, loaded by name, with cards of their own run."""

import os
import subprocess
import sys
from importlib.resources import files

import numpy as np
import pytest

from scvi_sctab import SCTABEnsemble, datasets, models
from scvi_sctab.models import _registry
from scvi_sctab.ontology import CellOntology

FOLDER = files("scvi_sctab.models")
BUNDLED = ["pancreas", "pbmc"]


@pytest.fixture(autouse=True)
def no_folders(monkeypatch, tmp_path_factory):
    monkeypatch.delenv(models.MODELS_VARIABLE, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path_factory.getbasetemp() / "no such cache"))


@pytest.fixture
def cells_of_kang(query):
    return query[:40].copy()


@pytest.fixture
def own(tmp_path, model):
    """A folder of the user with a model, which was trained on some cells of Kang et al."""
    model.save(tmp_path / "mine")
    return tmp_path


def test_the_bundled_models_are_listed_by_their_cards():
    found = {record.name: record for record in models.list()}
    assert sorted(found) == BUNDLED
    assert all(record.bundled for record in found.values())
    assert found["pbmc"].n_types == 10
    assert found["pancreas"].n_genes == 964
    assert found["pancreas"].species == "Homo sapiens"


def test_listing_imports_neither_torch_nor_numpy():
    code = (
        "import sys\n"
        "from scvi_sctab import models\n"
        "print([record.name for record in models.list()])\n"
        "models.render_card(models.show('pbmc'))\n"
        "print(sorted({'torch', 'numpy', 'scvi', 'pandas', 'anndata'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(BUNDLED), "[]"]


def test_folders_of_the_user_join_the_list_and_do_not_replace_bundled_models(
    own, tmp_path_factory, monkeypatch, model
):
    other = tmp_path_factory.mktemp("other")
    model.save(other / "pbmc")
    model.save(other / "yours")
    (other / "no model").mkdir()
    paths = [own, "", other, other / "yours", other / "not there"]
    monkeypatch.setenv(models.MODELS_VARIABLE, os.pathsep.join(map(str, paths)))
    assert [record.name for record in models.list()] == [*BUNDLED, "mine", "yours"]
    assert models.path("mine") == own / "mine"
    assert models.path("pbmc") == _registry._BUNDLED / "pbmc"
    assert models.path(str(other / "pbmc")) == other / "pbmc"
    assert models.load("mine", accelerator="cpu").digest == model.digest


def test_an_unknown_model_is_refused_with_those_that_there_are():
    with pytest.raises(KeyError, match=r"\['pancreas', 'pbmc'\].*Did you mean 'pbmc'"):
        models.load("pbcm")


def test_a_model_gets_a_card_of_its_own_and_a_damaged_one_is_named(own, monkeypatch, model):
    monkeypatch.setenv(models.MODELS_VARIABLE, str(own))
    with pytest.raises(FileNotFoundError, match="write_card"):
        models.show("mine")
    models.write_card(model, own / "mine", {"title": "My tissue", "n_cells": 7})
    card = models.show("mine")
    assert [row["label"] for row in card["types"]] == model.labels.tolist()
    assert card["digest"] == model.digest
    assert models.list()[-1].title == "My tissue"
    assert "My tissue" in (own / "mine" / "card.md").read_text()
    (own / "mine" / "card.json").write_text("{")
    with pytest.raises(ValueError, match=r"card\.json is damaged"):
        models.list()
    with pytest.raises(FileNotFoundError, match="model.save"):
        models.write_card(model, own / "nowhere", {})


@pytest.mark.parametrize("name", BUNDLED)
def test_a_card_is_of_the_model_beside_it(name):
    card, model = models.show(name), models.load(name, accelerator="cpu")
    assert card["digest"] == model.digest
    assert card["n_genes"] == len(model.gene_names)
    predictable = [label for label in model.labels if label not in model.coarse_labels]
    assert [row["label"] for row in card["types"]] == predictable
    ontology = CellOntology.load()
    assert [ontology.name(row["term_id"]) for row in card["types"]] == predictable
    assert (FOLDER / name / "card.md").read_text(encoding="utf-8") == models.render_card(card)


@pytest.mark.parametrize("name", BUNDLED)
def test_a_card_has_scores_licences_and_limits(name):
    card = models.show(name)
    assert all(row["licence"].startswith("MIT") for row in card["training_data"])
    assert sum(row["cells"] for row in card["training_data"]) == card["n_cells"]
    assert card["intended_use"]
    assert card["not_for"]
    held_out = card["held_out"]
    assert {row["split"] for row in held_out["splits"]} == {
        "donors, in turn",
        *(f"study {row['study']}" for row in card["training_data"]),
    }
    assert {row["type"] for row in held_out["unseen"]} == {row["label"] for row in card["types"]}
    shares = [row["kept"] for row in held_out["thresholds"]]
    assert shares == sorted(shares, reverse=True)


def test_models_are_small_and_without_pickles():
    weights = [path for name in BUNDLED for path in (FOLDER / name).iterdir()]
    assert {path.name for path in weights} == {"model.safetensors", "card.json", "card.md"}
    assert sum(path.stat().st_size for path in weights) <= 8e6


def test_cells_are_annotated_by_name_of_the_model():
    cells = datasets.pancreas_panc8()[:100].copy()
    model = models.load("pancreas", accelerator="cpu")
    found = model.annotate(cells)
    terms = found["term_id"].astype(str)
    ontology = CellOntology.load()
    truth = cells.obs["cell_type_ontology_term_id"].astype(str)
    right = [
        t == own or own in ontology.descendants(t) for own, t in zip(truth, terms, strict=True)
    ]
    # Cells that it was trained on: that the right model with its ontology is loaded.
    assert np.mean(right) > 0.9


def test_a_card_without_facts_is_a_page_of_its_types():
    page = models.render_card({"name": "a", "types": [{"label": "B", "term_id": "CL:0000236"}]})
    assert "| B | CL:0000236 |" in page
    assert "Held-out" not in page


def test_an_ensemble_is_a_model_as_well(model, cells_of_kang, tmp_path, monkeypatch):
    SCTABEnsemble.from_members([model, model]).save(tmp_path / "several")
    monkeypatch.setenv(models.MODELS_VARIABLE, str(tmp_path))
    assert [record.name for record in models.list()] == [*BUNDLED, "several"]
    loaded = models.load("several", accelerator="cpu")
    assert loaded.predict(cells_of_kang).tolist() == model.predict(cells_of_kang).tolist()
    monkeypatch.setenv(models.MODELS_VARIABLE, str(tmp_path / "several"))
    assert [record.name for record in models.list()] == [*BUNDLED, "several"]


def test_a_card_may_have_few_facts_and_is_whole_or_as_before(own, model):
    folder = own / "mine"
    models.write_card(model, folder, {"title": "One", "training_data": [{"study": "a"}]})
    assert "| a |" in (folder / "card.md").read_text()
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(KeyError, match="splits"):
        models.write_card(model, folder, {"title": "Two", "held_out": {"types": {}, "x": 1}})
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
