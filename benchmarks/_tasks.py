"""Tasks of the benchmarks: fixed splits of real data sets, read when a run needs them.

No split, pair or direction was chosen by its result: the donor pairs and the held-out lists are
fixed, have every donor of Kang et al. exactly once, and every fourth donor of OneK1K.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from anndata import AnnData, read_h5ad

from scvi_sctab.benchmark import Split, Task

DONOR_KEY, LABEL_KEY, BATCH_KEY = "donor_id", "benchmark_label", "benchmark_batch"
TERM_KEY = "cell_type_ontology_term_id"

KANG = "kang18_ctrl_12k_1287genes.h5ad"
BUNDLED = "kang18_ifnb_2800.h5ad"
PBMC3K = "pbmc3k_labelled.h5ad"
ONEK1K = "onek1k_18k_20donors_100genes.h5ad"
CHEMISTRIES = "pbmc_10x_3chem_savercat.h5ad"
CELL_LINES = "cell_lines_mixology_celseq2_dropseq.h5ad"
PANCREAS = "pancreas_panc8_small_500.h5ad"

KANG_DONOR_PAIRS = (("1244", "1016"), ("1015", "101"), ("1256", "107"), ("1488", "1039"))
BUNDLED_DONORS = ("1244", "1016")
ONEK1K_DONORS = ("indiv4", "indiv8", "indiv12", "indiv16", "indiv20")
UMI_PROTOCOLS = ("celseq", "celseq2", "indrop")

# Blood holds platelets, not whole megakaryocytes: what Kang et al. and Seurat call
# "Megakaryocytes"/"Mk" and what the pbmc3k tutorial calls "Platelet" are the same PPBP+ PF4+
# cells under two names, so the two terms are one class here.
PLATELETS = {"CL:0000233": "CL:0000556"}
# Kang et al. have one CD4 T class; pbmc3k splits it into naive and memory.
CD4_SUBSETS = {"CL:0000895": "CL:0000624", "CL:0000897": "CL:0000624"}

Sides = tuple[AnnData, AnnData]


def read(
    folder: Path,
    name: str,
    labels: str = "cell_type",
    merge: Mapping[str, str] | None = None,
    batch: Iterable[str] = (DONOR_KEY,),
) -> AnnData:
    """Read a file; labels, replaced by `merge`, donors and joined `batch` get columns of their own."""
    path = folder / name
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing; pass the folder of the data sets with --data or SCVI_SCTAB_DATA."
        )
    adata = read_h5ad(path)
    adata.obs[DONOR_KEY] = adata.obs[DONOR_KEY].astype(str)
    columns = [adata.obs[column].astype(str) for column in batch]
    adata.obs[BATCH_KEY] = columns[0].str.cat(columns[1:], sep="_")
    adata.obs[LABEL_KEY] = adata.obs[labels].astype(str).replace(dict(merge or {}))
    return adata


def split(reference: AnnData, query: AnnData) -> Split:
    """Cells of a task, the labels of the query apart."""
    return Split(reference, query, query.obs[LABEL_KEY].to_numpy(dtype=str))


def hold_out(adata: AnnData, donors: Iterable[str]) -> Sides:
    """Reference without `donors`, and the cells of `donors`."""
    held_out = adata.obs[DONOR_KEY].isin([*donors]).to_numpy()
    return adata[~held_out].copy(), adata[held_out].copy()


def task_of(name: str, sides: Callable[[], Sides], family: str = "", batch: bool = False) -> Task:
    """Task whose cells `sides` reads; with `batch`, methods see the batches."""
    return Task(
        name,
        lambda seed: split(*sides()),
        family or name,
        labels_key=LABEL_KEY,
        donor_key=DONOR_KEY,
        batch_key=BATCH_KEY if batch else None,
    )


def donor_tasks(folder: Path) -> list[Task]:
    """Donors of Kang et al., two at a time."""
    return [
        task_of(
            f"kang donors {'+'.join(pair)}",
            lambda pair=pair: hold_out(read(folder, KANG), pair),
            "kang donors",
        )
        for pair in KANG_DONOR_PAIRS
    ]


def accuracy_tasks(folder: Path) -> list[Task]:
    """Unseen donors and other studies."""
    others = {
        "kang -> pbmc3k": partial(_kang_pbmc3k, folder),
        "bundled donors": lambda: hold_out(read(folder, BUNDLED), BUNDLED_DONORS),
        "bundled -> pbmc3k": partial(_bundled_pbmc3k, folder),
        "onek1k donors": lambda: hold_out(read(folder, ONEK1K), ONEK1K_DONORS),
    }
    return [*donor_tasks(folder), *(task_of(name, sides) for name, sides in others.items())]


def mapping_tasks(folder: Path) -> list[Task]:
    """Pairs that differ in their technical batches; no batch is on both sides."""
    return [task_of(name, partial(sides, folder), batch=True) for name, sides in _PAIRS.items()]


def _kang_pbmc3k(folder: Path) -> Sides:
    """All control cells of Kang et al. and pbmc3k; 8 terms, naive and memory CD4 T as one."""
    query = read(folder, PBMC3K, TERM_KEY, CD4_SUBSETS | PLATELETS)
    return read(folder, KANG, TERM_KEY), query


def _bundled_pbmc3k(folder: Path) -> Sides:
    """The bundled cells of both conditions and pbmc3k; naive and memory CD4 T apart.

    Types that only the reference holds (activated T, pDC, erythroid) stay in it, as in real use, and
    calling them is an error. The other way round they are left out of the score.
    """
    reference = read(folder, BUNDLED, TERM_KEY, batch=(DONOR_KEY, "condition"))
    return reference, read(folder, PBMC3K, TERM_KEY, PLATELETS)


def _ctrl_stim(folder: Path) -> Sides:
    """The bundled cells, 13 labels: control, stimulated. The 8 donors are on both sides."""
    adata = read(folder, BUNDLED, batch=(DONOR_KEY, "condition"))
    control = adata.obs["condition"].eq("ctrl").to_numpy()
    return adata[control].copy(), adata[~control].copy()


def _chemistries(folder: Path) -> Sides:
    """10x 3' v2, and 10x 3' v3 with 5' v1: one donor each; 3 labels."""
    adata = read(folder, CHEMISTRIES, batch=("batch",))
    v2 = adata.obs["batch"].eq("V2").to_numpy()
    return adata[v2].copy(), adata[~v2].copy()


def _cell_lines(folder: Path) -> Sides:
    """CEL-seq2 (5 lines) and Drop-seq (3 lines), cells that demuxlet calls singlets.

    In the file a donor is a line, that is, a label. The plate stands for the donor here, so that
    no method that holds out donors holds out labels.
    """
    adata = read(folder, CELL_LINES, batch=("batch",))
    adata.obs[DONOR_KEY] = adata.obs[BATCH_KEY]
    single = adata.obs["demuxlet_cls"].eq("SNG").to_numpy()
    celseq2 = adata.obs["assay"].eq("CEL-seq2").to_numpy()
    return _known_types(adata[single & celseq2].copy(), adata[single & ~celseq2].copy())


def _pancreas(folder: Path) -> Sides:
    """CEL-seq, CEL-seq2 and inDrop (UMI), and Smart-seq2 and Fluidigm C1 (reads)."""
    adata = read(folder, PANCREAS, batch=("batch",))
    umi = adata.obs["dataset_id"].isin(UMI_PROTOCOLS).to_numpy()
    return _known_types(adata[umi].copy(), adata[~umi].copy())


def _known_types(reference: AnnData, query: AnnData) -> Sides:
    """The query without cells of types that the reference lacks."""
    return reference, query[query.obs[LABEL_KEY].isin(reference.obs[LABEL_KEY].unique())].copy()


_PAIRS: dict[str, Callable[[Path], Sides]] = {
    "kang ctrl -> stim": _ctrl_stim,
    "kang -> pbmc3k": _kang_pbmc3k,
    "bundled -> pbmc3k": _bundled_pbmc3k,
    "10x v2 -> v3, 5'": _chemistries,
    "cell lines CEL-seq2 -> Drop-seq": _cell_lines,
    "pancreas, UMI -> full length": _pancreas,
}
