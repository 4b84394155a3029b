"""What is killed, meets a full disk or another writer, or reads damaged bytes loses and hides nothing."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from errno import ENOSPC
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from scvi_sctab import SCTAB, SCTABEnsemble
from scvi_sctab.base import find_leftovers
from scvi_sctab.cli.train import _write_pages

HERE = Path(__file__).parent
ONE_EPOCH = {"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu"}
NEEDS_ANNBATCH = sys.version_info < (3, 12)


def run(script, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, str(HERE / script), *map(str, arguments)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_killed_save_loses_nothing():
    found = json.loads(run("kill.py", "save", 6).splitlines()[-1])
    assert found["killed"] >= 3


@pytest.mark.slow(reason="kills each of them thirty times")
@pytest.mark.parametrize("verb", ["save", "train", "map", "annotate", "corpus"])
def test_what_is_killed_thirty_times_loses_nothing(verb):
    if verb == "corpus" and NEEDS_ANNBATCH:
        pytest.skip("annbatch needs Python 3.12 or newer")
    found = json.loads(run("kill.py", verb, 30).splitlines()[-1])
    assert found["killed"] >= 15


@pytest.mark.slow(reason="annotates hundreds of changed files")
def test_changed_bytes_of_cells_neither_end_the_process_nor_are_a_fault_of_it():
    table = run("fuzz.py", 300).splitlines()
    header = next(i for i, line in enumerate(table) if line.split()[:1] == ["same"])
    rows = [list(map(int, line.split()[1:])) for line in table[header + 1 :]]
    counts = pd.DataFrame(rows, columns=table[header].split())
    assert counts.to_numpy().sum() == 300
    assert not {"crash", "fault", "unnamed"} & set(counts.columns)


# Damaged models


@pytest.fixture(scope="module")
def saved(_cuts, tmp_path_factory):
    """A model and an ensemble on disk, both small."""
    home, paths = tmp_path_factory.mktemp("saved"), {}
    for name, cls, arguments in (
        ("model", SCTAB, {}),
        ("ensemble", SCTABEnsemble, {"n_members": 2}),
    ):
        cells = _cuts[0][::4, :60].copy()
        cls.setup_anndata(cells, labels_key="cell_type")
        model = cls(cells, encoder="linear", n_d=2, **arguments)
        model.train(**ONE_EPOCH)
        model.save(home / name)
        paths[name] = (cls, home / name, model.digest)
    return paths


def damages(content, rng):
    """Contents of which a part is flipped, zeroed, overwritten or cut off."""
    for at in rng.integers(0, len(content), 6):
        flipped = bytearray(content)
        flipped[at] ^= 1 << int(rng.integers(8))
        zeroed, written = bytearray(content), bytearray(content)
        zeroed[at : at + 64] = bytes(len(zeroed[at : at + 64]))
        written[at : at + 64] = rng.bytes(len(written[at : at + 64]))
        yield from (flipped, zeroed, written, content[:at])


@pytest.mark.parametrize("kind", ["model", "ensemble"])
def test_every_file_of_a_model_is_whole_or_named(kind, saved, tmp_path):
    cls, source, digest = saved[kind]
    path, rng = tmp_path / kind, np.random.default_rng(0)
    shutil.copytree(source, path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    assert {file.suffix for file in files} == {".safetensors", ".pt"}
    for file in files:
        content = file.read_bytes()
        for damaged in damages(content, rng):
            if damaged == content:
                continue
            file.write_bytes(damaged)
            if file.suffix == ".pt":  # for the tools of scvi-tools; not read here
                assert cls.load(path, adata=False).digest == digest
            else:
                with pytest.raises(ValueError, match=rf"{file.name} .*damaged"):
                    cls.load(path, adata=False)
        file.write_bytes(content)
    assert cls.load(path, adata=False).digest == digest


def test_a_pickle_alone_is_whole_or_named(saved, tmp_path):
    cls, source, digest = saved["model"]
    content = (source / "model.pt").read_bytes()
    file, n_refused = tmp_path / "model.pt", 0
    for damaged in damages(content, np.random.default_rng(0)):
        file.write_bytes(damaged)
        try:
            # Names of the archive's entries and dates have no checksum, nor any effect.
            assert cls.load(tmp_path, adata=False, allow_pickle=True).digest == digest
        except ValueError as error:
            assert "model.pt is not a model or is damaged" in str(error)  # noqa: PT017
            n_refused += 1
    assert n_refused >= 12


# Several writers


def _save(source, target, barrier):
    cls, path = source
    model = cls.load(path, adata=False)
    barrier.wait()
    try:
        for _ in range(5):
            model.save(target, overwrite=True)
    except FileExistsError as error:
        assert "Another process has saved there" in str(error)  # noqa: PT017
        model.save(target, overwrite=True)


@pytest.mark.parametrize("exists", [True, False])
def test_of_two_savers_to_one_place_one_wins(exists, model, saved, tmp_path):
    model.save(tmp_path / "other")
    _, path, digest = saved["model"]
    target, context = tmp_path / "target", multiprocessing.get_context("fork")
    if exists:
        model.save(target)
    barrier = context.Barrier(2)
    sources = [(SCTAB, tmp_path / "other"), (SCTAB, path)]
    savers = [context.Process(target=_save, args=(s, target, barrier)) for s in sources]
    for process in savers:
        process.start()
    for process in savers:
        process.join(120)
    assert [process.exitcode for process in savers] == [0, 0]
    names = sorted(file.name for file in target.iterdir())
    assert names == ["model.pt", "model.safetensors"]
    assert not find_leftovers(target)
    found = [SCTAB.load(target, adata=False).digest]
    (target / "model.safetensors").unlink()
    found.append(SCTAB.load(target, adata=False, allow_pickle=True).digest)
    assert found[0] == found[1], "the two files are of two models"
    assert found[0] in (model.digest, digest)


# Full disks


def test_a_full_disk_leaves_no_half_audit(tmp_path):
    class Cells(pd.DataFrame):
        def sort_values(self, *_, **__):
            return self

        def to_csv(self, path, **_):
            Path(path).write_text("barcode,sco")
            raise OSError(ENOSPC, os.strerror(ENOSPC), str(path))

    (tmp_path / "audit.csv").write_text("of an earlier model")
    with pytest.raises(OSError, match="No space left|disk is full"):
        _write_pages(None, None, tmp_path, "x", False, SimpleNamespace(cells=Cells()))
    assert [file.name for file in tmp_path.iterdir()] == ["audit.csv"]
    assert (tmp_path / "audit.csv").read_text() == "of an earlier model"


@pytest.mark.slow(
    reason="each verb on a disk of its own that is full, which needs permission to mount"
)
@pytest.mark.parametrize("verb", ["save", "train", "map", "annotate", "corpus"])
def test_a_full_disk_is_told_and_nothing_half_written(verb):
    if verb == "corpus" and NEEDS_ANNBATCH:
        pytest.skip("annbatch needs Python 3.12 or newer")
    told = run("full_disk.py", verb).splitlines()[-1]
    if told == "no permission to mount":
        pytest.skip(told)
    assert json.loads(told)["n_full"] >= 1
