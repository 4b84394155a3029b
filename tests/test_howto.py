"""The blocks of docs/annotate.md run as they stand."""

import re
from functools import partial
from pathlib import Path

import pytest

import scvi_sctab
from scvi_sctab import SCTAB, annotate_files

PAGE = (Path(__file__).parents[1] / "docs" / "annotate.md").read_text()


@pytest.mark.filterwarnings("ignore:These cells differ")
@pytest.mark.usefixtures("unguarded")
def test_the_blocks_run(reference, query, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train = SCTAB.train

    def train_briefly(self):
        epochs = {} if self.query_record else {"max_epochs": 3}
        train(self, **epochs, enable_progress_bar=False)

    monkeypatch.setattr(SCTAB, "train", train_briefly)
    query.obs["donor_id"] = "another lab"
    labelled_cells = query[query.obs["cell_type"].isin(reference.obs["cell_type"])].copy()
    query.write_h5ad("lab1.h5ad")
    # Workers would import the package anew.
    serially = partial(annotate_files, scheduler="serial", overwrite=True)
    monkeypatch.setattr(scvi_sctab, "annotate_files", serially)
    namespace = {
        "__name__": "__main__",
        "reference": reference,
        "query": query,
        "labelled_cells": labelled_cells,
        "files": ["lab1.h5ad"],
    }
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) == 8
    for block in blocks:
        exec(block, namespace)
    assert (tmp_path / "annotated.h5ad").exists()
    assert (tmp_path / "annotation.csv").exists()
    assert (tmp_path / "annotations" / "lab1.annotations.parquet").exists()
    assert list(namespace["table"]["status"]) == ["done"]
    assert "sctab_label" in query.obs
    assert "unassigned" in set(namespace["annotation"]["label"].cat.categories)


def test_each_method_named_exists():
    named = set(re.findall(r"(?:SCTAB|model)\.([a-z_]+)\(", PAGE))
    assert {"setup_mudata", "annotate", "calibrate", "refine"} <= named
    assert [name for name in named if not hasattr(SCTAB, name)] == []
