"""Small files of two studies, and corpora of them."""

import sys

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

N_GENES = 60
LABELS = ("B cell", "T cell", "monocyte")


def study(n_cells, seed, name, genes):
    """Draw counts; each type has genes of its own, so that it can be learnt."""
    rng = np.random.default_rng(seed)
    types = rng.integers(len(LABELS), size=n_cells)
    rate = np.full((len(LABELS), N_GENES), 0.4)
    for i in range(len(LABELS)):
        rate[i, 5 * i : 5 * i + 5] = 6
    counts = rng.poisson(rate[types] * rng.gamma(5, 0.2, (n_cells, 1)))
    counts[:, -1] += 1  # no cell is empty
    names = [f"gene{i}" for i in range(N_GENES)]
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(np.array(LABELS)[types]),
            "donor": [f"{name}{i}" for i in rng.integers(6, size=n_cells)],
            "assay": "10x 3' v3",
            "is_primary_data": True,
        },
        index=[f"cell{i}" for i in range(n_cells)],
    )
    cells = AnnData(sparse.csr_matrix(counts, dtype=np.float32), obs, pd.DataFrame(index=names))
    return cells[:, genes].copy()


@pytest.fixture
def studies():
    """Two studies with genes in another order, and one gene that only one has."""
    names = [f"gene{i}" for i in range(N_GENES)]
    first = study(700, 1, "a", names)
    second = study(500, 2, "b", names[::-1][:-1])  # lacks gene0
    second.obs["cell_type"] = second.obs["cell_type"].astype(object)
    second.obs.loc[second.obs_names[:20], "cell_type"] = None
    second.obs["cell_type"] = pd.Categorical(second.obs["cell_type"])
    return first, second


@pytest.fixture
def files(studies, tmp_path):
    first, second = studies
    first.write_h5ad(tmp_path / "first.h5ad")
    second.write_h5ad(tmp_path / "second.h5ad")
    return [tmp_path / "first.h5ad", tmp_path / "second.h5ad"]


needs_annbatch = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="annbatch needs Python 3.12 or newer"
)
