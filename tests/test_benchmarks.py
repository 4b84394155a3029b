"""The tables of the pages are what the benchmarks print from their rows."""

import importlib.util
import sys
from pathlib import Path

import pytest

from scvi_sctab.benchmark import Runs

ROOT = Path(__file__).parents[1]
TASKS = {
    "Kang 1244, 1016": "kang donors 1244+1016",
    "Kang 1015, 101": "kang donors 1015+101",
    "Kang 1256, 107": "kang donors 1256+107",
    "Kang 1488, 1039": "kang donors 1488+1039",
    "bundled donors": "bundled donors",
    "Kang to pbmc3k": "kang -> pbmc3k",
    "bundled to pbmc3k": "bundled -> pbmc3k",
    "OneK1K donors": "onek1k donors",
    "mean": "mean over tasks",
}
ROWS = ROOT / "benchmarks" / "results" / "accuracy.csv"


@pytest.fixture
def printed(monkeypatch, tmp_path):
    """Tables of accuracy.py, each a list of rows of cells."""
    if not ROWS.exists():
        pytest.skip("the sdist has the scripts without the rows that they wrote")
    monkeypatch.syspath_prepend(ROWS.parents[1])
    (tmp_path / ROWS.name).write_bytes(ROWS.read_bytes())
    script = ROWS.parents[1] / "accuracy.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_accuracy", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", [str(script), "--report-only", "--out", str(tmp_path)])
    module.main()
    return [table(block) for block in (tmp_path / "accuracy.md").read_text().split("\n\n")]


def table(block):
    rows = [line for line in block.splitlines() if line.startswith("|")]
    cells = [[cell.strip(" *") for cell in row[1:-1].split("|")] for row in rows]
    return [row for row in cells if set("".join(row)) - set("- ")]


def test_the_table_of_the_readme_is_what_the_benchmark_prints(printed):
    measured = {row[0]: row[1:4] for row in printed[0]}
    text = (ROOT / "README.md").read_text()
    shown = table(text[text.index("| method | macro F1") :].split("\n\n")[0])
    methods = [row[0].split(" (two-pass")[0] for row in shown[1:]]
    assert len(methods) == 7
    for method, row in zip(methods, shown[1:], strict=True):
        assert row[1:4] == measured[method]
    assert f"two-pass: {measured['CellTypist two-pass'][0]}" in text


def test_macro_f1_of_the_page_of_comparisons_is_what_the_benchmark_prints(printed):
    header, *rows = next(block for block in printed if block and block[0][0] == "macro_f1")
    measured = {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}
    text = (ROOT / "docs" / "comparison.md").read_text()
    blocks = [table(block) for block in text.split("\n\n") if block.startswith("|  |")]
    for methods, *rows in blocks:
        assert [row[0] for row in rows] == [*TASKS]
        for row in rows:
            assert row[1:] == [measured[TASKS[row[0]]][method] for method in methods[1:]]
    assert len(blocks) == 2


def test_every_run_of_the_tables_succeeded_and_is_there_once(printed):
    runs = Runs(ROWS).table
    assert (runs["error"] == "").all()
    assert not runs.duplicated(["method", "task", "seed"]).any()
