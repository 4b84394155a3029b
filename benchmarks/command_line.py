"""Start, speed and memory of the command line beside CellTypist's, in turns.

    benchmarks/celltypist_env.sh
    .venv/bin/python benchmarks/command_line.py start
    .venv/bin/python benchmarks/command_line.py annotate --folder made_command_line

Each command is a process of its own, on one thread. ``annotate`` makes a file of 100,000 cells and
19,331 genes of the bundled PBMC 3k, some 900 MB, and a CellTypist model of Kang's cells; both
annotate it from disk, CellTypist after normalising it in the same process. Prints a table and writes
``results/command_line.csv``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import _speed_threads
import pandas as pd
from _report import as_markdown
from _speed_memory import peak
from _table import Table

HERE = Path(__file__).resolve().parent
OURS = Path(sys.executable).with_name("scvi-sctab")
N_CELLS, N_GENES = 100_000, 19_331
_BLOCK = 5_000


def run(command: list[str | Path], folder: Path | None = None) -> dict[str, float]:
    """Run a command to its end.

    Parameters
    ----------
    command
        Program and arguments.
    folder
        Working directory.

    Returns
    -------
    ``seconds``, ``cpu`` seconds, and ``peak`` of the resident memory, MiB; missing if it is not above
    that of this process, which Linux counts as the command's, too.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} failed:\n{said[-3000:]}")
    largest = usage.ru_maxrss / 2**10
    return {
        "seconds": time.perf_counter() - start,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": largest if largest > 1.1 * peak() else float("nan"),
    }


def measure(commands: dict[str, list[str | Path]], turns: int, part: str, peer: str) -> None:
    """Run commands in turns, print medians and their ratio to the peer, and add rows.

    Parameters
    ----------
    commands
        Commands by name.
    turns
        Number of turns.
    part
        Part of the benchmark.
    peer
        Name of the command that the others are compared with.
    """
    rows = []
    for turn in range(turns):
        for name, command in commands.items():
            rows.append({"part": part, "command": name, "turn": turn, **run(command)})
    Table(HERE / "results" / "command_line.csv", ["part", "command", "turn"], merge=True).add(rows)
    medians = pd.DataFrame(rows).groupby("command")[["seconds", "cpu", "peak"]].median()
    for column in ("seconds", "cpu"):
        medians[f"{column}, ratio"] = medians[column] / medians.loc[peer, column]
    print(as_markdown(medians.map("{:.2f}".format)))


def make(folder: Path, celltypist: Path) -> None:
    """Write the cells and the model of CellTypist, if they are not there.

    Parameters
    ----------
    folder
        Where to write.
    celltypist
        Interpreter of the environment of CellTypist.
    """
    import anndata
    import h5py
    import numpy as np
    from anndata.io import sparse_dataset, write_elem
    from scipy import sparse

    from scvi_sctab import datasets

    folder.mkdir(parents=True, exist_ok=True)
    query, model = folder / "query.h5ad", folder / "celltypist.pkl"
    if not query.exists():
        cells = datasets.pbmc3k()
        counts = cells.X.tocsr().astype(np.float32)
        counts.resize(cells.n_obs, N_GENES)
        names = [*cells.var_names, *(f"other{i}" for i in range(N_GENES - cells.n_vars))]
        drawn = np.random.default_rng(0).integers(cells.n_obs, size=N_CELLS)
        beside = query.with_suffix(".part")
        obs = pd.DataFrame(index=[f"cell{i}" for i in range(N_CELLS)])
        anndata.AnnData(obs=obs, var=pd.DataFrame(index=names)).write_h5ad(beside)
        with h5py.File(beside, "r+") as file:
            first = counts[drawn[:_BLOCK]]
            first.indptr = first.indptr.astype(np.int64)
            write_elem(file, "X", sparse.csr_matrix(first))
            rows = sparse_dataset(file["X"])
            for start in range(_BLOCK, N_CELLS, _BLOCK):
                rows.append(counts[drawn[start : start + _BLOCK]])
        beside.replace(query)
    if not model.exists():
        datasets.pbmc_kang18().write_h5ad(folder / "reference.h5ad")
        run([celltypist, HERE / "_command_line_peer.py", "train", folder])


def main() -> None:
    """Measure the part that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("start", "annotate", "make"))
    parser.add_argument("--turns", type=int, help="default: 5, annotate: 3")
    parser.add_argument("--folder", type=Path, default=Path("made_command_line"))
    parser.add_argument(
        "--celltypist-python",
        type=Path,
        default=HERE.parent / ".venv-celltypist" / "bin" / "python",
    )
    given = parser.parse_args()
    _speed_threads.limit(1)
    python = given.celltypist_python.absolute()
    if given.part == "start":
        commands: dict[str, list[str | Path]] = {
            "celltypist --help": [python.with_name("celltypist"), "--help"],
            "scvi-sctab --help": [OURS, "--help"],
            "scvi-sctab models list": [OURS, "models", "list"],
        }
        for command in commands.values():  # compiled files are there from now on
            run(command)
        measure(commands, given.turns or 5, "start", "celltypist --help")
        return
    if given.part == "make":
        make(given.folder, python)
        return
    # In a process of its own, so that its memory is not counted as that of the commands.
    folder = str(given.folder)
    own = [
        sys.executable,
        __file__,
        "make",
        "--folder",
        folder,
        "--celltypist-python",
        str(python),
    ]
    subprocess.run(own, check=True)
    query = given.folder / "query.h5ad"
    peer = [python, HERE / "_command_line_peer.py", "annotate", given.folder]
    ours = [OURS, "annotate", query, "-m", "pbmc", "-o", given.folder / "out", "--overwrite"]
    ours += ["--threads", "1", "--quiet"]
    commands = {"celltypist": peer, "scvi-sctab annotate": ours}
    measure(commands, given.turns or 3, "annotate", "celltypist")


if __name__ == "__main__":
    main()
