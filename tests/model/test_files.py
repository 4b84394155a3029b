"""What lies on a disk: whole or not at all, unharmed or refused, and never read again."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from scvi_sctab import SCTAB, SCTABEnsemble
from scvi_sctab._constants import ENSEMBLE_FILE, WEIGHTS_FILE
from scvi_sctab.base import find_leftovers, read_digest, temporary_folder, write_checked

ONE_EPOCH = {"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu"}
VERSION_1 = Path(__file__).parent / "models_of_version_1"


def toy(n_cells=100, seed=1, n_genes=12):
    """Cells of three types, each with genes of its own."""
    rng = np.random.default_rng(seed)
    types = rng.integers(3, size=n_cells)
    mean = 1 + 0.8 * np.kron(np.eye(3), np.ones(n_genes // 3))
    return AnnData(
        rng.poisson(mean[types]).astype("float32"),
        pd.DataFrame(
            {"cell_type": [f"type {t}" for t in types], "batch": rng.choice(["a", "b"], n_cells)},
            [f"c{seed}-{i}" for i in range(n_cells)],
        ),
        pd.DataFrame(index=[f"G{i}" for i in range(n_genes)]),
    )


@pytest.fixture(scope="module")
def _small():
    """A small model; tests must not train it."""
    scvi.settings.seed = 0
    cells = toy(300)
    SCTAB.setup_anndata(cells, labels_key="cell_type")
    model = SCTAB(cells, encoder="linear", n_d=2)
    model.train(**ONE_EPOCH)
    model.calibrate(toy(120, seed=2))
    return model


@pytest.fixture
def small(_small):
    return _small


@pytest.fixture(scope="module")
def _pair():
    """Two ensembles of the same cells; tests must not train them."""
    pair = []
    cells = toy()
    SCTABEnsemble.setup_anndata(cells, labels_key="cell_type")
    for scvi.settings.seed in (0, 1):
        ensemble = SCTABEnsemble(cells, n_members=2, encoder="linear", n_d=2)
        ensemble.train(**ONE_EPOCH)
        ensemble.calibrate(toy(120, seed=2))
        pair.append(ensemble)
    return pair


@pytest.fixture
def first(_pair):
    return _pair[0]


@pytest.fixture
def second(_pair):
    return _pair[1]


def content_of(path):
    """Content of each file below a folder."""
    return {f.relative_to(path): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def names_in(path):
    return sorted(os.listdir(path))


# Nothing is read again


def test_a_loaded_model_outlives_its_file(small, tmp_path):
    small.save(tmp_path / "model")
    loaded, query = SCTAB.load(tmp_path / "model", adata=False), toy(seed=7)
    before = loaded.annotate(query)
    path = tmp_path / "model" / WEIGHTS_FILE
    with path.open("r+b") as file:  # the same file, as `cp` writes it
        file.write(os.urandom(path.stat().st_size))
    pd.testing.assert_frame_equal(loaded.annotate(query), before, check_exact=True)
    os.truncate(path, 0)
    pd.testing.assert_frame_equal(loaded.annotate(query), before, check_exact=True)
    if sys.platform == "linux":
        assert str(path) not in Path("/proc/self/maps").read_text()


def test_a_loaded_ensemble_outlives_its_files(first, tmp_path):
    first.save(tmp_path / "ensemble")
    loaded, query = SCTABEnsemble.load(tmp_path / "ensemble", adata=False), toy(seed=7)
    before = loaded.annotate(query)
    for path in (tmp_path / "ensemble").rglob("*.safetensors"):
        os.truncate(path, 0)
    pd.testing.assert_frame_equal(loaded.annotate(query), before, check_exact=True)


# Damage is told


def flip_bit(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_no_flipped_bit_loads(small, tmp_path):
    small.save(tmp_path / "model")
    path = tmp_path / "model" / WEIGHTS_FILE
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    rng = np.random.default_rng(0)
    bits = [
        *range(64),  # the size of the header
        *rng.integers(64, 8 * start, 100),
        *rng.integers(8 * start, 8 * len(content), 100),
        *(8 * content.index(b'"' + word) + 8 + bit for word in WORDS for bit in range(64)),
    ]
    for bit in bits:
        path.write_bytes(flip_bit(content, int(bit)))
        with pytest.raises(ValueError, match="is damaged"):
            SCTAB.load(tmp_path / "model")
    path.write_bytes(content)
    assert SCTAB.load(tmp_path / "model").digest == small.digest


# Names in the header that decide how the file is read.
WORDS = (b"checksum", b"format", b"digest", b"class", b"version", b"anndata", b"scvi-sctab-2")


def test_what_is_damaged_says_what_to_do(small, tmp_path):
    small.save(tmp_path / "model")
    path = tmp_path / "model" / WEIGHTS_FILE
    path.write_bytes(flip_bit(path.read_bytes(), 8 * path.stat().st_size - 1))
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged: .*Copy it again from"):
        SCTAB.load(tmp_path / "model")


def rewrite(path, **changes):
    """Write a file again with other metadata; ``None`` leaves an entry out."""
    with safe_open(path, "pt") as file:
        metadata = {**file.metadata(), **changes}
    save_file(load_file(path), path, {k: v for k, v in metadata.items() if v is not None})


def test_a_new_file_cannot_pass_for_one_without_a_checksum(small, tmp_path):
    small.save(tmp_path / "model")
    rewrite(tmp_path / "model" / WEIGHTS_FILE, format="scvi-sctab-1")
    with pytest.raises(ValueError, match="is damaged, or of a newer version"):
        SCTAB.load(tmp_path / "model")
    rewrite(tmp_path / "model" / WEIGHTS_FILE, format="scvi-sctab-2", checksum=None)
    with pytest.raises(ValueError, match="is damaged: its content does not fit"):
        SCTAB.load(tmp_path / "model")


def test_a_damaged_ensemble_is_told(first, tmp_path):
    first.save(tmp_path / "ensemble")
    path = tmp_path / "ensemble" / ENSEMBLE_FILE
    content = path.read_bytes()
    for bit in np.random.default_rng(0).integers(0, 8 * len(content), 100):
        path.write_bytes(flip_bit(content, int(bit)))
        with pytest.raises(ValueError, match="is damaged"):
            SCTABEnsemble.load(tmp_path / "ensemble")


# A name for what a model holds


def test_the_digest_is_that_of_the_content_alone(small, tmp_path):
    digest = small.digest
    assert re.fullmatch("[0-9a-f]{64}", digest)
    small.save(tmp_path / "a")
    small.save(tmp_path / "b", save_anndata=True)
    for name in ("a", "b"):
        assert SCTAB.load(tmp_path / name).digest == digest
        assert read_digest(tmp_path / name / WEIGHTS_FILE) == digest
    assert small.digest == digest
    assert SCTAB.load(tmp_path / "a", toy(50, seed=9)).digest == digest


def test_the_digest_follows_the_weights_and_what_is_stated(small, tmp_path):
    small.save(tmp_path / "model")
    loaded = SCTAB.load(tmp_path / "model", small.adata)
    digests = [loaded.digest]
    loaded.calibration_ = None
    digests.append(loaded.digest)
    with torch.no_grad():
        loaded.module.final_mapping.weight[0, 0] += 1e-6
    digests.append(loaded.digest)
    loaded.train(**ONE_EPOCH)
    digests.append(loaded.digest)
    assert len(set(digests)) == 4


def test_equal_training_gives_an_equal_digest():
    digests = []
    for name in ("a", "b"):
        scvi.settings.seed = 0
        cells = toy()
        cells.uns["name"] = name  # no part of the model
        SCTAB.setup_anndata(cells, labels_key="cell_type")
        model = SCTAB(cells, encoder="linear", n_d=2)
        model.train(**ONE_EPOCH)
        digests.append(model.digest)
    assert digests[0] == digests[1]


def test_the_digest_of_an_ensemble_is_that_of_members_and_calibration(first, second, tmp_path):
    first.save(tmp_path / "ensemble")
    loaded = SCTABEnsemble.load(tmp_path / "ensemble")
    assert loaded.digest == first.digest != second.digest
    loaded.calibrate(toy(200, seed=3))
    assert loaded.digest != first.digest


# Files of earlier versions


def test_a_model_of_version_1_answers_as_it_did(tmp_path):
    model = SCTAB.load(VERSION_1)
    expected = [[0.8442335, 0.0444570, 0.1113095], [0.5345122, 0.3949554, 0.0705324]]
    query = toy(20, seed=2)
    np.testing.assert_allclose(model.predict(query, soft=True)[:2], expected, atol=2e-6)
    model.save(tmp_path / "model")
    again = SCTAB.load(tmp_path / "model")
    pd.testing.assert_frame_equal(
        again.predict(query, soft=True), model.predict(query, soft=True), check_exact=True
    )
    assert read_digest(VERSION_1 / WEIGHTS_FILE) is None
    assert again.digest == model.digest


def test_an_ensemble_of_version_1_loads_and_is_replaced(first, tmp_path):
    path = tmp_path / "ensemble"
    for name in ("member0", "member1"):
        shutil.copytree(VERSION_1, path / name)
    metadata = {"format": "scvi-sctab-ensemble-1", "version": "0.1.0", "n_members": "2"}
    save_file({}, path / ENSEMBLE_FILE, metadata | {"calibration": "null", "hierarchy": "null"})
    loaded, query = SCTABEnsemble.load(path), toy(20, seed=2)
    one = SCTAB.load(VERSION_1).predict(query, soft=True)
    np.testing.assert_allclose(loaded.predict(query, soft=True), one, atol=1e-6)
    first.save(path, overwrite=True)
    assert SCTABEnsemble.load(path).digest == first.digest
    assert len(names_in(path)) == 3


# Where models are saved to


def test_links_are_followed_be_they_dangling_or_not(small, tmp_path):
    os.symlink(tmp_path / "disk", tmp_path / "link")
    small.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert names_in(tmp_path / "disk") == ["model.pt", WEIGHTS_FILE]
    with pytest.raises(ValueError, match="link already exists and was left as it is"):
        small.save(tmp_path / "link")
    small.save(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert names_in(tmp_path) == ["disk", "link"]


@pytest.fixture
def other_disk(tmp_path):
    place = Path("/dev/shm")
    if not place.is_dir() or place.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second disk")
    path = place / f"sctab-test-{os.getpid()}"
    path.mkdir()
    yield path
    shutil.rmtree(path)


def test_a_link_may_lead_to_another_disk(small, first, other_disk, tmp_path):
    os.symlink(other_disk, tmp_path / "models")
    small.save(tmp_path / "models", overwrite=True)
    first.save(tmp_path / "models", overwrite=True)
    assert SCTAB.load(tmp_path / "models").digest == small.digest
    assert SCTABEnsemble.load(tmp_path / "models").digest == first.digest


@pytest.mark.parametrize("kind", ["small", "first"])
def test_nothing_is_written_beside_an_existing_directory(kind, request, tmp_path, monkeypatch):
    """Its parent may be read-only, or on another disk."""
    model, path = request.getfixturevalue(kind), tmp_path / "parent" / "model"
    path.mkdir(parents=True)
    mkdir = Path.mkdir

    def read_only(self, *args, **kwargs):
        if self.parent == path.parent:
            raise PermissionError(13, "Permission denied", str(self))
        return mkdir(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", read_only)
    model.save(path, overwrite=True)
    assert type(model).load(path).digest == model.digest
    assert names_in(path.parent) == ["model"]
    with pytest.raises(PermissionError, match=r"No permission to write there.*parent'"):
        model.save(path.parent / "new")


@pytest.mark.parametrize("name", ["n" * 250, "ä" * 120, "with space", "a%b", "-x", "line\nbreak"])
def test_every_name_of_a_directory_is_legal(small, tmp_path, name):
    small.save(tmp_path / name)
    small.save(tmp_path / name, overwrite=True)
    assert names_in(tmp_path) == [name]
    assert SCTAB.load(tmp_path / name).digest == small.digest


def test_paths_may_be_relative_and_of_any_type(small, first, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small.save("a/b/model")
    first.save(Path("a/ensemble"))
    with os.scandir("a/b") as entries:
        entry = next(entries)  # a path, but neither a string nor a Path
    assert SCTAB.load(entry).digest == small.digest
    small.save(entry, overwrite=True)
    small.adata.write_h5ad("a/b/cells.h5ad")
    with os.scandir("a/b") as entries:
        cells = next(e for e in entries if e.name == "cells.h5ad")
    assert SCTAB.load("a/b/model", cells).adata.n_obs == small.adata.n_obs


# What killed processes leave

# Loads models and saves them again, each in a process that is killed at some point.
SAVE_AND_DIE = """
import os, signal, sys
from pathlib import Path
import scvi_sctab.base._digest as digest, scvi_sctab.model._ensemble_files as files
from scvi_sctab import SCTAB, SCTABEnsemble
def killed(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
for path in map(Path, sys.argv[1:]):
    model = (SCTAB if path.name.startswith("model") else SCTABEnsemble).load(path, adata=False)
    pid = os.fork()
    if pid == 0:
        if path.name.endswith("writing"):
            digest.save_file = killed
        elif path.name.endswith("committing"):
            Path.replace = killed
        elif path.name.endswith("removing"):
            files._remove_replaced = killed
        model.save(path, overwrite=True)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL, path
"""


@pytest.fixture(scope="module")
def killed(_small, _pair, tmp_path_factory):
    """Directories whose last save was killed while it was writing, committing or removing."""
    parent = tmp_path_factory.mktemp("killed")
    paths = {n: parent / f"ensemble-{n}" for n in ("writing", "committing", "removing")}
    for path in paths.values():
        _pair[0].save(path)
        (path / "notes.txt").write_text("mine")
    paths["model"] = parent / "model-writing"
    _small.save(paths["model"])
    subprocess.run([sys.executable, "-c", SAVE_AND_DIE, *map(str, paths.values())], check=True)
    return paths


def test_what_a_killed_save_left_is_removed_by_the_next(small, killed):
    path = killed["model"]
    assert len(find_leftovers(path)) == 1
    assert SCTAB.load(path).digest == small.digest
    small.save(path, overwrite=True)
    assert names_in(path) == ["model.pt", WEIGHTS_FILE]


@pytest.mark.parametrize("where", ["writing", "committing", "removing"])
def test_a_killed_save_of_an_ensemble_leaves_the_old_one_or_the_new(first, second, killed, where):
    path = killed[where]
    assert len(find_leftovers(path)) == 1
    n_folders = {"writing": 2, "committing": 4, "removing": 4}[where]
    assert len(list(path.glob("member*"))) == n_folders
    assert SCTABEnsemble.load(path).digest == first.digest
    second.save(path, overwrite=True)
    assert SCTABEnsemble.load(path).digest == second.digest
    kept = [name.split("-")[0] for name in names_in(path)]
    assert kept == [ENSEMBLE_FILE, "member0", "member1", "notes.txt"]


def test_the_folder_of_a_save_that_runs_is_left_alone(small, tmp_path):
    path = tmp_path / "model"
    small.save(path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        folder = path / temporary_name(process.pid)
        folder.mkdir()
        small.save(path, overwrite=True)
        assert folder.exists()
        process.communicate(b"\n")
    small.save(path, overwrite=True)
    assert not folder.exists()


def test_folders_of_other_machines_are_left_for_a_day(small, tmp_path):
    path = tmp_path / "model"
    small.save(path)
    # No process here has this number, nor may one have it.
    folder = path / ".sctab-elsewhere_4026531836-4194305-0a1b2c3d"
    folder.mkdir()
    small.save(path, overwrite=True)
    assert folder.exists()
    yesterday = folder.stat().st_mtime - 25 * 3600
    os.utime(folder, (yesterday, yesterday))
    (path / ".sctab-mine").mkdir()  # whatever this is
    small.save(path, overwrite=True)
    assert names_in(path) == [".sctab-mine", "model.pt", WEIGHTS_FILE]


def temporary_name(pid):
    with temporary_folder(Path.cwd()) as folder:
        return folder.name.replace(f"-{os.getpid()}-", f"-{pid}-")


# Ensembles are replaced in one step


def test_files_of_others_stay_in_the_directory_of_an_ensemble(first, second, tmp_path):
    path = tmp_path / "ensemble"
    first.save(path)
    (path / "annotated.csv").write_text("hours of work")
    (path / "figures").mkdir()
    member = next(path.glob("member0*"))
    (member / "notes.txt").write_text("mine")
    second.save(path, overwrite=True)
    assert (path / "annotated.csv").read_text() == "hours of work"
    assert names_in(member) == ["notes.txt"]
    assert SCTABEnsemble.load(path).digest == second.digest
    assert len(list(path.glob("member*"))) == 3


def test_a_link_to_an_ensemble_is_followed(first, second, tmp_path):
    first.save(tmp_path / "disk")
    os.symlink(tmp_path / "disk", tmp_path / "link")
    second.save(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert SCTABEnsemble.load(tmp_path / "disk").digest == second.digest


def test_a_full_disk_leaves_the_old_ensemble_whole(first, second, tmp_path, monkeypatch):
    path = tmp_path / "ensemble"
    first.save(path)
    before = content_of(path)
    n_files = 0

    def full_disk(*args, **kwargs):
        nonlocal n_files
        n_files += 1
        if n_files == 2:  # in the second member
            raise OSError(28, "No space left on device")
        return save_file(*args, **kwargs)

    monkeypatch.setattr("scvi_sctab.base._digest.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        second.save(path, overwrite=True)
    assert content_of(path) == before


@pytest.fixture
def limit_files():
    """Set the largest size of a file, which acts like a disk that is nearly full."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", ["small", "first"])
def test_what_libraries_raise_on_a_full_disk_is_translated(kind, request, limit_files, tmp_path):
    """torch says ``unexpected pos 64 vs 0``."""
    model, path = request.getfixturevalue(kind), tmp_path / "model"
    model.save(path)
    before = content_of(path)
    limit_files(4096)
    with pytest.raises(OSError, match="The disk is full. Nothing was changed") as raised:
        model.save(path, overwrite=True)
    assert raised.value.filename == str(path)
    assert content_of(path) == before
    with pytest.raises(OSError, match="The disk is full"):
        model.save(tmp_path / "new")
    assert names_in(tmp_path) == ["model"]


def fail_after_writing(folder, size):
    with temporary_folder(folder) as aside:
        (aside / "weights").write_bytes(bytes(size))
        raise RuntimeError("unexpected pos")


def test_a_limit_that_a_large_file_met_is_no_other_error(limit_files, tmp_path):
    limit_files(3 * 2**20)
    with pytest.raises(OSError, match="The disk is full"):
        fail_after_writing(tmp_path, 3 * 2**20)
    with pytest.raises(RuntimeError, match="unexpected"):
        fail_after_writing(tmp_path, 2**20)


def test_members_of_two_ensembles_are_not_mixed(first, second, tmp_path):
    first.save(tmp_path / "a")
    second.save(tmp_path / "b")
    mine, other = next((tmp_path / "a").glob("member1*")), next((tmp_path / "b").glob("member1*"))
    shutil.copy(other / WEIGHTS_FILE, mine / WEIGHTS_FILE)
    with pytest.raises(ValueError, match=r"member1.* holds another model than .* are mixed"):
        SCTABEnsemble.load(tmp_path / "a")


def test_the_file_of_an_ensemble_names_no_folder_elsewhere(first, tmp_path):
    first.save(tmp_path / "a")
    with safe_open(tmp_path / "a" / ENSEMBLE_FILE, "pt") as file:
        metadata = {**file.metadata(), "members": '{"../member0-01234567": null}'}
    del metadata["checksum"]
    write_checked(tmp_path / "a" / ENSEMBLE_FILE, {}, metadata)
    with pytest.raises(ValueError, match=r"'\.\./member0-01234567' is no name of a member's"):
        SCTABEnsemble.load(tmp_path / "a")


def test_a_directory_without_an_ensemble_is_saved_to_where_asked(first, tmp_path):
    (tmp_path / "mount").mkdir()
    with pytest.raises(ValueError, match="already exists and was left as it is"):
        first.save(tmp_path / "mount")
    first.save(tmp_path / "mount", overwrite=True)
    assert SCTABEnsemble.load(tmp_path / "mount").digest == first.digest
    with pytest.raises(FileNotFoundError, match=r"It holds an ensemble: `SCTABEnsemble\.load"):
        SCTAB.load(tmp_path / "mount")
