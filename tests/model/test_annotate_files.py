"""A table for each file: whole or not there, equal to `annotate`, and not made twice."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scvi
from anndata import AnnData, read_h5ad
from scipy import sparse

from scvi_sctab import SCTAB, SCTABEnsemble, annotate_files
from scvi_sctab.model import _file_annotation
from scvi_sctab.model._file_annotation import (
    AnnotationJob,
    FileTask,
    annotate_in_worker,
    fingerprint,
)
from scvi_sctab.model._file_workers import parse_memory

pq = pytest.importorskip("pyarrow.parquet")

ONE_EPOCH = {"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu"}
SERIAL = {"scheduler": "serial"}


def toy(n_cells=100, seed=1, n_genes=12):
    """Cells of three types, each with genes of its own."""
    rng = np.random.default_rng(seed)
    types = rng.integers(3, size=n_cells)
    mean = 1 + 0.8 * np.kron(np.eye(3), np.ones(n_genes // 3))
    return AnnData(
        sparse.csr_matrix(rng.poisson(mean[types]).astype("float32")),
        pd.DataFrame(
            {"cell_type": [f"type {t}" for t in types]},
            [f"c{seed}-{i}" for i in range(n_cells)],
        ),
        pd.DataFrame(index=[f"G{i}" for i in range(n_genes)]),
    )


@pytest.fixture(scope="module")
def _small():
    scvi.settings.seed = 0
    cells = toy(300)
    SCTAB.setup_anndata(cells, labels_key="cell_type")
    model = SCTAB(cells, encoder="linear", n_d=2)
    model.train(**ONE_EPOCH)
    model.calibrate(toy(120, seed=2))
    return model


@pytest.fixture
def small(_small):
    """A small model; tests must not train it."""
    return _small


@pytest.fixture
def files(tmp_path):
    """Three files of different cells."""
    folder = tmp_path / "counts"
    folder.mkdir()
    paths = [folder / f"sample{seed}.h5ad" for seed in (3, 4, 5)]
    for seed, path in zip((3, 4, 5), paths, strict=True):
        toy(40 + seed, seed).write_h5ad(path)
    return paths


@pytest.fixture
def out(tmp_path):
    return tmp_path / "annotations"


def tables(folder):
    """What there is in a folder, as names and frames."""
    return {path.name: pd.read_parquet(path) for path in Path(folder).iterdir()}


def check(table, model):
    """Each finished table equals what `annotate` returns for the file in memory."""
    assert len(table)
    for path, output in zip(table["path"], table["output"], strict=True):
        expected = model.annotate(read_h5ad(path))
        pd.testing.assert_frame_equal(pd.read_parquet(output), expected)


@pytest.fixture(scope="module")
def cluster():
    """A scheduler with two workers in this process."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=2,
        processes=False,
        protocol="tcp://",
        dashboard_address=":0",
    ) as cluster:
        yield cluster


# ---------------------------------------------------------------- what is written


def test_each_table_is_what_annotate_returns(files, small, out):
    table = annotate_files(files, small, out, **SERIAL)
    columns = ["path", "output", "n_cells", "seconds", "status", "found", "error", "warnings"]
    assert list(table) == columns
    assert list(table["path"]) == [str(path) for path in files]
    assert list(table["status"]) == ["done"] * 3
    assert list(table["n_cells"]) == [43, 44, 45]
    assert table["found"][0].startswith("43 cells, counts in X; 12 of the model's 12 genes")
    assert (table["seconds"] > 0).all()
    assert set(table["error"]) == {""}
    assert sorted(tables(out)) == [f"sample{seed}.annotations.parquet" for seed in (3, 4, 5)]
    check(table, small)


def test_a_saved_model_and_an_ensemble_annotate_as_they_do_in_memory(files, small, tmp_path):
    small.save(tmp_path / "model")
    table = annotate_files(files[0], tmp_path / "model", tmp_path / "a", **SERIAL)
    check(table, small)
    ensemble = SCTABEnsemble.from_members([small, small])
    ensemble.calibrate(toy(120, seed=2))
    ensemble.save(tmp_path / "ensemble")
    table = annotate_files(files[:1], str(tmp_path / "ensemble"), tmp_path / "b", **SERIAL)
    check(table, ensemble)


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_counts_are_read_from_any_storage(kind, suffix, small, tmp_path):
    adata = toy(70, seed=3)
    adata.X = {"csr": adata.X, "csc": adata.X.tocsc(), "dense": adata.X.toarray()}[kind]
    path = tmp_path / f"cells.{suffix}"
    getattr(adata, f"write_{suffix}")(path)
    table = annotate_files(path, small, tmp_path / "out", **SERIAL)
    assert list(table["status"]) == ["done"], table["error"][0]
    assert ("by columns" in table["warnings"][0]) is (kind == "csc")
    pd.testing.assert_frame_equal(pd.read_parquet(table["output"][0]), small.annotate(toy(70, 3)))


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
@pytest.mark.parametrize("make", [sparse.csr_matrix, np.asarray], ids=["csr", "dense"])
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_a_layer_is_read_and_arguments_of_annotate_apply(make, suffix, small, tmp_path):
    adata = toy(30, seed=3)
    adata.layers["counts"] = make(adata.X.toarray())
    adata.X = np.log1p(adata.X.toarray())
    path = tmp_path / f"cells.{suffix}"
    getattr(adata, f"write_{suffix}")(path)
    given = {"layer": "counts", "error_rate": 0.3, "unassigned": "none"}
    table = annotate_files(path, small, tmp_path / "out", **SERIAL, **given)
    assert list(table["status"]) == ["done"], table["error"][0]
    pd.testing.assert_frame_equal(
        pd.read_parquet(table["output"][0]),
        small.annotate(toy(30, 3), **(given | {"layer": None})),
    )


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_a_shift_is_reported_and_does_not_warn_in_between(suffix, small, tmp_path, caplog):
    adata = toy(200, seed=3)
    adata.X = np.tile(np.float32([5] + [0] * 11), (200, 1))
    path = tmp_path / f"cells.{suffix}"
    getattr(adata, f"write_{suffix}")(path)
    table = annotate_files(path, small, tmp_path / "out", **SERIAL)
    assert "These cells differ" in table["warnings"][0]
    assert "1 of 1 files have warnings" in caplog.text
    again = annotate_files(path, small, tmp_path / "out", **SERIAL)
    assert list(again["status"]) == ["skipped"]
    assert list(again["warnings"]) == list(table["warnings"])
    assert list(again["found"]) == list(table["found"])


def test_a_file_without_cells_gives_a_table_without_rows(small, tmp_path):
    toy(5)[:0].write_h5ad(tmp_path / "none.h5ad")
    table = annotate_files(tmp_path / "none.h5ad", small, tmp_path / "out", **SERIAL)
    assert list(table["n_cells"]) == [0]


def test_memory_does_not_grow_with_the_file(small, tmp_path, monkeypatch):
    """Counts of all cells would take eight times as much."""
    small.save(tmp_path / "model")
    model = SCTAB.load(tmp_path / "model")
    model.annotation = dataclasses.replace(model.annotation, calibration=None)  # no test of shift
    monkeypatch.setattr("scvi_sctab.base._cells.READ_BLOCK_CELLS", 256)
    peaks = []
    for n_cells in (1000, 8000):
        path = tmp_path / f"{n_cells}.h5ad"
        wide = sparse.random(n_cells, 3000, 0.1, "csr", "float32", np.random.default_rng(0))
        wide.data[:] = 1
        genes = [f"G{i}" for i in range(3000)]
        AnnData(
            wide,
            pd.DataFrame(index=[str(i) for i in range(n_cells)]),
            pd.DataFrame(index=genes),
            layers={"counts": wide},
        ).write_h5ad(path)
        for layer in (None, "counts"):
            given = {"batch_size": 256, "layer": layer}
            tracemalloc.start()
            annotate_files(path, model, tmp_path / f"out{layer}", **SERIAL, **given)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[2] < 2 * peaks[0]
    assert peaks[3] < 2 * peaks[1]


# ---------------------------------------------------------------- broken files


def test_broken_files_are_reported_and_do_not_stop_the_others(files, small, out, caplog):
    broken = [files[0].with_name(f"{name}.h5ad") for name in ("text", "cut", "logs", "missing")]
    text, cut, logs, missing = broken
    text.write_text("no counts here")
    cut.write_bytes(files[0].read_bytes()[:9000])
    normalised = toy(20, seed=9)
    normalised.X = normalised.X.log1p()
    normalised.write_h5ad(logs)
    csv = files[0].with_name("counts.csv")
    csv.write_text("cell,G0")
    table = annotate_files([*broken, csv, *files], small, out, **SERIAL)
    assert list(table["status"]) == ["failed"] * 5 + ["done"] * 3
    assert table["n_cells"].isna().tolist() == [True] * 5 + [False] * 3
    error = dict(zip(table["path"], table["error"], strict=True))
    for path in (text, cut):
        assert f"{path} cannot be read, it is damaged or incomplete" in error[str(path)]
        assert "Copy or write it again" in error[str(path)]
    assert "has no raw counts: X looks log-normalised" in error[str(logs)]
    assert error[str(missing)] == f"There is no file {missing}."
    assert "format that is not read" in error[str(csv)]
    assert "5 of 8 files could not be annotated, see the column 'error'" in caplog.text
    check(table[5:], small)
    assert len(tables(out)) == 3


def test_a_file_that_changes_while_it_is_read_has_no_table(files, small, out, monkeypatch):
    annotate = SCTAB.annotate

    def change(model, adata, **arguments):
        frame = annotate(model, adata, **arguments)
        os.utime(files[0], (1, 1))
        return frame

    monkeypatch.setattr(SCTAB, "annotate", change)
    table = annotate_files(files[0], small, out, **SERIAL)
    assert "changed while it was read" in table["error"][0]
    assert tables(out) == {}


def test_too_little_memory_for_a_file_is_reported_with_a_cure(files, small, out, monkeypatch):
    def fail(*args, **kwargs):
        raise MemoryError("unable to allocate")

    monkeypatch.setattr(SCTAB, "annotate", fail)
    table = annotate_files(files, small, out, **SERIAL)
    assert table["error"].str.contains("pass a smaller `batch_size`").all()


# ---------------------------------------------------------------- again


def test_finished_files_are_skipped_and_those_that_changed_done_again(files, small, out):
    first = annotate_files(files, small, out, **SERIAL)
    stamps = [Path(path).stat().st_mtime_ns for path in first["output"]]
    second = annotate_files(files, small, out, **SERIAL, error_rate=np.float64(0.1))
    assert list(second["status"]) == ["skipped"] * 3
    assert list(second["n_cells"]) == [43, 44, 45]
    assert second["seconds"].notna().all()
    assert [Path(path).stat().st_mtime_ns for path in first["output"]] == stamps
    toy(10, seed=8).write_h5ad(files[1])
    third = annotate_files(files, small, out, **SERIAL)
    assert list(third["status"]) == ["skipped", "done", "skipped"]
    check(third, small)


def test_another_model_other_arguments_or_overwrite_do_all_again(files, small, out):
    annotate_files(files, small, out, **SERIAL)
    other = annotate_files(files, small, out, **SERIAL, error_rate=0.2)
    assert list(other["status"]) == ["done"] * 3
    ensemble = SCTABEnsemble.from_members([small, small])
    assert set(annotate_files(files, ensemble, out, **SERIAL)["status"]) == {"done"}
    assert set(annotate_files(files, ensemble, out, **SERIAL)["status"]) == {"skipped"}
    again = annotate_files(files, ensemble, out, **SERIAL, overwrite=True)
    assert set(again["status"]) == {"done"}


def test_a_file_of_the_user_is_not_overwritten(files, small, out):
    out.mkdir()
    theirs = out / "sample3.annotations.parquet"
    pd.DataFrame({"mine": [1]}).to_parquet(theirs)
    (out / "sample4.annotations.parquet").write_text("notes")
    table = annotate_files(files, small, out, **SERIAL)
    assert list(table["status"]) == ["failed", "failed", "done"]
    assert table["error"][:2].str.contains("no table that `annotate_files` wrote").all()
    assert list(pd.read_parquet(theirs)) == ["mine"]
    check(annotate_files(files, small, out, **SERIAL, overwrite=True), small)


SCRIPT = """
import sys, time
from pathlib import Path
from scvi_sctab import SCTAB, annotate_files

annotate = SCTAB.annotate
def slowly(model, adata, **arguments):
    time.sleep(0.5)
    return annotate(model, adata, **arguments)

SCTAB.annotate = slowly
folder = Path(sys.argv[1])
annotate_files(
    sorted(folder.glob("counts/*.h5ad")), folder / "model", folder / "annotations",
    scheduler="serial",
)
"""


@pytest.mark.slow(reason="imports the package anew")
def test_a_killed_run_continues_where_it_was(files, small, out, tmp_path):
    small.save(tmp_path / "model")
    with subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)]) as process:
        end = time.monotonic() + 300
        while not list(out.glob("*.parquet")) and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
    assert list(out.glob(".sctab-*"))
    finished = set(out.glob("*.parquet"))
    assert 1 <= len(finished) < 3
    table = annotate_files(files, small, out, **SERIAL)
    expected = ["skipped" if Path(path) in finished else "done" for path in table["output"]]
    assert list(table["status"]) == expected
    check(table, small)
    assert len(list(out.iterdir())) == 3


# ---------------------------------------------------------------- names


def test_files_with_the_same_stem_are_refused_unless_they_are_named(small, tmp_path):
    for number in (1, 2):
        (tmp_path / f"run{number}").mkdir()
        toy(20 + number, seed=number + 2).write_h5ad(tmp_path / f"run{number}" / "counts.h5ad")
    paths = [tmp_path / f"run{number}" / "counts.h5ad" for number in (1, 2)]
    with pytest.raises(ValueError, match="run1.* would be written to the same table"):
        annotate_files(paths, small, tmp_path / "out", **SERIAL)
    assert not (tmp_path / "out").exists()
    named = {path.parent.name: path for path in paths}
    table = annotate_files(named, small, tmp_path / "out", **SERIAL)
    assert [Path(path).name for path in table["output"]] == [
        f"run{number}.annotations.parquet" for number in (1, 2)
    ]
    check(table, small)
    with pytest.raises(ValueError, match="is no name of a file: leave out folders"):
        annotate_files({"a/b": paths[0]}, small, tmp_path / "out", **SERIAL)
    with pytest.raises(ValueError, match="would be written to the same table"):
        annotate_files({"A": paths[0], "a": paths[1]}, small, tmp_path / "out", **SERIAL)


# ---------------------------------------------------------------- arguments


def test_wrong_arguments_are_refused_before_the_first_file(files, small, out, tmp_path):
    with pytest.raises(ValueError, match="`paths` is empty"):
        annotate_files([], small, out)
    with pytest.raises(TypeError, match="files are not written to"):
        annotate_files(files, small, out, key_added="sctab")
    with pytest.raises(TypeError, match="`n_workers=`"):
        annotate_files(files, small, out, n_jobs=4)
    with pytest.raises(ValueError, match="error_rate=2 is not between 0 and 1"):
        annotate_files(files, small, out, **SERIAL, error_rate=2)
    with pytest.raises(ValueError, match="is a label of the model"):
        annotate_files(files, small, out, **SERIAL, unassigned="type 1")
    with pytest.raises(ValueError, match="leave it out, or leave out `scheduler`"):
        annotate_files(files, small, out, **SERIAL, n_workers=2)
    with pytest.raises(ValueError, match="at least one worker"):
        annotate_files(files, small, out, n_workers=0)
    with pytest.raises(TypeError, match="not a dict"):
        annotate_files(files, {}, out)
    with pytest.raises(FileNotFoundError, match="There is no model in"):
        annotate_files(files, tmp_path / "nothing", out)
    cells = toy(60)
    SCTAB.setup_anndata(cells, labels_key="cell_type")
    with pytest.raises(RuntimeError, match="not trained"):
        annotate_files(files, SCTAB(cells, encoder="linear", n_d=2), out)


def test_a_worker_needs_memory_for_itself():
    assert parse_memory("4GiB") == 4 << 30
    with pytest.raises(ValueError, match="a worker takes about 1 GiB"):
        parse_memory("300MB")


def test_without_the_packages_the_error_names_the_extra(files, small, out, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"scheduler='serial'.*scvi-sctab\[files\]"):
        annotate_files(files, small, out)
    assert set(annotate_files(files, small, out, **SERIAL)["status"]) == {"done"}
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"'pyarrow'.*scvi-sctab\[files\]"):
        annotate_files(files, small, out, **SERIAL)


# ---------------------------------------------------------------- the folder of tables


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES], ids=["full disk", "permission"])
def test_a_folder_that_cannot_be_written_ends_the_call(number, files, small, out, monkeypatch):
    annotate_files(files[:1], small, out, **SERIAL)

    def fail(path):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(_file_annotation, "flush", fail)
    with pytest.raises(OSError, match="1 of 3 files are finished and will be skipped") as error:
        annotate_files(files, small, out, **SERIAL)
    assert error.value.errno == number
    assert os.strerror(number) in str(error.value)
    assert list(tables(out)) == ["sample3.annotations.parquet"]
    monkeypatch.undo()
    assert list(annotate_files(files, small, out, **SERIAL)["status"]) == [
        *("skipped", "done", "done")
    ]


def test_a_folder_that_cannot_be_created_is_named(files, small, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="folder of the tables cannot be created"):
            annotate_files(files, small, place, **SERIAL)


# ---------------------------------------------------------------- workers


def test_a_scheduler_by_its_address_gives_the_same(files, small, out, cluster, tmp_path):
    bad = files[0].with_name("bad.h5ad")
    bad.write_text("")
    table = annotate_files([bad, *files], small, out, scheduler=cluster.scheduler_address)
    assert list(table["status"]) == ["failed", *["done"] * 3]
    assert "damaged or incomplete" in table["error"][0]
    check(table[1:], small)
    assert len(list(out.iterdir())) == 3  # the model for the workers is gone
    small.save(tmp_path / "model")
    again = annotate_files(files, tmp_path / "model", out, scheduler=cluster.scheduler_address)
    assert list(again["status"]) == ["skipped"] * 3


def test_a_client_is_used_and_left_open(files, small, out, cluster):
    from distributed import Client

    with Client(cluster, set_as_default=False) as client:
        table = annotate_files(files, small, out, scheduler=client, error_rate=0.2)
        assert list(table["status"]) == ["done"] * 3
        assert client.status == "running"


def test_a_full_disk_of_a_worker_ends_the_call(files, small, out, cluster, monkeypatch):
    def fail(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(_file_annotation, "flush", fail)
    with pytest.raises(OSError, match="0 of 3 files are finished"):
        annotate_files(files, small, out, scheduler=cluster.scheduler_address)
    ends = time.monotonic() + 30
    while any(Path(out).iterdir()) and time.monotonic() < ends:
        time.sleep(0.05)  # the other worker clears away what it had begun
    assert tables(out) == {}


def test_a_model_that_is_saved_again_meanwhile_is_refused(files, small, out, tmp_path, cluster):
    small.save(tmp_path / "model")
    other = SCTAB.load(tmp_path / "model")
    other.calibrate(toy(150, seed=7))
    load, n_loaded = SCTAB.load, []

    def save_again(*args, **kwargs):
        model = load(*args, **kwargs)
        if not n_loaded:
            other.save(tmp_path / "model", overwrite=True)
        n_loaded.append(1)
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SCTAB, "load", save_again)
        table = annotate_files(files, tmp_path / "model", out, scheduler=cluster.scheduler_address)
    assert table["error"].str.contains("it was saved again meanwhile").all()
    assert tables(out) == {}


def test_a_file_that_dask_repeats_is_not_done_again(files, small, out, tmp_path):
    small.save(tmp_path / "model")
    out.mkdir()
    output = out / "sample3.annotations.parquet"
    origin = {"input": fingerprint(files[0]), "model": small.digest, "arguments": {}}
    task = FileTask("sample3", str(files[0]), str(output), origin)
    job = AnnotationJob(
        SCTAB, str(tmp_path / "model"), small.digest, str(tmp_path), {}, "cpu", "first"
    )
    assert annotate_in_worker(task, job).status == "done"
    stamp = output.stat().st_mtime_ns
    repeated = annotate_in_worker(task, job)
    assert (repeated.status, repeated.n_cells) == ("done", 43)
    assert output.stat().st_mtime_ns == stamp
    assert annotate_in_worker(task, dataclasses.replace(job, run="second")).status == "done"
    assert output.stat().st_mtime_ns > stamp


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "127.0.0.1:1", "nowhere", "tcp://:x"])
def test_an_address_without_a_scheduler_is_refused_soon(address, files, small, out):
    pytest.importorskip("distributed")
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=f"no Dask scheduler at '{address}'"):
        annotate_files(files, small, out, scheduler=address)
    assert time.monotonic() - start < 20
    assert tables(out) == {}


DEADLY = """
import os, signal, sys
from pathlib import Path
from scvi_sctab import SCTAB, annotate_files

class Deadly(SCTAB):
    def annotate(self, adata, **arguments):
        if adata.n_obs == 44:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().annotate(adata, **arguments)

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    table = annotate_files(
        sorted(folder.glob("counts/*.h5ad")),
        Deadly.load(folder / "model"),
        folder / "annotations",
        n_workers=1,
    )
    table.to_json(folder / "table.json")
"""


@pytest.mark.slow(reason="starts workers, which import the package anew")
def test_a_file_that_kills_its_worker_is_reported_and_the_others_are_done(files, small, tmp_path):
    pytest.importorskip("distributed")
    small.save(tmp_path / "model")
    (tmp_path / "script.py").write_text(DEADLY)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr
    table = pd.read_json(tmp_path / "table.json")
    assert list(table["status"]) == ["done", "failed", "done"]
    assert "The worker was killed while it annotated this file" in table["error"].iloc[1]
    check(table[table["status"] == "done"], small)
    assert ended.stdout == ""


@pytest.mark.slow(reason="starts workers, which import the package anew")
def test_a_script_without_a_guard_ends_with_the_line_to_add(files, small, tmp_path):
    pytest.importorskip("distributed")
    small.save(tmp_path / "model")
    script = tmp_path / "script.py"
    script.write_text(
        "from scvi_sctab import annotate_files\n"
        f"annotate_files({str(files[0])!r}, {str(tmp_path / 'model')!r}, {str(tmp_path)!r})\n"
    )
    ended = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=900
    )
    assert ended.returncode == 1
    assert "call `annotate_files` within `if __name__ == '__main__':`" in ended.stderr
