"""Kill what writes files at moments of its run, and look at what is on disk then.

``python tests/faults/kill.py save 30`` kills it 15 times at times of its run and 15 times at its
accesses to files, both drawn by a seed, and prints what it found as JSON. Each run is a forked process
that ends by SIGKILL; nothing is cleaned up. After each: every file under a final name is whole, and the
same call succeeds and leaves no other file than an undisturbed one.
"""

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import scvi
from anndata import AnnData, read_h5ad
from scipy import sparse
from typer.testing import CliRunner

from scvi_sctab import SCTAB
from scvi_sctab.base._training_state import read_state
from scvi_sctab.cli import app

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
KEYS = {"labels_key": "cell_type", "batch_key": "batch"}


def toy(n_cells, batch, seed=0):
    """Cells of three types, each with genes of its own."""
    rng = np.random.default_rng(seed)
    types = rng.integers(3, size=n_cells)
    counts = rng.poisson((1 + 4 * np.kron(np.eye(3), np.ones(5)))[types]).astype("float32")
    labels = {
        "cell_type": [f"type {t}" for t in types],
        "batch": batch,
        "donor": types.astype(str),
    }
    obs = pd.DataFrame(labels, [f"{batch}{i}" for i in range(n_cells)])
    names = pd.DataFrame(index=[f"GENE{i}" for i in range(counts.shape[1])])
    return AnnData(sparse.csr_matrix(counts), obs, names)


def build(seed):
    scvi.settings.seed = seed
    cells = toy(200, "a")
    SCTAB.setup_anndata(cells, **KEYS)
    return SCTAB(cells, encoder="linear", n_d=4)


def command(*words):
    result = CliRunner().invoke(app, [*map(str, words), "--quiet"], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr


class Save:
    """A model over another one."""

    def prepare(self, folder):
        self.models = [build(seed) for seed in (0, 1)]
        for model in self.models:
            model.train(max_epochs=1, **QUIET)
        self.models[0].save(folder / "model")

    def run(self, folder):
        self.models[1].save(folder / "model", overwrite=True)

    def check(self, folder, is_done):
        digest = SCTAB.load(folder / "model", adata=False).digest
        assert digest in [model.digest for model in self.models[is_done:]]


class Train:
    """Training with a state on disk, and the model that it gives."""

    def prepare(self, folder):
        self.digest = None

    def run(self, folder):
        model = build(0)
        checkpoints = {"checkpoint_dir": folder / "run", "checkpoint_every_n_steps": 1}
        model.train(max_epochs=4, batch_size=64, resume=True, **checkpoints, **QUIET)
        model.save(folder / "model", overwrite=True)

    def check(self, folder, is_done):
        if (state := folder / "run" / "training.safetensors").exists():
            read_state(state)
        if (folder / "model").exists():
            digest = SCTAB.load(folder / "model", adata=False).digest
            self.digest = self.digest or digest
            assert digest == self.digest, "resumed, it gives another model"


class Map:
    """A query mapped onto a model by the command, which saves model and annotations."""

    def prepare(self, folder):
        model = build(0)
        model.train(max_epochs=2, **QUIET)
        model.save(folder / "reference")
        toy(120, "b", seed=1).write_h5ad(folder / "query.h5ad")
        (folder / "out").mkdir()

    def run(self, folder):
        line = ("map", folder / "query.h5ad", "-m", folder / "reference", "--max-epochs", 2)
        line += ("--save", folder / "mapped", "-o", folder / "out", "--h5ad", "--overwrite")
        command(*line, "--accelerator", "cpu")

    def check(self, folder, is_done):
        if is_done or (folder / "mapped").exists():
            assert SCTAB.load(folder / "mapped", adata=False).query_record is not None
        check_tables(folder / "out", 120, is_done)


class Annotate(Map):
    """Annotations over those of another query."""

    def prepare(self, folder):
        super().prepare(folder)
        toy(80, "b", seed=2).write_h5ad(folder / "other.h5ad")
        self.annotate(folder, "other")

    def annotate(self, folder, query):
        line = ("annotate", folder / f"{query}.h5ad", "-m", folder / "reference")
        command(*line, "-o", folder / "out", "-p", "a.", "--h5ad", "--overwrite")

    def run(self, folder):
        self.annotate(folder, "query")

    def check(self, folder, is_done):
        check_tables(folder / "out", 120, is_done, before=80)


def check_tables(out, n_cells, is_done, before=None):
    """Read all files of an annotation that are there."""
    numbers = []
    for file in out.glob("*"):
        if file.suffix == ".csv":
            table = pd.read_csv(file)
            assert table.notna().all(axis=None) or "term" in table
            numbers.append(len(table))
        elif file.suffix == ".json":
            numbers.append(json.loads(file.read_text())["n_cells"])
        elif file.suffix == ".h5ad":
            numbers.append(read_h5ad(file).n_obs)
    expected = {n_cells} if is_done else {n_cells, before}
    assert set(numbers) <= expected, (numbers, expected)
    assert not is_done or len(numbers) == 3


class Corpus:
    """A corpus over another one; zarr starts threads, which a fork does not copy."""

    def prepare(self, folder):
        for seed, batch in enumerate("ab"):
            toy(300, batch, seed).write_h5ad(folder / f"{batch}.h5ad")
        apart(self.call, folder, ["a"])

    def call(self, folder, names):
        from scvi_sctab.data.stores import prepare_corpus

        paths = [folder / f"{name}.h5ad" for name in names]
        keys = {"labels_key": "cell_type", "donor_key": "donor", "dataset_cells": 200}
        prepare_corpus(paths, folder / "atlas", shares=None, **keys, overwrite=True)

    def run(self, folder):
        self.call(folder, ["a", "b"])

    def check(self, folder, is_done):
        if is_done or (folder / "atlas").exists():
            apart(self.read, folder / "atlas", [600] if is_done else [300, 600])

    def read(self, path, expected):
        from scvi_sctab.data.stores import Corpus as Opened

        corpus = Opened.open(path)
        assert corpus.read_lazily().X.compute().shape[0] == len(corpus)
        assert len(corpus) in expected, len(corpus)


def apart(function, *arguments):
    """Call a function in a forked process."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0, "it failed, see above"


VERBS = {"save": Save, "train": Train, "map": Map, "annotate": Annotate, "corpus": Corpus}


def run_forked(verb, folder, kill_at=None, seconds=None):
    """Run a verb in a process that is killed at an access to files, or after some seconds.

    Returns
    -------
    Whether it was killed, the number of its accesses, and its time in seconds.
    """
    reading, writing = os.pipe()
    start = time.monotonic()
    if (pid := os.fork()) == 0:
        os.close(reading)
        count = 0

        def see(event, arguments):
            nonlocal count
            if event.split(".")[0] in ("open", "os", "shutil") and any(
                str(folder) in str(argument) for argument in arguments[:2]
            ):
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(see)
        try:
            verb.run(folder)
            os.write(writing, str(count).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    code = os.waitpid(pid, 0)[1]
    elapsed = time.monotonic() - start
    with os.fdopen(reading) as pipe:
        n_accesses = int(pipe.read() or 0)
    assert code in (0, signal.SIGKILL), f"it ended by {code}"
    return code == signal.SIGKILL, n_accesses, elapsed


def names_in(folder):
    """Names of all files; digests in names of members and parts of stores aside."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if ".zarr" not in str(p))


def main(name, n_moments, seed=0):
    """Kill a verb at moments, and check each time."""
    rng, verb, home = random.Random(seed), VERBS[name](), Path(tempfile.mkdtemp())
    verb.prepare(home)
    before = home.with_name(f"{home.name}-before")
    shutil.copytree(home, before)
    for _ in range(2):  # the first run takes longer
        shutil.rmtree(home)
        shutil.copytree(before, home)
        _, n_accesses, duration = run_forked(verb, home)
    verb.check(home, True)
    whole = names_in(home)
    n_early = n_moments // 2
    moments = [{"seconds": rng.uniform(0, duration)} for _ in range(n_early)]
    accesses = rng.sample(range(1, n_accesses + 1), min(n_moments - n_early, n_accesses))
    moments += [{"kill_at": number} for number in accesses]
    n_killed = 0
    for moment in moments:
        shutil.rmtree(home)
        shutil.copytree(before, home)
        try:
            killed, *_ = run_forked(verb, home, **moment)
            n_killed += killed
            verb.check(home, False)
            run_forked(verb, home)
            verb.check(home, True)
            assert names_in(home) == whole, set(names_in(home)) ^ set(whole)
        except AssertionError as error:
            raise AssertionError(f"{name}, killed at {moment}: {error}; see {home}") from error
    for folder in (home, before):
        shutil.rmtree(folder)
    print(json.dumps({"verb": name, "moments": len(moments), "killed": n_killed}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
