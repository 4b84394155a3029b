"""Time of training, prediction and the published network on a machine with other load.

Each job runs on one thread and on two, alone and beside programs that multiply matrices on all
cores, once with the threads that the package chooses and once with torch's own ("before"). Jobs
take turns in one process. Prints a table and writes ``results/busy.csv`` and ``busy.md``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _arguments import add_data
from _report import as_markdown
from _speed_clock import Run, time_once
from _speed_data import load_counts, repeat_cells
from _speed_network import batch, our_inference, our_network, our_stages, settle, whole
from _speed_predict import silence
from _table import Table

from scvi_sctab import SCTAB, datasets
from scvi_sctab.nn import sleeping_threads

HERE = Path(__file__).resolve().parent
LABELS, DONORS = "cell_type", "donor_id"
KEYS = ["job", "beside", "threads", "management"]
BEFORE, AFTER = "before", "after"
BUSY = """
import torch
a = torch.randn(1000, 1000)
a @ a
print("ready", flush=True)
while True:
    a @ a
"""
Context = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Job:
    """What is timed.

    Parameters
    ----------
    name
        Name in the table.
    call
        The job.
    has_context
        Whether the package chooses the threads of `call` by itself; a bare network is run in the
        context that it would be run in.
    """

    name: str
    call: Callable[[], object]
    has_context: bool


def model_jobs(n_epochs: int) -> list[Job]:
    """Training with the small preset, and prediction of the same cells."""
    adata = datasets.pbmc_kang18()
    SCTAB.setup_anndata(adata, labels_key=LABELS, donor_key=DONORS)
    trained = SCTAB(adata, preset="small")
    trained.train(max_epochs=1, enable_progress_bar=False)

    def train() -> None:
        SCTAB(adata, preset="small").train(max_epochs=n_epochs, enable_progress_bar=False)

    return [
        Job(f"train, small preset, {n_epochs} epochs", train, True),
        Job(f"predict, {adata.n_obs:,} cells", lambda: trained.predict(adata), True),
    ]


def network_jobs(data: Path, n_cells: int) -> list[Job]:
    """Inference and a training step of the published network, on one batch."""
    counts, labels = batch(str(data), n_cells)
    trained, network = our_network(counts.shape[1]), our_network(counts.shape[1])
    settle(trained, repeat_cells(load_counts(data), n_cells), 5)
    network.load_state_dict(trained.state_dict())
    # Networks of their own: inference is that of evaluation mode.
    return [
        Job("published network, inference", our_inference(trained, counts), False),
        Job("published network, step", whole(our_stages(network, counts, labels)), False),
    ]


@contextmanager
def managed_by(context: Context) -> Iterator[None]:
    """Let the package run what it runs in :func:`sleeping_threads` in another context."""
    users = [
        module
        for name, module in sys.modules.items()
        if name.startswith("scvi_sctab.")
        and name != "scvi_sctab.sparse._parallel"
        and getattr(module, "sleeping_threads", None) is sleeping_threads
    ]
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


def seconds(job: Job, threads: int, management: str) -> float:
    """Time a job once."""
    context: Context = sleeping_threads if management == AFTER else nullcontext
    torch.set_num_threads(threads)
    with managed_by(context), nullcontext() if job.has_context else context():
        return time_once(Run(job.name, job.call))


def measure(jobs: list[Job], beside: int, threads: list[int], repeats: int) -> list[dict]:
    """Rows of all jobs with one number of busy programs; ways to run a job take turns."""
    ways = [(n, management) for n in threads for management in (AFTER, BEFORE)]
    found = []
    with programs_beside(beside):
        for job in jobs:
            taken: dict[tuple[int, str], list[float]] = {way: [] for way in ways}
            for _ in range(repeats):
                for way in ways:
                    taken[way].append(seconds(job, *way))
            for way, values in taken.items():
                low, high = min(values), max(values)
                row = dict(zip(KEYS, (job.name, beside, *way), strict=True))
                row |= {"seconds": float(np.median(values)), "low": low, "high": high}
                found.append(row | {"runs": len(values)})
                print("  ".join(map(str, found[-1].values())), flush=True)
    return found


def table(rows: pd.DataFrame) -> str:
    """Seconds with torch's threads and with the package's, and how these compare to one thread."""
    wide = rows.pivot_table("seconds", ["job", "beside"], ["threads", "management"], sort=False)
    most = rows["threads"].max()
    shown = pd.DataFrame(
        {
            "1 thread of torch, s": wide[1, BEFORE].map("{:.2f}".format),
            f"{most} threads of torch, s": wide[most, BEFORE].map("{:.2f}".format),
            f"{most} threads of the package, s": wide[most, AFTER].map("{:.2f}".format),
            "package / 1 thread": (wide[most, AFTER] / wide[1, BEFORE]).map("{:.2f}".format),
        }
    )
    shown = shown.reset_index(level="beside").rename(columns={"beside": "programs beside"})
    shown["programs beside"] = shown["programs beside"].astype(str)
    return as_markdown(shown)


def parse_args() -> argparse.Namespace:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data(parser)
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder to write to")
    parser.add_argument("--beside", type=int, nargs="+", default=[0, 1, 3], help="busy programs")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="of training")
    parser.add_argument("--cells", type=int, default=2048, help="of a batch of the network")
    parser.add_argument("--jobs", nargs="+", default=[""], help="what their names begin with")
    parser.add_argument("--merge", action="store_true", help="keep other rows of an earlier run")
    parser.add_argument("--report-only", action="store_true", help="write the table of a run anew")
    return parser.parse_args()


def main() -> None:
    """Run the benchmark."""
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    saved = Table(args.out / "busy.csv", KEYS, args.merge or args.report_only)
    if not args.report_only:
        warnings.filterwarnings("ignore")
        silence()
        jobs = [*model_jobs(args.epochs), *network_jobs(args.data, args.cells)]
        jobs = [job for job in jobs if job.name.startswith(tuple(args.jobs))]
        for job in jobs:
            seconds(job, 1, AFTER)  # compiled kernels, caches
        for beside in args.beside:
            saved.add(measure(jobs, beside, args.threads, args.repeats))
    text = table(saved.rows)
    (args.out / "busy.md").write_text(text + "\n")
    print(f"\n{text}")


if __name__ == "__main__":
    main()
