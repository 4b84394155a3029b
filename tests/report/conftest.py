"""Frames of an annotation, made up, and a reader of pages."""

from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from scvi_sctab.annotation import (
    STATUS,
    LabelAudit,
    Rates,
    count_groups,
    count_issues,
    count_pairs,
)
from scvi_sctab.metrics import Calibration, CellLogits, fit_centers
from scvi_sctab.report import (
    Findings,
    Provenance,
    TrainingFindings,
    build_report,
    pack_points,
    render_page,
)

PROVENANCE = Provenance("query", "model", "0" * 64, "model.report(adata)", "2026-01-01", 3)


def make_findings(labels=("B", "NK", "T"), n_cells=60, novel=True, seed=0, **changes):
    """Findings of cells with random labels and probabilities."""
    rng = np.random.default_rng(seed)
    labels = list(labels)
    codes = rng.integers(len(labels), size=n_cells)
    label = pd.Categorical.from_codes(codes, categories=labels)
    p_value = rng.uniform(size=n_cells) ** 2 if novel else rng.uniform(0.06, 1, size=n_cells)
    pair = " | ".join(labels[:2])
    sets = np.where(rng.random(n_cells) < 0.2, pair, np.asarray(label, dtype=object))
    is_novel = p_value <= 0.05
    status = np.where(is_novel, "novel", np.where(sets == pair, "ambiguous", "confident")).astype(
        object
    )
    status[::9] = "low_quality"  # novel or not
    frame = pd.DataFrame(
        {
            "label": label,
            "probability": rng.uniform(0.3, 1, n_cells),
            "prediction_set": pd.Categorical(sets),
            "novelty_p_value": p_value,
            "novel": is_novel,
            "status": pd.Categorical(status, categories=list(STATUS), ordered=True),
        },
        index=[f"cell{i}" for i in range(n_cells)],
    )
    genes = np.array([f"G{i}" for i in range(40)])
    held_out = rng.normal(size=(200, len(labels))).astype(np.float32)
    truth = rng.integers(len(labels), size=200)
    held_out[np.arange(200), truth] += 3
    logits = CellLogits(held_out, held_out, held_out)
    calibration = Calibration.fit(
        fit_centers(held_out, truth), logits, truth, "prior", np.bincount(truth)
    )
    findings = {
        "title": "query",
        "annotation": frame,
        "labels": labels,
        "all_labels": labels,
        "rates": Rates(0.1, 0.05, 0.9),
        "provenance": PROVENANCE,
        "gene_names": genes,
        "gene_found": np.arange(40) % 4 > 0,
        "gene_weights": rng.normal(size=(len(labels), 40)),
        "positions": np.arange(n_cells),
        "coordinates": rng.normal(size=(n_cells, 2)),
        "basis": "PCA of the latent space",
        "calibration": calibration,
    }
    return Findings(**findings | changes)


def make_audit(labels, n_cells, donors, seed=0):
    """Audit of cells, most of which have the label that is predicted; the first donor is odd."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(len(labels), size=n_cells)
    donor = np.where(np.arange(n_cells) % 4, donors[1], donors[0])
    is_issue = rng.random(n_cells) < np.where(donor == donors[0], 0.5, 0.05)
    suggested = np.where(is_issue, (codes + 1) % len(labels), codes)
    label, other = (pd.Categorical.from_codes(c, categories=labels) for c in (codes, suggested))
    own = np.where(is_issue, 0.1, 0.9) * rng.uniform(0.9, 1, n_cells)
    cells = pd.DataFrame(
        {
            "label": label,
            "suggested_label": other,
            "probability": own,
            "score": 1 - 2 * own,
            "is_issue": is_issue,
            "predicted_label": other,
            "fold": np.arange(n_cells) % 5,
        },
        index=[f"cell{i}" for i in range(n_cells)],
    )
    pairs = count_pairs(cells)
    return LabelAudit(
        cells,
        count_issues(cells, np.full(len(labels), 0.8)),
        pairs.assign(genes=[("CD3D", "LYZ")] * len(pairs)),
        count_groups(cells, {"donor": donor}),
    )


def make_training(labels=("B", "NK", "T"), n_cells=200, donors=("odd", "even"), **changes):
    """Findings of a trained model with an audit."""
    labels = list(labels)
    made = make_findings(labels, n_cells)
    truth = made.annotation["label"].astype(str).to_numpy(dtype=object)
    truth[::7] = labels[0]
    epochs = pd.RangeIndex(4, name="epoch")
    scores = pd.DataFrame({"f1": [0.25, 0.75]}, index=epochs[1::2])
    findings = {
        "title": "reference",
        "labels": labels,
        "histories": [
            {
                "train_loss": pd.DataFrame({"loss": [2.0, 1.5, 1.2, 1.1]}, index=epochs),
                "validation_loss": scores + 1,
                "validation_f1_macro": scores,
                "validation_accuracy": scores + 0.1,
            }
        ],
        "n_trained": dict.fromkeys(labels, 50),
        "held_out": made.annotation,
        "truth": list(truth),
        "columns": {"donor": pd.Series(np.where(np.arange(n_cells) % 2, *donors))},
        "provenance": PROVENANCE,
        "settings": {"Network": "small"},
        "audit": make_audit(labels, max(n_cells, 40), donors),
    }
    return TrainingFindings(**findings | changes)


class Page(HTMLParser):
    """Tags of a page, its numbers by key, and its text outside scripts and styles."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.numbers, self.texts, self._inside = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "data":
            self.numbers.append([dict(attrs)["data-key"], dict(attrs)["value"], ""])
        if tag in ("script", "style", "data"):
            self._inside.append(tag)

    def handle_endtag(self, tag):
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data):
        if self._inside[-1:] == ["data"]:
            self.numbers[-1][2] += data
        if self._inside[-1:] in ([], ["data"]):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join("".join(self.texts).split())


@pytest.fixture
def findings():
    """Findings of 60 cells of three types; `findings(n_cells=1)` of others."""
    return make_findings


@pytest.fixture
def trained():
    """Findings of a trained model of three labels; `trained(n_cells=1)` of others."""
    return make_training


@pytest.fixture
def render():
    """Render findings, and read the page: the page and the report."""

    def make(findings):
        report = build_report(findings)
        html = render_page(report, pack_points(findings, report))
        return Page(html), report, html

    return make


@pytest.fixture
def read_page():
    return Page
