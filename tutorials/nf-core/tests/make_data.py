"""Write the query of the tests, 60 cells of PBMC 3k, beside this file."""

from pathlib import Path

from scvi_sctab import datasets

cells = datasets.pbmc3k()[:60].copy()
cells.var["symbols"] = cells.var_names
cells.write_h5ad(Path(__file__).parent / "pbmc.h5ad")
