"""Guarantees of surgery, measured on the reference's own cells and on its state dict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from _mapping_sctab import SURGERY, Mapped, map_query

if TYPE_CHECKING:
    from _mapping_tasks import MappingTask

COLUMNS = {
    "probability_change": "{:.1e}",
    "tensors_changed": "{:.0f}",
    "trained": "{:.0f}",
    "trained_share": "{:.4f}",
    "labels_changed": "{:.3f}",
    "train_seconds": "{:.2f}",
}
"""Columns of the table, and how they are written."""


def n_changed(before: dict[str, torch.Tensor], run: Mapped) -> int:
    """Tensors of the reference's state dict, buffers included, that are not what they were.

    Of a tensor that grew, the part that the reference had counts.
    """
    grown = run.model.query_record.new_entries
    changed = 0
    for name, after in run.model.module.state_dict().items():
        if name not in before:
            continue
        if after.shape != before[name].shape:
            new = grown[name]
            old = torch.tensor(sorted(set(range(after.shape[new.dim])) - set(new.positions)))
            after = after.index_select(new.dim, old)
        changed += not torch.equal(after, before[name])
    return changed


def check_task(
    task: MappingTask, kinds: list[str], seeds: list[int], *, cache: Path
) -> list[dict[str, object]]:
    """One row per kind of reference and seed.

    Parameters
    ----------
    task
        The task.
    kinds
        Keys of `_mapping_sctab.SURGERY`.
    seeds
        The seeds.
    cache
        Folder of trained references.
    """
    rows: list[dict[str, object]] = []
    print(task.name, flush=True)
    for kind in kinds:
        for seed in seeds:
            run = map_query(task, seed, kind, cache=cache)
            reference = run.reference.model
            own = reference.predict(soft=True)
            mapped = run.model.predict(reference.adata, soft=True)[own.columns]
            report = run.model.surgery_report()
            row = {
                "method": SURGERY[kind],
                "task": task.name,
                "family": task.family,
                "seed": seed,
                "probability_change": float((mapped - own).abs().to_numpy().max()),
                "tensors": len(run.before),
                "tensors_changed": n_changed(run.before, run),
                "parameters": report.n_parameters,
                "trained": report.n_trained,
                "trained_share": report.trained_share,
                "labels_changed": report.changed_labels,
                "reference_kept": report.reference_kept,
                "train_seconds": run.train_seconds,
            }
            rows.append(row)
            text = "  ".join(f"{key} {form.format(row[key])}" for key, form in COLUMNS.items())
            print(f"  {row['method']:<24} seed {seed}  {text}", flush=True)
    return rows
