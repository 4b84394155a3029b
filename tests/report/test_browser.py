"""The page in a browser: a Chromium of the system, driven by playwright."""

import shutil

import numpy as np
import pandas as pd
import pytest

from scvi_sctab.report import (
    build_report,
    build_training_report,
    pack_points,
    write_report,
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow(reason="starts a browser"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]
SIZES = {"phone": (390, 844), "laptop": (1440, 900)}


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def report_file(findings, tmp_path):
    """A page of 400 cells in two separate groups, and its findings."""
    batch = pd.Series(np.where(np.arange(400) % 4, "run 1", "run 2"))
    made = findings(n_cells=400, columns={"batch": batch}, batch="batch")
    codes = made.annotation["label"].cat.codes.to_numpy()
    made.coordinates[:] = 0.3 * made.coordinates + np.where(codes[:, None] == 0, -4, 4)
    report = build_report(made)
    write_report(report, pack_points(made, report), tmp_path / "page.html")
    return tmp_path / "page.html", made


@pytest.fixture
def visit(browser, report_file):
    """Open the page without a network; the page, and what it complained of or asked for."""
    contexts = []

    def go(size="laptop", **options):
        width, height = SIZES[size]
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.set_offline(True)
        page, heard = context.new_page(), []
        page.on("console", lambda message: heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on("request", lambda request: heard.append(f"request: {request.url}"))
        page.goto(report_file[0].as_uri())
        page.wait_for_selector("#legend button")
        heard.remove(f"request: {report_file[0].as_uri()}")
        return page, heard

    yield go
    for context in contexts:
        context.close()


def pixels(page):
    return page.evaluate("document.getElementById('cells').toDataURL()")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_quiet_asks_for_nothing_and_fits_its_width(visit, size, scheme):
    page, heard = visit(size, color_scheme=scheme)
    assert heard == []
    assert page.evaluate("document.documentElement.scrollWidth") == SIZES[size][0]


def test_colours_hover_and_zoom(visit):
    page, heard = visit()
    before = pixels(page)
    names = page.locator("#colorings label").all_text_contents()
    assert names == ["Label", "Probability", "Novelty p-value", "Status", "batch"]
    seen = {before}
    for name in names[1:]:
        page.locator("#colorings label", has_text=name).click()
        page.wait_for_timeout(100)
        seen.add(pixels(page))
    assert len(seen) == len(names)
    assert page.locator("#legend button").all_text_contents() == ["run 1300", "run 2100"]
    box = page.locator("#cells").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert page.locator("#tip").is_hidden()
    for x in np.linspace(0.02, 0.98, 200):  # along the diagonal on which both groups are
        y = 1 - x
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        if page.locator("#tip").is_visible():
            break
    assert page.locator("#tip strong").text_content().startswith("cell")
    assert "Probability" in page.locator("#tip").text_content()
    before = pixels(page)
    page.locator("#zoom-in").click()
    page.wait_for_timeout(100)
    assert pixels(page) != before
    page.locator("#cells").focus()
    page.keyboard.press("0")
    page.wait_for_timeout(100)
    assert pixels(page) == before
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(100)
    assert pixels(page) != before
    assert heard == []


def test_a_lasso_selects_cells_and_their_barcodes_are_exported(visit, report_file, tmp_path):
    page, heard = visit()
    _, made = report_file
    page.get_by_text("select", exact=True).click()
    box = page.locator("#cells").bounding_box()
    page.locator("#cells").scroll_into_view_if_needed()
    box = page.locator("#cells").bounding_box()
    # The lower left half, in which the first label is.
    corners = [(0.02, 0.02), (0.02, 0.98), (0.98, 0.98), (0.02, 0.02)]
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()
    expected = made.annotation.index[made.annotation["label"] == "B"]
    assert f"{len(expected)} cells selected: B {len(expected)}" in page.text_content("#selected")
    with page.expect_download() as download:
        page.locator("#download").click()
    path = tmp_path / "barcodes.txt"
    download.value.save_as(path)
    assert path.read_text().split() == list(expected)
    assert page.input_value("#barcodes").split() == list(expected)
    page.locator("#clear").click()
    assert "No cell is selected" in page.text_content("#selected")
    assert heard in ([], [request for request in heard if request.startswith("request: blob:")])


def test_the_keyboard_selects_a_category(visit, report_file):
    page, _ = visit()
    _, made = report_file
    first = page.locator("#legend button").first
    first.focus()
    page.keyboard.press("Enter")
    assert first.get_attribute("aria-pressed") == "true"
    n = int(made.annotation["label"].value_counts().iloc[0])
    assert f"{n} cells selected" in page.text_content("#selected")
    page.keyboard.press("Enter")
    assert first.get_attribute("aria-pressed") == "false"


def test_tables_are_sorted_by_the_value_of_a_number(visit):
    page, _ = visit()
    head = page.locator("#types thead th", has_text="Mean probability")
    column = "#types tbody td:nth-child(4)"
    for order in ("descending", "ascending"):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == order
        values = [float(text) for text in page.locator(column).all_text_contents()]
        assert values == sorted(values, reverse=order == "descending")


def test_names_with_scripts_are_not_executed(browser, findings, tmp_path):
    name = "</script><img src=x onerror=\"document.title='bad'\"><script>document.title='bad'</script>"
    frame = findings([name, "T"]).annotation
    frame.index = [f"{name}{i}" for i in range(60)]
    made = findings([name, "T"], annotation=frame, title=name)
    report = build_report(made)
    write_report(report, pack_points(made, report), tmp_path / "odd.html")
    page = browser.new_page()
    heard = []
    page.on("console", lambda message: heard.append(message.text))
    page.goto((tmp_path / "odd.html").as_uri())
    page.wait_for_selector("#legend button")
    page.locator("#legend button").first.click()
    assert page.title() == name
    assert page.locator("img").count() == 0
    assert heard == []
    page.close()


NAMES = ["</script><script>document.title='bad'</script>", "خلية تائية", "🧬 T cell"]


@pytest.fixture
def training_file(trained, tmp_path):
    """A page of a training whose labels have odd names."""
    made = trained(NAMES, title=NAMES[1])
    write_report(build_training_report(made), None, tmp_path / "training.html")
    return tmp_path / "training.html"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_a_training_is_quiet_and_fits_its_width(browser, training_file, size, scheme):
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    context.set_offline(True)
    page, heard = context.new_page(), []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: heard.append(request.url))
    page.goto(training_file.as_uri())
    assert heard == [training_file.as_uri()]
    assert page.title() == NAMES[1]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    column = "#scores tbody td:nth-child(6)"
    values = [float(text) for text in page.locator(column).all_text_contents()]
    assert values == sorted(values)
    head = page.locator("#scores thead th", has_text="F1")
    head.locator("button").click()
    values = [float(text) for text in page.locator(column).all_text_contents()]
    assert values == sorted(values, reverse=True)
    page.locator("#curves summary").click()
    assert page.locator("#curves tbody tr").count() == 4
    line = page.locator("#curves path.line.first").first
    box = line.bounding_box()
    assert box["width"] > 50
    assert box["height"] > 20
    context.close()
