"""Real data bundled with the package; nothing is downloaded.

The source and licence of each file are in ``datasets/README.md`` and ``adata.uns["provenance"]``.
"""

from __future__ import annotations

from importlib.resources import files

from anndata import AnnData, read_h5ad

__all__ = ["pbmc3k", "pbmc_kang18"]


def pbmc_kang18() -> AnnData:
    """Read PBMCs of eight donors with and without interferon beta :cite:p:`Kang18`.

    Returns
    -------
    Raw counts of 2,800 cells and 14,053 genes (symbols; Ensembl ids in ``var["feature_id"]``).
    ``obs``: ``cell_type`` (13 clusters), ``cell_type_ontology_term_id``, ``donor_id``,
    ``condition``.
    """
    return _read("kang18_ifnb_2800.h5ad")


def pbmc3k() -> AnnData:
    """Read PBMCs of one donor, from another laboratory :cite:p:`Zheng17`.

    Returns
    -------
    Raw counts of 2,638 cells and 13,714 genes (symbols; Ensembl ids in ``var["feature_id"]``).
    ``obs``: ``cell_type`` (9 clusters), ``cell_type_ontology_term_id``.
    """
    return _read("pbmc3k_labelled.h5ad")


def _read(name: str) -> AnnData:
    return read_h5ad(files("scvi_sctab.datasets") / name)
