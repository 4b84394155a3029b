"""Change bytes of files of cells, annotate them, and count what happens.

``python tests/faults/fuzz.py 1000`` divides the changes among kinds of files and prints a table. Each
call runs in a forked process with a limit of time, since HDF5 may wait for ever on some headers.

Outcomes: `same` and `other`, annotated, with the results of the file as it was or with others (there is
no checksum in uncompressed files: a changed count is another count); `refused`, an error that
names the file; `unnamed`, an error that does not; `fault`, an error that the command calls a fault of
the program; `hang` and `crash`.
"""

import gzip
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy.io import mmwrite
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))
from kill import QUIET, build, toy

from scvi_sctab.cli import app

SECONDS = 20


def h5ad(cells, folder):
    cells.write_h5ad(folder / "cells.h5ad")
    return folder / "cells.h5ad"


def h5ad_gzip(cells, folder):
    cells.write_h5ad(folder / "cells.h5ad", compression="gzip")
    return folder / "cells.h5ad"


def h5ad_dense(cells, folder):
    cells.X = cells.X.toarray()
    return h5ad(cells, folder)


def zarr(cells, folder):
    cells.write_zarr(folder / "cells.zarr")
    return folder / "cells.zarr"


def tenx(cells, folder):
    with h5py.File(folder / "cells.h5", "w") as file:
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(cells.X, name).astype("int32")
        group["shape"] = cells.shape[::-1]
        group["barcodes"] = np.array(list(cells.obs_names), dtype="S")
        for name in ("id", "name"):
            group[f"features/{name}"] = np.array(list(cells.var_names), dtype="S")
    return folder / "cells.h5"


def mtx(cells, folder):
    path = folder / "filtered"
    path.mkdir()
    mmwrite(path / "matrix.mtx", cells.X.T.astype(int))
    genes = pd.DataFrame({0: cells.var_names, 1: cells.var_names})
    genes.to_csv(path / "features.tsv", sep="\t", header=False, index=False)
    with gzip.open(path / "barcodes.tsv.gz", "wt") as file:
        file.write("\n".join(cells.obs_names) + "\n")
    return path


KINDS = {f.__name__: f for f in (h5ad, h5ad_gzip, h5ad_dense, zarr, tenx, mtx)}


def change(path, rng):
    """Change a file, or a file of a folder: flip a bit, overwrite some bytes, or cut the rest."""
    files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    file = files[rng.integers(len(files))]
    content = bytearray(file.read_bytes())
    at, how = int(rng.integers(len(content))), rng.integers(5)
    size = min(int(rng.integers(1, 65)), len(content) - at)
    if how == 0:
        content = content[:at]
    elif how == 1:
        content[at : at + size] = bytes(size)
    elif how == 2:
        content[at : at + size] = rng.bytes(size)
    else:  # the most common damage, and the least visible
        content[at] ^= 1 << rng.integers(8)
    file.write_bytes(content)
    return f"{('cut', 'zero', 'random', 'bit', 'bit')[how]} at {at} of {file.name}"


def annotate(path, model, out):
    """Annotate in a forked process.

    Returns
    -------
    Outcome, `done` for any annotation, and what was written to the standard error.
    """
    error = out.with_name("stderr")
    error.write_text("")
    if (pid := os.fork()) == 0:
        line = ("annotate", path, "-m", model, "-o", out, "--overwrite", "--quiet")
        os.dup2(os.open(error, os.O_WRONLY), 2)  # also of libraries that write in C
        result = CliRunner().invoke(app, [str(word) for word in line])
        error.write_text(result.stderr)
        os._exit(100 if not isinstance(result.exception, SystemExit | None) else result.exit_code)
    end = time.monotonic() + SECONDS
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "hang", ""
        time.sleep(0.005)
    text = error.read_text(errors="replace").strip()
    if os.WIFSIGNALED(ended[1]):
        return "crash", f"signal {os.WTERMSIG(ended[1])}"
    code = os.WEXITSTATUS(ended[1])
    if code == 0:
        return "done", text
    if code not in (2, 3) or "fault of the program" in text:
        return "fault", text
    return "refused" if path.name in text else "unnamed", text


def fuzz(kind, n_changes, seed=0, keep=None):
    """Count the outcomes of changes of a kind of file.

    Parameters
    ----------
    kind
        Key of ``KINDS``.
    n_changes
        Number of changes.
    seed
        Seed of all.
    keep
        Folder for copies of files that were neither refused nor annotated as before.

    Returns
    -------
    Number per outcome, and a line for each that is not `same` or `refused`.
    """
    rng, counts, lines = np.random.default_rng(seed), Counter(), []
    home = Path(tempfile.mkdtemp())
    model = build(0)
    model.train(max_epochs=2, **QUIET)
    model.save(home / "model")
    cells = toy(60, "b", seed=1)
    (home / "whole").mkdir()
    source = KINDS[kind](cells, home / "whole")
    assert annotate(source, home / "model", home / "out")[0] == "done"
    expected = pd.read_csv(home / "out/annotations.csv")
    for number in range(n_changes):
        shutil.rmtree(home / "changed", ignore_errors=True)
        shutil.rmtree(home / "out", ignore_errors=True)
        shutil.copytree(home / "whole", home / "changed")
        path = home / "changed" / source.name
        what = change(path, rng)
        outcome, text = annotate(path, home / "model", home / "out")
        if outcome == "done":
            found = pd.read_csv(home / "out/annotations.csv")
            outcome = "same" if found.equals(expected) else "other"
            text = "" if outcome == "same" else describe(expected, found)
        else:
            assert not (home / "out").exists(), "a file was written"
        counts[outcome] += 1
        if outcome not in ("same", "refused"):
            lines.append(f"{kind} {number}: {what}: {outcome}: {text[-300:]}")
            if keep is not None:
                shutil.copytree(home / "changed", keep / f"{kind}-{number}", dirs_exist_ok=True)
    shutil.rmtree(home)
    return counts, lines


def describe(expected, found):
    """Describe how annotations differ."""
    if len(found) != len(expected):
        return f"{len(found)} cells, not {len(expected)}"
    names = (found.iloc[:, 0].astype(str) != expected.iloc[:, 0].astype(str)).sum()
    other = (found["probability"] - expected["probability"]).abs() > 1e-6
    return f"{names} cells renamed, {other.sum()} with another probability"


if __name__ == "__main__":
    n_changes = int(sys.argv[1])
    keep = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    table = {}
    for kind in KINDS:
        table[kind], found = fuzz(kind, -(-n_changes // len(KINDS)), keep=keep)
        print("\n".join(found), flush=True)
    print(pd.DataFrame(table).T.fillna(0).astype(int).to_string())
