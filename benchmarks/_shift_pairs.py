"""Pairs of the benchmark of shift: blood cells of five studies under common labels.

The split of the pairs was written before any of them was run: what is chosen in this project is
chosen on ``CHOOSING``; ``OPENED_ONCE`` is for the report. A pair is opened once by its query: no
method saw cells of the 10x 10k study, or of OneK1K as a query, before.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import scvi
from anndata import AnnData, concat, read_h5ad

from scvi_sctab import SCTAB
from scvi_sctab.benchmark import Laboratory, simulate_laboratory

LABEL, DONOR, STUDY = "label", "donor", "study"
MIN_SHARED_TYPES, MIN_GENES = 4, 50
MIN_NEW_CELLS = 20
REAL = -1
"""Number of the laboratory that measured the query."""

FILES = {
    "kang": "kang18_ifnb_2800",
    "kang12k": "kang18_ctrl_12k_1287genes",
    "pbmc3k": "pbmc3k_labelled",
    "cite5k": "cite_pbmc_5k_protein_v3_200",
    "cite10k": "cite_pbmc_10k_protein_v3_200",
    "onek1k": "onek1k_18k_20donors_100genes",
}
# Cells of these are partly the same.
SAME_CELLS = {"kang", "kang12k"}
# Two hundred cells are too few to hold out fifty: they are queries only.
REFERENCES = ("kang", "kang12k", "pbmc3k", "onek1k")

# Fixed before any run, as the tasks of `_tasks.py` are.
SAME_STUDY = (
    ("kang", ("1244", "1016")),
    ("kang", ("1256", "107")),
    ("kang12k", ("1244", "1016")),
    ("kang12k", ("1015", "101")),
    ("onek1k", ("indiv4", "indiv8", "indiv12", "indiv16", "indiv20")),
)

TYPES = {
    "CL:0000624": "CD4 T",
    "CL:0000895": "CD4 T",
    "CL:0000897": "CD4 T",
    "CL:0000905": "CD4 T",
    "CL:0000625": "CD8 T",
    "CL:0000913": "CD8 T",
    "CL:0000236": "B",
    "CL:0000787": "B",
    "CL:0000623": "NK",
    "CL:0001054": "CD14 monocyte",
    "CL:0000860": "CD14 monocyte",
    "CL:0002396": "CD16 monocyte",
    "CL:0000875": "CD16 monocyte",
    "CL:0000451": "DC",
    "CL:0000556": "megakaryocyte",
    "CL:0000233": "megakaryocyte",
    "CL:0000784": "pDC",
    "CL:0000764": "erythroid",
    "CL:0000786": "plasma",
}
"""Common label of each term; cells of other terms, such as *T cell*, are left out."""
FINE_TYPES = TYPES | {"CL:0000895": "CD4 naive T", "CL:0000897": "CD4 memory T"}


@dataclass(frozen=True)
class Pair:
    """A reference of one or more studies, and a query of another.

    `donors` are those of the query, if it is of the same study as the reference, which goes without
    them. `fine`: naive and memory CD4 T cells are apart. `left_out`: label that the reference lacks.
    """

    references: tuple[str, ...]
    query: str
    fine: bool = False
    donors: tuple[str, ...] = ()
    left_out: str = ""

    @property
    def name(self) -> str:
        """Name in the tables."""
        if self.donors:
            return f"{self.query}, donors {', '.join(self.donors[:2])}"
        return f"{' + '.join(self.references)} → {self.query}{', fine' if self.fine else ''}"

    @property
    def is_opened_once(self) -> bool:
        """Whether the pair is for the report only."""
        return self.query in ("cite10k", "onek1k")

    @property
    def kind(self) -> str:
        """Block of the report."""
        if self.donors:
            return "same study"
        n_studies = "two studies" if len(self.references) > 1 else "one study"
        return f"{n_studies}, {'opened once' if self.is_opened_once else 'for choosing'}"


@cache
def laboratory(folder: Path, name: str, fine: bool = False) -> AnnData:
    """Read a study with the common labels, a donor and the study in ``obs``."""
    adata = read_h5ad(folder / f"{FILES[name]}.h5ad")
    label = adata.obs["cell_type_ontology_term_id"].astype(str)
    label = label.map(FINE_TYPES if fine else TYPES)
    adata = adata[label.notna().to_numpy()]
    obs = pd.DataFrame(
        {
            LABEL: label.dropna().to_numpy(str),
            DONOR: (name + " " + adata.obs["donor_id"].astype(str)).to_numpy(),
            STUDY: name,
        },
        index=name + " " + adata.obs_names,
    )
    return AnnData(adata.X.copy(), obs=obs, var=pd.DataFrame(index=adata.var_names))


def reference_of(folder: Path, pair: Pair) -> AnnData:
    """Join the studies of the reference over their common genes, and those of a small panel."""
    parts = [laboratory(folder, name, pair.fine) for name in pair.references]
    if pair.donors:
        (own,) = parts
        return own[~_of_donors(own, pair)].copy()
    joined = concat(parts, join="inner") if len(parts) > 1 else parts[0]
    query = laboratory(folder, pair.query, pair.fine)
    if query.n_vars < joined.n_vars / 2:
        joined = joined[:, joined.var_names.isin(query.var_names)]
    return joined[joined.obs[LABEL] != pair.left_out].copy()


def query_of(folder: Path, pair: Pair) -> AnnData:
    """Return the query, with its true labels."""
    query = laboratory(folder, pair.query, pair.fine)
    return query[_of_donors(query, pair)].copy() if pair.donors else query.copy()


def _of_donors(adata: AnnData, pair: Pair) -> np.ndarray:
    return adata.obs[DONOR].isin([f"{pair.query} {donor}" for donor in pair.donors]).to_numpy()


def _shares_enough(folder: Path, pair: Pair) -> bool:
    reference, query = reference_of(folder, pair), query_of(folder, pair)
    n_types = len(np.intersect1d(reference.obs[LABEL], query.obs[LABEL]))
    overlap = reference.var_names.isin(query.var_names).mean()
    enough_genes = overlap >= 0.5 and reference.n_vars >= MIN_GENES
    return n_types >= MIN_SHARED_TYPES and enough_genes


def pairs(folder: Path) -> list[Pair]:
    """Return every pair that shares enough types and genes, references of one study first."""
    single = [
        Pair((reference,), query)
        for reference in REFERENCES
        for query in FILES
        if query != reference and not {query, reference} <= SAME_CELLS
    ]
    fine = [Pair(("kang",), "pbmc3k", True), Pair(("pbmc3k",), "kang", True)]
    joined = [
        Pair(references, query)
        for references in (("kang", "pbmc3k"), ("kang12k", "pbmc3k"), ("kang", "onek1k"))
        for query in FILES
        if query not in references and not any({query, r} <= SAME_CELLS for r in references)
    ]
    across = [pair for pair in single + fine + joined if _shares_enough(folder, pair)]
    return across + [Pair((name,), name, donors=donors) for name, donors in SAME_STUDY]


def without_each_type(folder: Path) -> list[Pair]:
    """Return pairs of large studies whose reference lacks a type that the query has."""
    found = []
    for reference, query in (("kang", "pbmc3k"), ("kang12k", "pbmc3k"), ("pbmc3k", "kang")):
        of_query = laboratory(folder, query).obs[LABEL].value_counts()
        of_reference = set(laboratory(folder, reference).obs[LABEL])
        found += [
            Pair((reference,), query, left_out=label)
            for label, n_cells in sorted(of_query.items())
            if label in of_reference and n_cells >= MIN_NEW_CELLS
        ]
    return found


def measured_again(query: AnnData, number: int, *, sorts: bool) -> AnnData:
    """Return the query as it was measured, or as a simulated laboratory would have measured it."""
    if number == REAL:
        return query
    laboratory = Laboratory.draw(number, sorted(query.obs[LABEL].unique()) if sorts else ())
    return simulate_laboratory(query, laboratory, labels_key=LABEL, seed=number)


def trained(
    folder: Path,
    pair: Pair,
    seed: int,
    models: Path,
    *,
    across: bool = False,
    batches: bool = False,
) -> SCTAB:
    """Return the model of a pair's reference, from the folder of models if it is there.

    With ``across``, it is calibrated across the studies of the reference; with ``batches``, it is
    conditioned on the donors, so that queries can be mapped.
    """
    reference = reference_of(folder, pair)
    kind = "-fine" * pair.fine + "".join(f"-{donor}" for donor in pair.donors)
    kind += f"-without-{pair.left_out}" * bool(pair.left_out)
    name = f"{'+'.join(pair.references)}-{reference.n_vars}{kind}-{seed}"
    path = models / (name + "-across" * across + "-batches" * batches)
    if (path / "model.safetensors").exists():
        return SCTAB.load(str(path), reference)
    model = trained(folder, pair, seed, models) if across else None
    scvi.settings.seed = seed
    if model is None:
        batch_key = DONOR if batches else None
        SCTAB.setup_anndata(reference, labels_key=LABEL, batch_key=batch_key, donor_key=DONOR)
        model = SCTAB(reference)
        model.train(enable_progress_bar=False)
    else:
        model.calibrate_across(STUDY, enable_progress_bar=False)
    models.mkdir(parents=True, exist_ok=True)
    model.save(str(path), save_anndata=False, overwrite=True)
    return model
