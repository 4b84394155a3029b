"""Training on two processes beside one: the same cells per step, in turns.

    .venv/bin/python benchmarks/devices.py

Ten epochs of the paper preset on the bundled Kang cells, two processes of 512 cells a step and one
of 1,024, on the CPU, one thread a process for two and two for one. Writes
``results/devices.csv``, a row per run, and prints the ratio of the medians.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
from _table import Table

RESULTS = Path(__file__).resolve().parent / "results"
BATCH, EPOCHS, THREADS = 1024, 10, 2


def train(devices: int) -> None:
    """Train once, and let the first process print the seconds from the first step to the last."""
    import scvi
    from lightning.pytorch.callbacks import LambdaCallback

    from scvi_sctab import SCTAB, datasets

    scvi.settings.seed = 0
    reference = datasets.pbmc_kang18()
    SCTAB.setup_anndata(reference, labels_key="cell_type", donor_key="donor_id")
    model = SCTAB(reference, preset="paper")
    several = {"strategy": "ddp"} if devices > 1 else {}
    marks: list[float] = []

    def mark(*_: object) -> None:
        marks.append(time.perf_counter())

    # Without the start of the second process, which takes as long as the imports.
    clock = LambdaCallback(on_train_start=mark, on_train_end=mark)
    model.train(
        max_epochs=EPOCHS,
        batch_size=BATCH // devices,
        devices=devices,
        accelerator="cpu",
        enable_progress_bar=False,
        callbacks=[clock],
        **several,
    )
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"seconds {marks[1] - marks[0]}", flush=True)


def measure(devices: int) -> float:
    """Train in a process of its own, which Lightning starts again for each further device."""
    threads = {"OMP_NUM_THREADS": str(THREADS // devices)}
    command = [sys.executable, __file__, "--run", str(devices)]
    found = subprocess.run(
        command, env=os.environ | threads, check=True, capture_output=True, text=True
    )
    line = next(line for line in found.stdout.splitlines() if line.startswith("seconds "))
    return float(line.split()[1])


def main() -> None:
    """Run the benchmark, or one training of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--run", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        train(args.run)
        return
    table = Table(RESULTS / "devices.csv", ["turn", "devices"])
    for turn in range(args.turns):
        for devices in (1, 2):
            table.add([{"turn": turn, "devices": devices, "seconds": measure(devices)}])
            print(f"turn {turn}, {devices} processes", flush=True)
    seconds = pd.read_csv(table.path).pivot(index="turn", columns="devices", values="seconds")
    ratio = seconds[2].median() / seconds[1].median()
    print(f"{seconds.to_string()}\ntwo processes / one: {ratio:.2f}")


if __name__ == "__main__":
    main()
