"""The page holds the numbers of the report, whatever the names, and runs nothing but its script."""

import base64
import hashlib
import json
import re
import zlib

import numpy as np
import pandas as pd
import pytest

from scvi_sctab.report import build_report, render_page

SCRIPT = "<script>alert(1)</script>"
ODD_NAMES = {
    "a script": SCRIPT,
    "an attribute": '" onload="alert(1)',
    "an emoji": "🧬 T cell 🦠",
    "right to left": "خلية تائية",
    "80 characters": "x" * 80,
    "a template": "{{ 7 * 7 }} {% raw %}",
    "the end of a script": "</script><img src=x onerror=alert(1)>",
    "the separator of sets": "B | NK",
}


def find(values, key):
    for part in key.split("."):
        values = values[int(part)] if isinstance(values, list | tuple) else values[part]
    return values


def as_number(text):
    return float(re.sub(r"[,<>%\xa0]", "", text))


def test_each_number_of_the_page_is_that_of_the_file(findings, render):
    page, report, _ = render(findings(columns={"leiden": pd.Series(list("abc") * 20)}))
    saved = json.loads(json.dumps(report.to_dict()))
    assert len(page.numbers) > 80  # of all kinds
    for key, value, text in page.numbers:
        assert float(value) == find(saved, key), key
        if "%" in text:
            assert abs(as_number(text) / 100 - float(value)) <= 0.0051, key
        else:
            assert as_number(text) == pytest.approx(float(value), abs=0.005), key
    whole = {key for key, value, _ in page.numbers if "." not in value}
    assert {"verdict.n_cells", "verdict.n_novel", "genes.n_found", "types.0.n_cells"} <= whole


def test_each_section_of_the_file_has_its_numbers_on_the_page(findings, render):
    page, report, _ = render(findings(columns={"leiden": pd.Series(list("abc") * 20)}))
    sections = {key.split(".")[0] for key, *_ in page.numbers}
    known = {"verdict", "types", "pairs", "novel", "genes", "ground", "comparisons", "provenance"}
    assert sections == known
    assert report.map.n_shown == report.map.n_cells == 60


@pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES)
def test_names_are_text_and_never_code(name, findings, render):
    labels = [name, "NK", "T"]
    frame = findings(labels).annotation
    frame.index = [f"{name}{i}" for i in range(60)]
    groups = pd.Series(np.where(np.arange(60) % 2, name, "other"))
    page, report, html = render(
        findings(labels, annotation=frame, title=name, columns={name: groups})
    )
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert len(scripts) == 2  # the points, and ours
    assert not any(tag in ("img", "iframe", "object") for tag, _ in page.tags)
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert " ".join(name.split()) in page.text
    assert name in [row.label for row in report.types]
    if "<" in name:
        assert name not in html


def test_the_page_requests_nothing_and_allows_its_own_script_only(findings, render):
    page, _, html = render(findings())
    for tag, attributes in page.tags:
        assert "src" not in attributes, tag
        if tag != "a":
            assert attributes.get("href", "data:,") == "data:,"
        else:
            assert attributes["href"].startswith("#")
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|https?://", html)
    policy = next(
        a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"
    )
    script = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert len(script) == 1
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_a_single_cell_has_a_page(findings, render):
    page, report, _ = render(findings(n_cells=1))
    assert report.verdict.n_cells == 1
    assert report.verdict.shifted is None
    assert "too few cells to test" in page.text


def test_no_novel_cell_is_said(findings, render):
    page, report, _ = render(findings(novel=False))
    assert report.novel == ()
    assert "No cell is called novel." in page.text


def test_164_types_have_a_row_and_a_colour_each(findings, render):
    names = [f"type {i} of many" for i in range(164)]
    page, report, _ = render(findings(labels=names, n_cells=5000))
    assert len(report.types) == 164
    assert len({row.color for row in report.types}) == 164
    assert sum(tag == "tr" for tag, _ in page.tags) > 164


def test_a_model_without_a_calibration_states_no_status(findings, render):
    bare = findings().annotation[["label", "probability"]]
    page, report, _ = render(findings(calibration=None, annotation=bare))
    assert report.verdict.n_novel is None
    assert "The model is not calibrated" in page.text
    assert "Confident" not in page.text


def test_a_table_is_named_and_can_be_scrolled_by_keys(findings, render):
    page, _, _ = render(findings())
    regions = [
        a for tag, a in page.tags if tag == "div" and a.get("class", "").startswith("scroll")
    ]
    assert regions
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in regions)
    canvas = next(a for tag, a in page.tags if tag == "canvas")
    assert canvas["tabindex"] == "0"
    assert "60 cells" in canvas["aria-label"]
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for tag, a in page.tags if tag == "a"}
    assert targets <= set(ids)


def unpack(text, kind):
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), kind)


def test_points_keep_their_places_and_colours(findings, render):
    made = findings()
    _, report, html = render(made)
    data = json.loads(re.search(r'id="cells-data">(.*?)</script>', html).group(1))
    points = unpack(data["points"], "<u2").reshape(-1, 2).astype(float)
    given = made.coordinates * [1, -1]
    distance = np.linalg.norm(given[:, None] - given, axis=2)
    packed = np.linalg.norm(points[:, None] - points, axis=2)
    np.testing.assert_allclose(packed / packed.max(), distance / distance.max(), atol=1e-4)
    label = data["columns"][0]
    names = np.array(label["names"])[unpack(label["codes"], np.uint8)]
    assert list(names) == list(made.annotation["label"].astype(str))
    colors = {row.label: row.color for row in report.types}
    assert label["colors"] == [colors[name] for name in label["names"]]
    probability = unpack(data["columns"][1]["codes"], np.uint8) / 254
    np.testing.assert_allclose(probability, made.annotation["probability"], atol=0.002)
    assert zlib.decompress(base64.b64decode(data["names"])).decode().split("\n")[0] == "cell0"


def test_a_page_without_points_has_no_map(findings):
    made = findings(positions=None, coordinates=None)
    assert 'id="map"' not in render_page(build_report(made))
