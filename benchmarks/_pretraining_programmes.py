"""Gene programmes for masks, found in the cells themselves: no licence, no download, no labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from _peers import log_normalise

if TYPE_CHECKING:
    from anndata import AnnData

N_PROGRAMMES = 40
FEWEST = 5


def programmes_of(adata: AnnData) -> dict[str, list[str]]:
    """Genes that rise and fall together: k-means of their loadings on principal components.

    The published programmes are cell-type signatures of MSigDB, which are not shipped here.

    Parameters
    ----------
    adata
        Raw counts, ``(n_cells, n_genes)``.

    Returns
    -------
    Genes by name of programme; each gene is in one, and those of fewer than `FEWEST` are left out.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    x = log_normalise(adata.X).toarray()
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-6)
    loadings = PCA(50, random_state=0).fit(x).components_.T
    found = KMeans(N_PROGRAMMES, n_init=3, random_state=0).fit_predict(loadings)
    genes = np.asarray(adata.var_names)
    groups = {f"module {k}": genes[found == k].tolist() for k in range(N_PROGRAMMES)}
    return {name: members for name, members in groups.items() if len(members) >= FEWEST}
