"""The Python blocks of pages of the documentation run as they stand, on few epochs."""

import re
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest

from scvi_sctab import SCTAB, datasets, models
from scvi_sctab.external import SpikeSlabVAE
from scvi_sctab.pretrain import MaskedAutoencoder

DOCS = Path(__file__).parents[1] / "docs"


def blocks_of(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)


@pytest.fixture
def briefly(monkeypatch):
    """Training takes one epoch."""
    screen = {"finetune_epochs": 1}
    for model, arguments in ((SCTAB, {}), (MaskedAutoencoder, {}), (SpikeSlabVAE, screen)):
        train = partialmethod(model.train, max_epochs=1, enable_progress_bar=False, **arguments)
        monkeypatch.setattr(model, "train", train)


@pytest.mark.filterwarnings("ignore:These cells differ")  # another study
@pytest.mark.usefixtures("briefly")
def test_of_statements():
    query = datasets.pbmc3k()
    query.obs["leiden"] = query.obs["cell_type"]
    namespace = {"SCTAB": SCTAB, "reference": datasets.pbmc_kang18(), "query": query}
    namespace["cells"] = query.copy()
    for block in blocks_of("trust.md"):
        exec(block, namespace)
    assert {"label", "status", "term"} <= set(query.obs)
    assert len(namespace["annotation"]) == query.n_obs
    assert "possible_cause" in namespace["table"]


@pytest.mark.usefixtures("briefly")
def test_of_pretrained_encoders():
    cells = datasets.pbmc_kang18()
    cells.layers["counts"] = cells.X
    namespace = {"cells": cells}
    exec(blocks_of("pretraining.md")[0], namespace)
    parameters = [*namespace["model"].module.encoder.parameters()]
    assert parameters
    assert not any(parameter.requires_grad for parameter in parameters)


@pytest.mark.filterwarnings("ignore:These cells differ")  # another study
def test_of_few_labels(monkeypatch):
    train = partialmethod(MaskedAutoencoder.train, max_epochs=1, enable_progress_bar=False)
    monkeypatch.setattr(MaskedAutoencoder, "train", train)
    cells = datasets.pbmc_kang18()
    labels = cells.obs["cell_type"].astype(str)
    few = labels.groupby(labels).sample(6, random_state=0).index
    cells.obs["cell_type"] = labels.where(labels.index.isin(few), "unknown")
    namespace = {"cells": cells, "query": datasets.pbmc3k()}
    for block in blocks_of("few_labels.md"):
        exec(block, namespace)
    assert "prediction_set" in namespace["annotation"]
    assert namespace["model"].has_pretrained_encoder_


@pytest.mark.filterwarnings("ignore:25 perturbations for 20 latents", "ignore:Only .* of")
@pytest.mark.usefixtures("briefly")
def test_of_perturbation_screens():
    cells = datasets.thp1_papalexi21()
    guides = cells.obs["perturbation"].astype(str)
    cells.obs["guide"] = guides.replace("control", "non-targeting")
    namespace = {"cells": cells}
    (block,) = blocks_of("perturbations.md")
    exec(block, namespace)
    assert len(namespace["model"].perturbations) == 25


@pytest.mark.filterwarnings("ignore:These cells differ")
@pytest.mark.filterwarnings("ignore:These are cells that", "ignore:1 labels come from one donor")
def test_of_ready_made_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    query = datasets.pbmc3k()[:300].copy()
    query.obs["sample"] = "new"
    namespace = {"SCTAB": SCTAB, "query": query}
    loads, maps, saves, _, joins, *_ = blocks_of("models.md")
    exec(loads, namespace)
    assert query.obs["label"].nunique() > 3
    exec(maps, namespace)
    assert namespace["query_model"].surgery_report().trained
    exec(saves, namespace)
    assert (tmp_path / "models" / "kidney" / "card.json").exists()
    namespace |= {"first": datasets.pbmc_kang18(), "second": datasets.pbmc3k()}
    for study in (namespace["first"], namespace["second"]):
        study.obs["donor_id"] = study.obs.get("donor_id", "one")
    exec(joins, namespace)
    assert set(namespace["reference"].obs["study"]) == {"one", "two"}


@pytest.mark.usefixtures("briefly")
def test_of_audits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = datasets.pbmc_kang18()[:, :2000]
    not_empty = np.asarray(cells.X.sum(axis=1)).ravel() > 0
    namespace = {"SCTAB": SCTAB, "reference": cells[not_empty].copy()}
    for block in blocks_of("audit.md"):
        exec(block, namespace)
    assert (tmp_path / "training.html").exists()
    assert namespace["first"]["score"].is_monotonic_decreasing


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")), ids=str)
def test_no_placeholder_is_left(page):
    lines = (DOCS / page).read_text().splitlines()
    assert [line for line in lines if re.fullmatch(r"[A-Z][A-Z_]{3,}\W*", line)] == []


@pytest.mark.filterwarnings("ignore:These cells differ")
def test_of_reports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    query = datasets.pbmc3k()[:300].copy()
    query.obs["leiden"] = query.obs["cell_type"]
    namespace = {"model": models.load("pbmc"), "query": query}
    for block in blocks_of("report.md"):
        exec(block, namespace)
    assert (tmp_path / "report.html").exists()
    assert namespace["report"].types[0].share > 0


def test_of_imputation():
    cells, bulk = datasets.cell_lines_tian19(), datasets.bulk_cell_lines_holik17()
    shared = cells.var_names.intersection(bulk.var_names)
    cells, bulk = cells[:60, shared[:400]].copy(), bulk[:, shared[:500]].copy()
    cells.layers["counts"] = cells.X
    namespace = {"cells": cells, "bulk": bulk}
    (block,) = blocks_of("imputation.md")
    exec(block, namespace)
    assert "bulk only" in set(namespace["model"].get_gene_source())
