"""The page of a training holds the numbers of its file, whatever the names."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from scvi_sctab.annotation import count_issues
from scvi_sctab.report import build_training_report, render_page
from scvi_sctab.report._held_out import MIN_CONFUSION

ODD_NAMES = {
    "a script": "<script>alert(1)</script>",
    "an attribute": '" onload="alert(1)',
    "an emoji": "🧬 T cell 🦠",
    "right to left": "خلية تائية",
    "80 characters": "x" * 80,
    "a template": "{{ 7 * 7 }} {% raw %}",
    "the separator of sets": "B | NK",
}


def read(findings, read_page):
    report = build_training_report(findings)
    html = render_page(report)
    return read_page(html), report, html


def find(values, key):
    for part in key.split("."):
        values = values[int(part)] if isinstance(values, list | tuple) else values[part]
    return values


def test_each_number_of_the_page_is_that_of_the_file(trained, read_page):
    page, report, _ = read(trained(), read_page)
    saved = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    for key, value, _ in page.numbers:
        assert float(value) == find(saved, key), key
    sections = {key.split(".")[0] for key, *_ in page.numbers}
    assert sections == {
        "verdict", "epochs", "scores", "confusion", "confusions", "held_out", "pairs", "groups",
        "audit", "provenance",
    }  # fmt: skip


def test_scores_are_those_of_the_held_out_cells(trained, read_page):
    made = trained()
    _, report, _ = read(made, read_page)
    predicted = made.held_out["label"].astype(str)
    expected = f1_score(made.truth, predicted, average=None, labels=sorted(made.labels))
    found = {row.label: row.f1 for row in report.scores}
    assert found == pytest.approx(dict(zip(sorted(made.labels), expected, strict=True)))
    assert report.verdict.f1_macro == pytest.approx(expected.mean())
    assert [row.f1 for row in report.scores] == sorted(found.values())
    counts = Counter(zip(made.truth, predicted, strict=True))
    table = report.confusion
    for i, true in enumerate(table.labels):
        for j, guess in enumerate(table.columns):
            assert table.counts[i][j] == counts[true, guess]
        assert table.n_cells[i] == made.truth.count(true)
    for row in report.pairs:
        one, other = row.labels
        assert row.n_confused == counts[one, other] + counts[other, one]
        assert row.share_confused == row.n_confused / sum(map(made.truth.count, row.labels))
    assert len(report.verdict.sentences) == 3


def test_the_audit_is_counted(trained, read_page):
    made = trained()
    page, report, _ = read(made, read_page)
    cells = made.audit.cells
    assert report.audit.n_issues == report.verdict.n_issues == cells["is_issue"].sum() > 0
    assert report.audit.pairs[0].n_cells == made.audit.pairs["n_cells"].max()
    scores = [row.score for row in report.audit.cells]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == cells.loc[cells["is_issue"], "score"].max()
    assert f"{report.audit.n_issues} of {len(cells)} labels" in page.text
    columns = [column.column for column in report.groups]
    assert columns == ["donor"]
    (odd,) = (row for row in report.groups[0].groups if row.stands_out)
    assert odd.group == "odd"
    assert "odd (donor)" in report.verdict.sentences[2]


def test_donors_are_those_of_held_out_cells_without_an_audit(trained, read_page):
    page, report, _ = read(replace(trained(), audit=None), read_page)
    assert report.audit is None
    assert [row.n_issues for row in report.groups[0].groups] == [None] * 2
    assert "The labels were not audited." in page.text
    assert "model.audit_labels()" in page.text
    page, *_ = read(replace(trained(), audit=None, can_audit=False), read_page)
    assert "The labels were not audited." in page.text
    assert "audit_labels" not in page.text


@pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES)
def test_names_are_text_and_never_code(name, trained, read_page):
    made = trained([name, "NK", "T"], donors=(name, "other"))
    made.audit.cells.index = [f"{name}{i}" for i in range(len(made.audit.cells))]
    made.audit.pairs["genes"] = [(name,)] * len(made.audit.pairs)
    page, report, html = read(replace(made, title=name, settings={name: name}), read_page)
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert not any(tag in ("img", "iframe", "object") for tag, _ in page.tags)
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert " ".join(name.split()) in page.text
    assert name in [row.label for row in report.scores]
    if "<" in name:
        assert name not in html


def test_164_labels_have_a_row_each_and_the_confusion_those_with_most_errors(trained, read_page):
    made = trained([f"type {i} of many" for i in range(164)], n_cells=3000)
    page, report, html = read(made, read_page)
    assert len(report.scores) == 164
    assert len(report.confusion.columns) == 25
    assert report.confusion.columns[-1] == report.confusion.rest == "other labels"
    assert sum(report.confusion.n_cells) == 3000
    assert len(html) < 1_000_000
    assert sum(tag == "tr" for tag, _ in page.tags) > 164


@pytest.mark.parametrize("n_cells", [1, 2])
def test_labels_of_one_cell_have_a_page(n_cells, trained, read_page):
    page, report, _ = read(replace(trained(n_cells=n_cells), audit=None), read_page)
    assert report.verdict.n_held_out == n_cells
    unseen = [row for row in report.scores if not row.n_held_out]
    assert unseen
    assert all(row.f1 is None for row in unseen)
    assert "no held-out cell" in report.verdict.sentences[1]


def test_without_held_out_cells_it_is_said(trained, read_page):
    none = pd.DataFrame({"label": [], "probability": []})
    page, report, _ = read(
        replace(trained(), held_out=none, truth=[], columns={}, audit=None), read_page
    )
    assert report.verdict.accuracy is None
    assert report.confusion is report.held_out is None
    assert "none is held out" in report.verdict.sentences[0]
    assert page.text.count("No cells were held out.") == 3


def test_a_model_without_a_calibration_has_no_sets(trained, read_page):
    made = trained()
    page, report, _ = read(
        replace(made, held_out=made.held_out.drop(columns="prediction_set")), read_page
    )
    assert all(row.n_both is row.share_both is None for row in report.pairs)
    assert "The model is not calibrated" in page.text


def test_each_network_has_a_curve_and_long_ones_are_thinned(trained, read_page):
    made = trained()
    epochs = pd.RangeIndex(1000, name="epoch")
    long = {"train_loss": pd.DataFrame({"train_loss": np.linspace(2, 0, 1000)}, index=epochs)}
    page, report, html = read(replace(made, histories=[*made.histories, long]), read_page)
    first = [row for row in report.epochs if row.network == 0]
    assert [row.validation_f1_macro for row in first] == [None, 0.25, None, 0.75]
    last = [row for row in report.epochs if row.network == 1]
    assert len(last) == 100
    assert (last[0].epoch, last[-1].epoch) == (0, 999)
    assert html.count('class="line first"') == 2 * 2 + 2  # two charts, and their keys
    empty, report, _ = read(replace(made, histories=[{}]), read_page)
    assert report.epochs == ()
    assert "no history" in empty.text


def test_the_page_can_be_read_by_keys(trained, read_page):
    page, _, html = read(trained(), read_page)
    regions = [
        a for tag, a in page.tags if tag == "div" and a.get("class", "").startswith("scroll")
    ]
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in regions)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for tag, a in page.tags if tag == "a"}
    assert targets <= set(ids)
    charts = [a for tag, a in page.tags if tag == "svg" and a.get("role") == "img"]
    assert len(charts) == 3
    assert {a["aria-labelledby"] for a in charts} <= set(ids)
    assert "http://" not in html
    assert "https://" not in html


def test_the_cell_of_joined_labels_is_neither_right_nor_wrong(trained, read_page):
    _, report, html = read(trained([f"type {i}" for i in range(40)], n_cells=2000), read_page)
    table, n = report.confusion, len(report.confusion.columns)
    assert table.counts[-1][-1] > 0
    n_colored = html.count('class="n heat"') + html.count('class="n heat wrong"')
    assert n_colored == n * n - 1
    assert html.count('class="n heat"') == n - 1
    _, report, html = read(trained(), read_page)
    assert report.confusion.rest is None
    assert html.count('class="n heat"') == 3
    names = ["other labels", *(f"type {i}" for i in range(40))]
    _, report, _ = read(trained(names, n_cells=2000), read_page)
    assert report.confusion.rest == "all other labels"


@pytest.mark.parametrize("is_calibrated", [True, False])
def test_labels_that_are_not_confused_are_said_to_be_so_up_to_a_share(
    is_calibrated, trained, read_page
):
    made = trained()
    frame = made.held_out.assign(prediction_set=made.held_out["label"])
    frame = frame if is_calibrated else frame.drop(columns="prediction_set")
    truth = list(frame["label"].astype(str))
    truth[0] = next(name for name in made.labels if name != truth[0])
    page, report, _ = read(replace(made, held_out=frame, truth=truth), read_page)
    assert report.pairs == ()
    assert f"No two labels are confused in {MIN_CONFUSION:.0%}".replace("%", " %") in page.text
    assert ("or share a prediction set." in page.text) == is_calibrated
    assert "tell all labels apart" not in page.text


def test_labels_that_cannot_be_audited_have_no_share(trained, read_page):
    made = trained()
    cells = made.audit.cells.copy()
    own = cells["label"] == "B"
    cells.loc[own, ["probability", "score"]] = np.nan
    cells.loc[own, "is_issue"] = False
    cells.loc[own, "suggested_label"] = "B"
    audit = replace(made.audit, cells=cells, labels=count_issues(cells, np.full(3, 0.8)))
    page, report, _ = read(replace(made, audit=audit), read_page)
    json.dumps(report.to_dict(), allow_nan=False)
    row = next(row for row in report.audit.labels if row.label == "B")
    assert (row.share, row.recall, row.n_cells) == (None, None, own.sum())
    assert (report.audit.n_cells, report.audit.n_not_audited) == ((~own).sum(), own.sum())
    rest = cells[~own]
    right = rest["label"].astype(str) == rest["predicted_label"].astype(str)
    assert report.audit.accuracy == pytest.approx(right.mean())
    assert "cells cannot be audited" in page.text
