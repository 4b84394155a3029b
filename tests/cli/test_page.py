"""The commands of the pages run as they stand."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from scvi_sctab import SCTAB, datasets

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "docs/command_line.md", "docs/report.md", "docs/audit.md", "docs/r.md"]


def commands(page):
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines if line.startswith("scvi-sctab ")]
    return [line[1:] for line in found if line[1] != "models"]


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_run(page, run, folder, reference, query, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    train = SCTAB.train

    def train_briefly(self, max_epochs=None, **arguments):
        train(self, 2, **arguments)

    monkeypatch.setattr(SCTAB, "train", train_briefly)
    monkeypatch.chdir(tmp_path)
    assert folder.name == "blood"
    monkeypatch.setenv("SCVI_SCTAB_MODELS", str(folder.parent))
    if page == "README.md":  # the ready-made model needs more genes
        query = datasets.pbmc3k()[:60].copy()
    query.obs["leiden"] = query.obs["cell_type"]
    query.write_h5ad("query.h5ad")
    query[:50].copy().write_h5ad("other.h5ad")
    reference.write_h5ad("reference.h5ad")
    Path("genes.tsv").write_text("LYZ\tLZM\n")
    lines = commands(page)
    assert lines
    for line in lines:
        done = run(*line)
        assert done.code == 0, (line, done.err)


def test_the_page_names_each_command_and_exit_code():
    page = (ROOT / "docs" / "command_line.md").read_text()
    ran = {line[0] for line in commands("docs/command_line.md")}
    assert ran == {"annotate", "inspect", "train", "evaluate", "markers", "map", "report"}
    for name in ("consensus", "convert", "corpus", "models"):
        assert f"`{name}" in page or f"scvi-sctab {name}" in page
    for code in range(6):
        assert f"| {code} | " in page


def test_the_table_that_r_reads_has_these_columns(run, folder, path, tmp_path):
    assert run("annotate", path, "-m", folder, "-o", tmp_path / "out").code == 0
    frame = pd.read_csv(tmp_path / "out" / "annotations.csv", dtype=str)
    script = (ROOT / "tutorials" / "annotate_from_r.R").read_text()
    assert 'row.names = "barcode"' in script
    assert set(re.findall(r"annotations\$(\w+)", script)) <= set(frame)
    assert set(frame["novel"]) <= {"True", "False"}
