"""Tests of the bundled data."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest

from scvi_sctab import datasets
from scvi_sctab.data import check_counts

FOLDER = files("scvi_sctab.datasets")


@pytest.mark.parametrize("name", datasets.__all__)
def test_bundled_data_are_raw_counts_of_named_genes(name: str) -> None:
    adata = getattr(datasets, name)()
    check_counts(adata.X, adata.obs_names, adata.var_names)
    assert adata.var_names.is_unique
    assert adata.var["feature_id"].str.fullmatch(r"ENSG\d{11}|").all()
    assert (np.asarray(adata.X.sum(axis=1)).ravel() > 0).all()


@pytest.mark.parametrize(
    "name", sorted(path.name for path in FOLDER.iterdir() if path.name.endswith(".h5ad"))
)
def test_each_bundled_file_has_its_licence_beside_it(name: str) -> None:
    section = (FOLDER / "README.md").read_text().split(f"## {name}\n")[1].split("\n## ")[0]
    assert any(licence in section for licence in ("MIT", "CC BY 4.0", "Apache-2.0"))


def test_the_screen_has_controls_and_the_sizes_that_its_docstring_says() -> None:
    screen = datasets.thp1_papalexi21()
    cells = screen.obs["perturbation"].value_counts()
    assert len(cells) == 26
    assert cells["control"] == 1200
    assert cells.drop("control").max() == 400
    # Molecules of the whole transcriptome, of which the matrix has 303 genes.
    assert (screen.obs["total_counts"] > np.asarray(screen.X.sum(axis=1)).ravel()).all()


def test_bulk_and_cells_are_of_the_same_lines_and_share_genes() -> None:
    cells, bulk = datasets.cell_lines_tian19(), datasets.bulk_cell_lines_holik17()
    assert set(cells.obs["cell_line"]) == set(bulk.obs["cell_line"])
    assert len(cells.var_names.intersection(bulk.var_names)) > 9000
