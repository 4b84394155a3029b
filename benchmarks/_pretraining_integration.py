"""Part `integration`: joint latents of both sides of a mapping task, by scib-metrics.

The tasks, the other methods and the scores are those of ``mapping.py``, so its finished runs of PCA
and SCVI are read from ``mapping_integration.csv`` if that is in the same folder.
"""

from __future__ import annotations

import time
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from _mapping_integration import (
    TOTALS,
    Embedding,
    Timed,
    build_embeddings,
    embed_task,
    joint_counts,
)
from _mapping_report import plot_integration
from _mapping_tasks import FORWARD, iter_mapping_tasks
from _pretraining_ours import ENCODERS, missing, pretrain
from _pretraining_report import choose, table_of, tasks_table

if TYPE_CHECKING:
    from _mapping_tasks import MappingTask

PEERS = ("pca", "scvi")
OURS = ("mae", "autoencoder", "barlow", "byol")


def encode(task: MappingTask, seed: int, *, key: str) -> Timed:
    """An encoder trained on both sides without labels, as the SCVI beside it."""
    start = time.perf_counter()
    joint = joint_counts(task)
    latent = pretrain(joint, ENCODERS[key], seed).get_latent_representation(joint)
    return Timed(latent, time.perf_counter() - start)


def build_arms(cache: Path) -> dict[str, Embedding]:
    """Peers and ours by key."""
    arms = {e.key: e for e in build_embeddings(cache) if e.key in PEERS}
    for key in OURS:
        encoder = ENCODERS[key]
        run, reason = partial(encode, key=key), missing(encoder.model)
        arms[key] = Embedding(key, encoder.name, run, True, arms["pca"].missing or reason)
    return arms


def run(args: Namespace) -> None:
    """Run what the command line asks for, and report all rows."""
    table = table_of("integration", args)
    arms = {} if args.report_only else choose(build_arms(args.cache), args.only)
    tasks = [task for task in FORWARD[:2] if not args.tasks or task in args.tasks]
    for task in iter_mapping_tasks(Path(args.data), tasks) if arms else ():
        for arm in arms.values():
            for seed in args.seeds if arm.seeded else args.seeds[:1]:
                table.add(embed_task(task, [arm], [seed]))
    rows = with_finished(table.rows, args.out / "mapping_integration.csv", build_arms(args.cache))
    for metric in TOTALS if len(rows) else ():
        print(f"\n{tasks_table(rows, metric)}")
    if len(rows):
        plot_integration(rows, table.path.with_suffix(".png"))


def with_finished(rows: pd.DataFrame, path: Path, arms: dict[str, Embedding]) -> pd.DataFrame:
    """`rows`, and before them those of the peers that ``mapping.py`` ran and they lack."""
    if not path.exists() or rows.empty:
        return rows
    earlier = pd.read_csv(path)
    peers = {arms[key].name for key in PEERS} - set(rows["method"])
    kept = earlier[earlier["method"].isin(peers) & earlier["task"].isin(rows["task"])]
    return pd.concat([kept, rows], ignore_index=True)
