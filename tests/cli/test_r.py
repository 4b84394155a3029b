"""The script for R of the tutorials runs, and joins labels by barcode."""

import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

SCRIPT = Path(__file__).parents[2] / "tutorials" / "annotate_from_r.R"
# Takes the script's call of the command down, and hands it results that the command has written.
COMMAND = """#!/bin/sh
printf '%s\\n' "$@" > {noted}
mkdir -p {out} && cp {results}/* {out}
"""
JOIN = """
source("{script}")
joined <- join_labels(rev(rownames(annotations)), annotations)
stopifnot(is.logical(joined$novel))
write.csv(joined, "{joined}")
"""

pytestmark = pytest.mark.skipif(
    shutil.which("Rscript") is None, reason="R is not installed: apt-get install r-base-core"
)


def test_labels_are_joined_by_barcode_in_the_order_of_the_cells(
    run, folder, path, tmp_path, monkeypatch
):
    results, out = tmp_path / "results", tmp_path / "out"
    assert run("annotate", path, "-m", folder, "-o", results).code == 0
    noted, joined = tmp_path / "noted", tmp_path / "joined.csv"
    command = tmp_path / "scvi-sctab"
    command.write_text(COMMAND.format(noted=noted, out=out, results=results))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    code = JOIN.format(script=SCRIPT, joined=joined)
    line = ["Rscript", "--vanilla", "-e", code, str(path), str(folder), str(out)]
    done = subprocess.run(line, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = pd.read_csv(results / "annotations.csv", index_col="barcode")
    table = pd.read_csv(joined, index_col=0)
    assert list(table.index) == list(expected.index[::-1])
    assert list(table) == list(expected)
    for column in ("label", "prediction_set", "status", "novel"):
        assert table[column].eq(expected[column][::-1]).all()
    most = expected["label"].value_counts()
    assert most.index[0] in done.stdout
    assert (out / "annotations.rds").exists()
    # The call of the script is one that the command takes.
    called = noted.read_text().splitlines()
    assert called == ["annotate", str(path), "-m", str(folder), "-o", str(out)]


def test_an_error_of_the_command_stops_the_script(tmp_path, monkeypatch):
    command = tmp_path / "scvi-sctab"
    command.write_text("#!/bin/sh\nexit 3\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    line = ["Rscript", "--vanilla", str(SCRIPT), "query.h5ad", "model", str(tmp_path / "out")]
    done = subprocess.run(line, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "scvi-sctab ended with exit code 3" in done.stderr
