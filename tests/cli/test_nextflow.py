"""The nf-core module of the tutorials: its commands run as they stand, and its files are those it names."""

import json
import re
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from scvi_sctab import datasets

MODULE = Path(__file__).parents[2] / "tutorials" / "nf-core"
PROCESS = (MODULE / "main.nf").read_text()
# Variables of the script, as Nextflow would set them.
VALUES = {
    "query": "pbmc.h5ad",
    "prefix": "sample1",
    "chosen": "pbmc",
    "task.cpus": "1",
    "genes": "--gene-column 'var_names'",
    "args": "--error-rate 0.05",
}


def block(name, **values):
    """Return the commands of `script:` or `stub:`, with their variables filled in."""
    text = re.search(rf'{name}:\n.*?"""\n(.*?)"""', PROCESS, flags=re.DOTALL)[1]
    text = text.replace("\\\\\n", " ")  # Groovy writes two backslashes for one
    return re.sub(r"\$\{([\w.]+)\}", lambda found: (VALUES | values)[found[1]], text)


def outputs():
    return re.findall(r'path\("\$\{prefix\}(.*?)"\)', PROCESS)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Folder of a task, with the query that the script of the tests writes."""
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "make_data.py"
    script.write_text((MODULE / "tests" / "make_data.py").read_text())
    runpy.run_path(str(script))
    script.unlink()
    return tmp_path


@pytest.mark.filterwarnings("ignore:These cells differ")
@pytest.mark.parametrize(
    ("genes", "source"), [("var_names", "var_names"), ("symbols", "var['symbols']"), (None, None)]
)
def test_the_script_writes_the_outputs_of_the_module(genes, source, run, work):
    pytest.importorskip("pyarrow")
    given = "" if genes is None else f"--gene-column '{genes}'"
    program, *line = shlex.split(block("script", genes=given))
    assert program == "scvi-sctab"
    done = run(*line)
    assert done.code == 0, done.err
    written = {file.name for file in work.iterdir()} - {"pbmc.h5ad"}
    assert written == {f"sample1{name}" for name in outputs()}
    # What the nf-test file expects.
    expected = re.search(r"readLines\(\) == \[\n(.*?)\]", nf_test(), flags=re.DOTALL)[1]
    manifest = (work / "sample1_annotation_columns.csv").read_text().splitlines()
    assert manifest == re.findall(r"'(.*?)'", expected)
    summary = json.loads((work / "sample1_summary.json").read_text())
    assert f"summary[0][1]).json.n_cells == {summary['n_cells']} " in nf_test()
    if source is not None:
        assert summary["genes"]["source"] == source
    assert "json.genes.source == \"var['symbols']\"" in nf_test()


def nf_test():
    return (MODULE / "tests" / "main.nf.test").read_text()


def test_a_column_that_is_not_there_ends_with_the_code_of_the_nf_test(run, work):
    _, *line = shlex.split(block("script", genes="--gene-column 'not_a_column'"))
    done = run(*line)
    assert f"process.exitStatus == {done.code}\n" in nf_test()
    assert [file.name for file in work.iterdir()] == ["pbmc.h5ad"]


def test_the_stub_writes_the_outputs_of_the_module(tmp_path):
    subprocess.run(["bash", "-euo", "pipefail", "-c", block("stub")], cwd=tmp_path, check=True)
    assert {file.name for file in tmp_path.iterdir()} == {f"sample1{name}" for name in outputs()}
    manifest = (tmp_path / "sample1_annotation_columns.csv").read_text()
    assert manifest == "obs_column,aggregatable\n"
    json.loads((tmp_path / "sample1_summary.json").read_text())


def test_the_version_is_the_bare_number_that_the_module_evaluates(run):
    assert "eval('scvi-sctab --version')" in PROCESS
    done = run("--version")
    assert re.fullmatch(r"\d+(\.\d+)+\n", done.out)


def test_the_description_names_the_inputs_and_outputs_of_the_process():
    described = yaml.safe_load((MODULE / "meta.yml").read_text())
    emitted = re.findall(r"emit: (\w+)", PROCESS)
    assert list(described["output"]) == emitted
    files = [name for channel in described["output"].values() for name in channel[0][1]]
    for name in outputs():
        assert f"${{prefix}}{name}" in files
    taken = re.search(r"input:\n(.*?)\n\n", PROCESS, flags=re.DOTALL)[1]
    taken = re.findall(r"(?:val|path)[( ]+(\w+)", taken)
    named = [name for row in described["input"] for name in flatten(row)]
    assert named == taken


def flatten(row):
    return [name for part in row for name in part] if isinstance(row, list) else list(row)


def test_the_environment_installs_this_version(run):
    environment = yaml.safe_load((MODULE / "environment.yml").read_text())
    (pip,) = [part["pip"] for part in environment["dependencies"] if isinstance(part, dict)]
    version = run("--version").out.strip()
    assert pip == [f"scvi-sctab[files]=={version}"]


def test_the_query_of_the_tests_is_made_of_bundled_cells(work):
    from anndata import read_h5ad

    made = read_h5ad(work / "pbmc.h5ad")
    assert list(made.obs_names) == list(datasets.pbmc3k().obs_names[:60])
    assert list(made.var["symbols"]) == list(made.var_names)
