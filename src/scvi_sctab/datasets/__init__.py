"""Real data bundled with the package; nothing is downloaded.

The source and licence of each file are in ``datasets/README.md`` and ``adata.uns["provenance"]``.
"""

from __future__ import annotations

from importlib.resources import files

from anndata import AnnData, read_h5ad

__all__ = [
    "bulk_cell_lines_holik17",
    "cell_lines_tian19",
    "pancreas_baron16",
    "pancreas_panc8",
    "pbmc3k",
    "pbmc_kang18",
    "thp1_papalexi21",
]


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


def pancreas_panc8() -> AnnData:
    """Read cells of human islets from five laboratories, each with a technology of its own.

    They are cells of Grün et al. :cite:p:`Gruen16` (CEL-seq), Muraro et al. :cite:p:`Muraro16`
    (CEL-seq2), Lawlor et al. :cite:p:`Lawlor17` (Fluidigm C1), Segerstolpe et al.
    :cite:p:`Segerstolpe16` (Smart-seq2) and Baron et al. :cite:p:`Baron16` (inDrop).

    Returns
    -------
    Counts of 500 cells, 100 of each, and 2,000 variable genes (symbols; Ensembl ids in
    ``var["feature_id"]``); reads of Lawlor et al. and Segerstolpe et al., else molecules.
    ``obs``: ``cell_type`` (6 types), ``cell_type_ontology_term_id``, ``donor_id``,
    ``dataset_id``.
    """
    return _read("panc8_small_500.h5ad")


def pancreas_baron16() -> AnnData:
    """Read cells of human islets of four donors, sequenced by inDrop :cite:p:`Baron16`.

    Returns
    -------
    Raw counts of 175 cells and 12,474 genes with an ortholog in mice (symbols; Ensembl ids in
    ``var["feature_id"]``). ``obs``: ``cell_type`` (5 types), ``cell_type_ontology_term_id``,
    ``donor_id``. One cell is among those of :func:`pancreas_panc8`, too.
    """
    return _read("baron16_human_175.h5ad")


def thp1_papalexi21() -> AnnData:
    """Read a CRISPR knock-out screen in THP-1 cells :cite:p:`Papalexi21`.

    Returns
    -------
    Raw counts of 10,372 cells and 303 genes (symbols; Ensembl ids in ``var["feature_id"]``): nine
    of the targeted genes, the mitochondrial ones, and others drawn at random.
    ``obs``: ``perturbation`` (25 knock-outs and ``"control"``, up to 400 and 1,200 cells),
    ``guide_id``, ``batch`` (3 replicates), and ``total_counts``, the molecules of the whole
    transcriptome of a cell.
    """
    return _read("thp1_papalexi21.h5ad")


def cell_lines_tian19() -> AnnData:
    """Read cells of five lines of lung cancer, sequenced deeply by CEL-seq2 :cite:p:`Tian19`.

    Returns
    -------
    Raw counts of 100 cells and 11,533 genes (symbols; Ensembl ids in ``var["feature_id"]``).
    ``obs``: ``cell_line``, by genotype (20 cells each), and ``batch``.
    """
    return _read("cell_lines_tian19.h5ad")


def bulk_cell_lines_holik17() -> AnnData:
    """Read bulk RNA-seq of the lines of :func:`cell_lines_tian19` :cite:p:`Holik17`.

    Returns
    -------
    Read counts of 10 samples and 19,937 genes (symbols; Ensembl ids in ``var["feature_id"]``).
    ``obs``: ``cell_line`` (2 samples each).
    """
    return _read("bulk_cell_lines_holik17.h5ad")


def _read(name: str) -> AnnData:
    return read_h5ad(files("scvi_sctab.datasets") / name)
