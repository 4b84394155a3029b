"""Populations of a type that the reference lacks, in real and in simulated laboratories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from _shift_laboratories import LABEL
from sklearn.metrics import roc_auc_score

from scvi_sctab.benchmark import Laboratory, simulate_laboratory

if TYPE_CHECKING:
    from anndata import AnnData

    from scvi_sctab import SCTAB

Row = dict[str, Any]
KEYS = ["pair", "left_out", "laboratory", "seed"]
REAL = -1
# Of a population, from which on it is of the new type; up to which it is of known types.
_MOST, _FEW = 0.5, 0.3


def laboratories(query: AnnData, n_simulated: int) -> list[tuple[int, AnnData]]:
    """Return the query as it was measured, and as other laboratories would have measured it."""
    drawn = (Laboratory.draw(seed) for seed in range(n_simulated))
    return [
        (REAL, query),
        *(
            (seed, simulate_laboratory(query, laboratory, seed=seed))
            for seed, laboratory in enumerate(drawn)
        ),
    ]


def populations(model: SCTAB, query: AnnData, left_out: str) -> Row:
    """Compare the populations that are called novel with the truth."""
    cells = model.annotate(query, novel_populations=True, min_gene_overlap=0.05)
    large = cells["population"].notna().to_numpy()
    groups = cells["population"].astype(str)
    truth = query.obs[LABEL].to_numpy(str)
    new, known = truth == left_out, np.isin(truth, model.labels)
    table = model.get_novel_populations(query, groups, large, min_gene_overlap=0.05)
    by_group = pd.DataFrame({"new": new, "unknown": ~known}).groupby(groups.to_numpy()).mean()
    share = by_group.loc[table.index]
    is_new = (share["new"] > _MOST).to_numpy()
    is_known = (share["unknown"] < _FEW).to_numpy()
    used, novel = is_new | is_known, table["novel"].to_numpy(bool)
    compared = new | known
    return {
        "n_new_cells": int(new.sum()),
        "n_known": int(is_known.sum()),
        "n_new": int(is_new.sum()),
        "false": int(novel[is_known].sum()),
        "found": int(novel[is_new].sum()),
        "sd_novelty": float(table["novelty"][is_known].std()),
        "sd_excess": float(table["excess"][is_known].std()),
        "auroc": _auroc(is_new[used], table["score"].to_numpy()[used]),
        "auroc_of_cells": _auroc(new[compared], -cells["novelty_p_value"].to_numpy()[compared]),
        "auroc_of_score": _auroc(new[compared], cells["novelty_score"].to_numpy()[compared]),
    }


def markdown(rows: pd.DataFrame) -> str:
    """Format a line per pair, real and simulated laboratories apart."""
    lines = [
        "| pair | laboratories | populations: AUROC | new ones found | known ones called novel "
        "| cells: AUROC of p-value | of score |",
        "|---" * 7 + "|",
    ]
    kind = np.where(rows["laboratory"] == REAL, "real", "simulated")
    for (pair, name), block in rows.groupby(["pair", kind], sort=False):
        lines.append(_line(pair, name, block))
    for name in ("real", "simulated"):
        if (kind == name).any():
            lines.append(_line("**all**", name, rows[kind == name]))
    spread = [np.sqrt((rows[name] ** 2).mean()) for name in ("sd_novelty", "sd_excess")]
    lines += [
        "",
        f"Standard deviation among populations of known types of one query: novelty {spread[0]:.2f}, "
        f"excess {spread[1]:.2f}.",
    ]
    return "\n".join(lines) + "\n"


def _line(pair: str, kind: str, block: pd.DataFrame) -> str:
    means = [f"{block[name].mean():.3f}" for name in ("auroc", "auroc_of_cells", "auroc_of_score")]
    found = f"{block['found'].sum()} of {block['n_new'].sum()}"
    false = f"{block['false'].sum()} of {block['n_known'].sum()}"
    return f"| {pair} | {kind} | {means[0]} | {found} | {false} | {means[1]} | {means[2]} |"


def _auroc(truth: np.ndarray, score: np.ndarray) -> float:
    """Return NaN where there is only one kind."""
    there = ~np.isnan(score)
    both = truth[there].any() and not truth[there].all()
    return float(roc_auc_score(truth[there], score[there])) if both else np.nan
