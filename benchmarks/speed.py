"""Speed and memory of SCTAB and other methods, in turns on the same cells and threads.

    make bench-speed                                     # all parts, in an environment with the peers
    make bench-speed SPEED_FLAGS="--parts network --quick"

Each part replaces its rows of ``results/speed.csv``; the tables go to ``results/speed.md``.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path

from _arguments import add_data
from _timing import RESULTS, Row, Run, alternate, measure, rows, run_command, save

# isort: split
import numpy as np
import pandas as pd
import scvi
import torch
from _speed_methods import BATCH, N_GENES, load_cells, network, normalise, our_jobs, predict, train
from anndata import AnnData
from lightning.pytorch.callbacks import LambdaCallback

from scvi_sctab import SCTAB, datasets
from scvi_sctab.benchmark import markdown
from scvi_sctab.nn import sleeping_threads

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}
PACKAGE, TORCH = "of the package", "of torch"
BUSY = "import torch\na = torch.randn(1000, 1000)\nprint(flush=True)\nwhile True: a @ a"
# What CellTypist's documentation asks for, from disk to a table.
CELLTYPIST = """
import sys, celltypist, scanpy as sc
cells = sc.read_h5ad(sys.argv[1])
sc.pp.normalize_total(cells, target_sum=1e4)
sc.pp.log1p(cells)
celltypist.annotate(cells, model=sys.argv[2]).to_table(sys.argv[3])
"""


def set_up(preset: str) -> SCTAB:
    """An untrained model of the bundled cells."""
    cells = datasets.pbmc_kang18()
    SCTAB.setup_anndata(cells, labels_key="cell_type", donor_key="donor_id")
    return SCTAB(cells, preset=preset)


@contextmanager
def threads(number: int, whose: str) -> Iterator[None]:
    """Give torch some threads, and let the package manage them, or torch as it does by itself."""
    context: Callable[[], AbstractContextManager[None]]
    context = sleeping_threads if whose == PACKAGE else nullcontext
    users = [
        module
        for name, module in sys.modules.items()
        if name.startswith("scvi_sctab.") and name != "scvi_sctab.sparse._parallel"
        and getattr(module, "sleeping_threads", None) is sleeping_threads
    ]  # fmt: skip
    torch.set_num_threads(number)
    for module in users:
        module.sleeping_threads = context  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in users:
            module.sleeping_threads = sleeping_threads  # type: ignore[attr-defined]


@contextmanager
def programs_beside(number: int) -> Iterator[None]:
    """Run programs that multiply matrices on all cores."""
    command = [sys.executable, "-W", "ignore", "-c", BUSY]
    programs = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(number)]
    try:
        for program in programs:
            if not program.stdout or not program.stdout.readline():
                raise RuntimeError("A program that was to keep the machine busy has ended.")
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def busy(args: argparse.Namespace) -> list[Row]:
    """Training and prediction beside other programs, by torch's threads and by the package's."""
    epochs, n_cells = (1, 256) if args.quick else (3, BATCH)
    trained = set_up("small")
    trained.train(max_epochs=1, **QUIET)
    own = trained.adata
    cells = load_cells(args.data, n_cells)
    # Networks of their own: inference is that of evaluation mode.
    jobs = {
        f"train, small preset, {epochs} epochs": lambda: SCTAB(own, "small").train(
            epochs, **QUIET
        ),
        f"predict, {own.n_obs:,} cells": lambda: trained.predict(own),
        "published network, inference": our_jobs(cells, steps=5)["inference"],
        "published network, step": our_jobs(cells, steps=5)["training step"],
    }
    ways = [(1, TORCH), (2, TORCH), (2, PACKAGE)]

    def run(job: Callable[[], object], number: int, whose: str) -> None:
        # A bare network is run in the context that a model would run it in.
        with threads(number, whose), sleeping_threads() if whose == PACKAGE else nullcontext():
            job()

    found: list[Row] = []
    for beside in (0, 1) if args.quick else (0, 1, 3):
        with programs_beside(beside):
            for name, job in jobs.items():
                runs = [Run(f"{n} thread{'s' * (n > 1)} {whose}", partial(run, job, n, whose))
                        for n, whose in ways]  # fmt: skip
                seconds = alternate(runs, args.turns)
                found += rows(f"{name}, {beside} beside", "time", "s", seconds)
    return found


def train_on(processes: int, epochs: int) -> None:
    """Train and print the seconds from the first step to the last; Lightning starts the others."""
    marks: list[float] = []
    mark = lambda *_: marks.append(time.perf_counter())  # noqa: E731
    scvi.settings.seed = 0
    set_up("paper").train(
        epochs, batch_size=1024 // processes, devices=processes,
        callbacks=[LambdaCallback(on_train_start=mark, on_train_end=mark)],
        **QUIET, **({"strategy": "ddp"} if processes > 1 else {}),
    )  # fmt: skip
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print("seconds", marks[1] - marks[0], flush=True)


def devices(args: argparse.Namespace) -> list[Row]:
    """Training on two processes of one thread beside one of two threads, the same cells a step."""
    epochs, seconds = 2 if args.quick else 10, {"one process": [], "two processes": []}
    for _ in range(1 if args.quick else 3):
        for number, taken in enumerate(seconds.values(), 1):
            command = [sys.executable, __file__, "--processes", str(number), str(epochs)]
            environment = os.environ | {"OMP_NUM_THREADS": str(2 // number)}
            done = subprocess.run(
                command, check=True, capture_output=True, text=True, env=environment
            )
            taken.append(float(done.stdout.partition("seconds ")[2].split()[0]))
    return rows(f"{epochs} epochs of the paper preset", "time", "s", seconds)


def commands_in_turns(case: str, commands: dict[str, list[str | Path]], turns: int) -> list[Row]:
    """Time, CPU time and peak memory of commands on one thread."""
    taken = [{name: run_command(command, OMP_NUM_THREADS="1") for name, command in commands.items()}
             for _ in range(turns)]  # fmt: skip
    found: list[Row] = []
    for quantity, unit in (("CPU time", "s"), ("time", "s"), ("peak memory", "MiB")):
        samples = {name: [turn[name][quantity] for turn in taken] for name in commands}
        found += rows(case, quantity, unit, samples)
    return found


def make_files(folder: str, n_cells: int) -> None:
    """Write cells with the genes of scTab, and a CellTypist model of Kang's cells."""
    import celltypist

    cells = datasets.pbmc3k()
    counts = cells.X.tocsr().astype(np.float32)
    counts.resize(cells.n_obs, N_GENES)
    names = [*cells.var_names, *(f"other{i}" for i in range(N_GENES - cells.n_vars))]
    query = AnnData(counts[np.random.default_rng(0).integers(cells.n_obs, size=n_cells)])
    query.var_names, query.obs_names = names, [f"cell{i}" for i in range(n_cells)]
    query.write_h5ad(Path(folder) / "query.h5ad")
    reference = normalise(datasets.pbmc_kang18())
    np.random.seed(0)  # noqa: NPY002, the SGD of CellTypist draws from the global state
    trained = celltypist.train(reference, "cell_type", feature_selection=True, n_jobs=1)
    trained.write(str(Path(folder) / "celltypist.pkl"))


def command_line(args: argparse.Namespace) -> list[Row]:
    """Start of the commands, and 100,000 cells from disk to tables, beside CellTypist's."""
    ours, peer = (Path(sys.executable).with_name(name) for name in ("scvi-sctab", "celltypist"))
    start: dict[str, list[str | Path]] = {
        "scvi-sctab --help": [ours, "--help"],
        "scvi-sctab models list": [ours, "models", "list"],
        "celltypist --help": [peer, "--help"],
    }
    for command in start.values():  # compiled files are there from now on
        run_command(command)
    found = commands_in_turns("start", start, 1 if args.quick else 5)
    n_cells = 1000 if args.quick else 100_000
    with tempfile.TemporaryDirectory() as folder:
        measure(make_files, [], folder=folder, n_cells=n_cells)
        query, model = (Path(folder) / name for name in ("query.h5ad", "celltypist.pkl"))
        out = ["-o", Path(folder) / "out", "--overwrite", "--threads", "1", "--quiet"]
        jobs = {"scvi-sctab annotate": [ours, "annotate", query, "-m", "pbmc", *out],
                "CellTypist": [sys.executable, "-c", CELLTYPIST, query, model, folder]}  # fmt: skip
        return found + commands_in_turns(f"{n_cells:,} cells", jobs, 1 if args.quick else 3)


PARTS = {"network": network, "predict": predict, "train": train, "busy": busy, "devices": devices,
         "command_line": command_line}  # fmt: skip
TITLES = {
    "network": f"The published network, batches of {BATCH:,} cells, {N_GENES:,} genes",
    "predict": "Cells to labels, 164 types",
    "train": "Training on the bundled eight donors",
    "devices": "Training on two processes beside one",
    "command_line": "The command line, one thread",
}
SHOWN = {"time per batch": "cells/s", "time": "seconds", "time of training": "seconds",
         "cells per second": "cells/s", "CPU time": "CPU seconds"}  # fmt: skip


def number(value: float) -> str:
    """Three significant digits, no exponent."""
    if not np.isfinite(value):
        return ""
    return f"{value:,.{max(0, 2 - int(np.floor(np.log10(abs(value)))))}f}"


def table(part: str, runs: pd.DataFrame) -> str:
    """A row per method, a column per quantity; ratios are those of the first quantity."""
    memory = "memory, MiB"
    if part == "network":
        memory = "peak memory, MiB"
        sizes = runs["case"].str.extract(r"^batch of ([\d,]+)")[0].dropna()
        # Seconds of a batch as cells per second; the ratio remains that of the time.
        speed = int(sizes.iloc[0].replace(",", "")) / runs["median"]
        median = speed.where(runs["quantity"] == "time per batch", runs["median"])
        runs = runs.assign(median=median, case=runs["case"].str.rpartition(", ")[2])
    runs = runs.assign(name=runs["method"])
    if runs["case"].nunique() > 1:
        runs["name"] = runs["case"] + ", " + runs["method"]
    wide = runs.pivot_table("median", "name", "quantity", sort=False, dropna=False)
    quantities = list(dict.fromkeys(runs["quantity"]))
    ratios = runs[runs["quantity"] == quantities[0]].set_index("name")["ratio"]
    wide = wide[quantities].rename(columns=SHOWN | {"peak memory": memory})
    wide.insert(1, "times as long", ratios)
    return markdown(wide.map(number).rename_axis(""))


def busy_table(runs: pd.DataFrame) -> str:
    """Seconds by job and programs beside, and the package's over one thread of torch."""
    runs = runs.assign(job=runs["case"].str.rpartition(", ")[0],
                       beside=runs["case"].str.extract(r"(\d+) beside$")[0])  # fmt: skip
    wide = runs.pivot_table("median", ["job", "beside"], "method", sort=False)
    one, two, package = "1 thread of torch", "2 threads of torch", "2 threads of the package"
    shown = wide[[one, two, package]].add_suffix(", s")
    shown["package / 1 thread"] = wide[package] / wide[one]
    shown = shown.map("{:.2f}".format).reset_index("beside")
    return markdown(shown.rename(columns={"beside": "programs beside"}))


def report(runs: pd.DataFrame) -> str:
    """All tables, between marks by which the documentation includes them."""
    text = []
    for part in [part for part in PARTS if part in set(runs["part"])]:
        of_part = runs[runs["part"] == part]
        title = [f"**{TITLES[part]}**", ""] if part in TITLES else []
        body = busy_table(of_part) if part == "busy" else table(part, of_part)
        text += [f"<!-- {part} -->", *title, body, ""]
    return "\n".join(text)


def main() -> None:
    """Run the parts, and write their rows and the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    add_data(parser)
    parser.add_argument("--out", type=Path, help="default: results, --quick: a temporary folder")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--report-only", action="store_true", help="the tables of earlier runs")
    parser.add_argument("--processes", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.processes:
        train_on(*args.processes)
        return
    temporary = Path(tempfile.gettempdir()) / "scvi-sctab-speed"
    out = args.out or (temporary if args.quick else RESULTS)
    out.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore")
    for name in ("scvi", "lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for part in () if args.report_only else args.parts:
        print(part, flush=True)
        save(part, PARTS[part](args), out / "speed.csv")
    text = report(pd.read_csv(out / "speed.csv"))
    (out / "speed.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\nwrote to {out}")


if __name__ == "__main__":
    main()
