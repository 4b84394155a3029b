"""Frames of an annotation, made up, and a reader of pages."""

from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from scvi_sctab.annotation import STATUS, Rates
from scvi_sctab.metrics import Calibration, CellLogits, fit_centers
from scvi_sctab.report import Findings, Provenance, build_report, pack_points, render_page

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
