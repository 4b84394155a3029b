"""What is refused has an exit code, a line of cause, a line of cure, and leaves nothing."""

import re
import sys
from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest
from mudata import MuData
from typer.testing import CliRunner

from scvi_sctab import SCTAB
from scvi_sctab.cli import app
from scvi_sctab.data.files import RefusedInputError, open_stored, read_gene_table


def missing(adata, folder, write):
    return folder / "missing.h5ad"


def whole(adata, folder, write):
    return write("h5ad", adata, folder)


def of_another_format(adata, folder, write):
    (folder / "cells.csv").write_text("cell,CD3D\na,1\n")
    return folder / "cells.csv"


def text(adata, folder, write):
    (folder / "cells.h5ad").write_text("no counts here")
    return folder / "cells.h5ad"


def cut(adata, folder, write):
    path = write("h5ad", adata, folder)
    path.write_bytes(path.read_bytes()[:9000])
    return path


def logs(adata, folder, write):
    adata.X = adata.X.log1p()
    return write("h5ad", adata, folder)


def scaled(adata, folder, write):
    adata.X = adata.X.toarray() - 0.5
    return write("h5ad", adata, folder)


def not_a_number_later(adata, folder, write):
    adata.X.data[-1] = np.nan
    return write("h5ad", adata, folder)


def no_cells(adata, folder, write):
    return write("h5ad", adata[:0].copy(), folder)


def shared_names(adata, folder, write):
    adata.obs_names = ["a", "a", *adata.obs_names[2:]]
    return write("h5ad", adata, folder)


def other_genes(adata, folder, write):
    adata.var_names = [f"gene{i}" for i in range(adata.n_vars)]
    return write("h5ad", adata, folder)


def mouse(adata, folder, write):
    adata.var_names = [f"{name[0]}{name[1:].lower()}" for name in adata.var_names]
    return write("h5ad", adata, folder)


def no_cells_in_hdf5(adata, folder, write):
    with h5py.File(folder / "cells.h5", "w") as file:
        file["numbers"] = [1, 2]
    return folder / "cells.h5"


def empty_folder(adata, folder, write):
    (folder / "cells").mkdir()
    return folder / "cells"


def no_barcodes(adata, folder, write):
    path = write("matrix_folder", adata, folder)
    (path / "barcodes.tsv.gz").unlink()
    return path


def barcodes_of_another_run(adata, folder, write):
    path = write("tenx", adata, folder)
    with h5py.File(path, "r+") as file:
        del file["matrix/barcodes"]
        file["matrix/barcodes"] = np.array(["a", "b"], dtype="S")
    return path


REFUSED = {
    "missing": (missing, (), "There is no file", "Check its name"),
    "of another format": (of_another_format, (), "format that is not read", "Convert it"),
    "text": (text, (), "damaged or incomplete", "Copy or write it again"),
    "cut": (cut, (), "damaged or incomplete", "Copy or write it again"),
    "logs": (logs, (), "`?X`? looks log-normalised", "Write raw counts"),
    "scaled": (scaled, (), "negative values", "Write raw counts"),
    "not a number, later": (not_a_number_later, (), "holds NaN", "Set them to 0"),
    "no cells": (no_cells, (), "has no cells", "Choose a file with cells"),
    "shared names": (shared_names, (), "cells share names", "obs_names_make_unique"),
    "other genes": (other_genes, (), "0 of the model's 300 genes", "table of gene names"),
    "mouse": (mouse, (), "of the model's 300 genes", "orthologs"),
    "no such layer": (whole, ("--layer", "x"), "no matrix 'x'", "Name one that it has: 'X'"),
    "no such column": (whole, ("--gene-column", "x"), "no column 'x'", "Name the one"),
    "no such table": (whole, ("--gene-table", "x"), "table x cannot be read", "Check its name"),
    "no cells in HDF5": (no_cells_in_hdf5, (), "without cells", "Convert it"),
    "empty folder": (empty_folder, (), "neither a .zarr folder", "Convert it"),
    "no barcodes": (no_barcodes, (), "lacks barcodes.tsv", "has matrix.mtx, barcodes.tsv"),
    "barcodes of another run": (barcodes_of_another_run, (), "2 of cells", "Copy the files again"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_cause_a_cure_and_no_file(why, run, write, folder, query, tmp_path):
    make, options, cause, cure = REFUSED[why]
    source = tmp_path / "input"
    source.mkdir()
    path = make(query, source, write)
    before = sorted(source.rglob("*"))
    done = run("annotate", path, "-m", folder, "-o", tmp_path / "out", "--h5ad", "-q", *options)
    assert done.code == 3, done.err
    assert done.out == ""
    lines = done.err.splitlines()
    assert len(lines) == 2, done.err
    assert re.match(f"error: .*{cause}", lines[0]), lines
    assert re.match(f"cure: .*{re.escape(cure)}", lines[1]), lines
    assert not (tmp_path / "out").exists()
    assert sorted(tmp_path.iterdir()) == [source]
    assert sorted(source.rglob("*")) == before


def test_one_refused_file_does_not_stop_the_others(run, folder, path, tmp_path):
    bad = tmp_path / "bad.h5ad"
    bad.write_text("no counts here")
    done = run("annotate", bad, path, "-m", folder, "-o", tmp_path / "out", "--json")
    assert done.code == 3
    (error,) = done.named("error")
    assert error["input"] == str(bad)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "cells.annotations.csv",
        "cells.summary.json",
    ]


@pytest.mark.parametrize("debug", [False, True])
def test_a_traceback_is_for_who_asks(debug, write, folder, query, tmp_path):
    path = logs(query, tmp_path, write)
    line = ["annotate", str(path), "-m", str(folder), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, line + ["--debug"] * debug)
    assert isinstance(result.exception, SystemExit) is not debug
    assert result.exit_code == (1 if debug else 3)


def test_a_model_that_is_missing_damaged_or_of_another_kind(run, folder, path, tmp_path):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    whole = (folder / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(whole[:-100])
    empty = tmp_path / "empty"
    empty.mkdir()
    for model in (damaged, empty, "no-such-model"):
        done = run("annotate", path, "-m", model, "-o", tmp_path / "out", "--quiet")
        assert done.code == 4, done.err
        assert [line.split(":")[0] for line in done.err.splitlines()] == ["error", "cure"]
        assert not (tmp_path / "out").exists()
    assert "models list" in done.err


def test_wrong_usage(run, folder, path, tmp_path):
    assert run("annotate", path, "-m", folder).code == 2
    assert run("annotate", path, "-m", folder, "-o", path).code == 2
    out = tmp_path / "out"
    assert run("annotate", path, "-m", folder, "-o", out, "--min-gene-overlap", 2).code == 2
    assert run("annotate", path, path, "-m", folder, "-o", out).code == 2
    assert run("annotate", "-", "-m", folder, "-o", out, stdin="").code == 2
    assert not out.exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--over-clustering", "leiden"),
        ("--workers", "2"),
        ("--scheduler", "serial", "--h5ad"),
        ("--scheduler", "serial", "--gene-column", "symbol"),
    ],
    ids=" ".join,
)
def test_an_option_that_does_not_apply_is_wrong_usage(options, run, folder, path, tmp_path):
    done = run("annotate", path, "-m", folder, "-o", tmp_path / "out", *options)
    assert done.code == 2
    assert "does not apply" in done.err
    assert not (tmp_path / "out").exists()


def test_a_missing_extra_is_wrong_usage(run, folder, path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = run("annotate", path, "-m", folder, "-o", tmp_path / "out", "--format", "parquet")
    assert done.code == 2
    assert "Install it: `pip install 'scvi-sctab[files]'`" in done.err


def test_wrong_rates_are_refused(run, folder, path, tmp_path):
    done = run("annotate", path, "-m", folder, "-o", tmp_path / "out", "--error-rate", 2, "-q")
    assert done.code == 3
    assert "error_rate=2.0 is not between 0 and 1" in done.err


def test_tables_of_genes_need_two_names_in_a_line(tmp_path):
    path = tmp_path / "genes.tsv"
    path.write_text("CD3D\nCD4\n")
    with pytest.raises(RefusedInputError, match="no line with two names"):
        read_gene_table(path)
    path.write_text("CD3D\tT3D\t\n\nCD4\n")
    assert read_gene_table(path) == [["CD3D", "T3D"]]


@pytest.mark.filterwarnings("ignore:.*:FutureWarning:mudata")
def test_modalities_without_rna_are_to_be_named(run, folder, query, tmp_path):
    cells = query[:, :5].copy()
    cells.obs = pd.DataFrame(index=cells.obs_names)
    other = cells.copy()
    other.var_names = [f"p{i}" for i in range(5)]
    path = tmp_path / "cells.h5mu"
    MuData({"gex": cells, "prot": other}).write_h5mu(path)
    done = run("annotate", path, "-m", folder, "-o", tmp_path / "out")
    assert done.code == 3
    assert "it has 'gex', 'prot'" in done.err
    done = run("annotate", path, "-m", folder, "-o", tmp_path / "out", "--modality", "atac")
    assert "has no modality 'atac'" in done.err


def damage(path, name):
    """Write a block of a dataset that cannot be decompressed."""
    with h5py.File(path) as file:
        chunk = file[name].id.get_chunk_info(file[name].id.get_num_chunks() - 1)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)


@pytest.mark.parametrize("options", [(), ("--h5ad",), ("--scheduler", "serial")], ids=str)
def test_damage_that_is_found_while_reading_refuses_that_file(
    options, run, folder, path, query, tmp_path
):
    bad = tmp_path / "bad.h5ad"
    query.write_h5ad(bad, compression="gzip")
    damage(bad, "X/data")
    done = run("annotate", bad, path, "-m", folder, "-o", tmp_path / "out", *options)
    assert done.code == 3, done.err
    assert f"error: {bad} cannot be read, it is damaged or incomplete" in done.err
    assert "cure: Copy or write it again." in done.err
    made = [file.name for file in (tmp_path / "out").iterdir()]
    assert [name for name in made if name.startswith("cells.annotations")]
    assert not [name for name in made if name.startswith("bad")]


def test_damage_of_what_a_file_lists_refuses_it(run, folder, query, tmp_path):
    """The name of the counts is there, and the object that it stands for is not."""
    bad = tmp_path / "bad.h5ad"
    query.write_h5ad(bad)
    with h5py.File(bad, "r") as file:
        place = h5py.h5o.get_info(file["X/data"].id).addr
    content = bytearray(bad.read_bytes())
    content[place : place + 16] = b"\xff" * 16  # the header of the dataset
    bad.write_bytes(content)
    done = run("annotate", bad, "-m", folder, "-o", tmp_path / "out")
    assert done.code == 3, done.err
    assert f"error: {bad} cannot be read, it is damaged or incomplete" in done.err


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
@pytest.mark.parametrize("command", ["inspect", "evaluate", "train"])
def test_damage_of_a_zarr_folder_is_a_refusal(command, run, write, folder, query, tmp_path):
    path = write("zarr", query, tmp_path)
    block = sorted(path.glob("X/data/**/[0-9]*"))[-1]
    block.write_bytes(block.read_bytes()[:16] + bytes(block.stat().st_size - 16))
    model = () if command == "train" else ("-m", folder)
    keys = () if command == "inspect" else ("--labels-key", "cell_type")
    out = () if command == "inspect" else ("-o", tmp_path / "out")
    done = run(command, path, *model, *keys, *out)
    assert done.code == 3, done.err
    assert f"error: {path} cannot be read, it is damaged or incomplete" in done.err


def test_a_full_disk_is_no_damage_of_the_file_that_is_read(path):
    for error in (
        OSError(28, "No space left on device"),
        OSError("Can't synchronously write data"),
        RuntimeError("a fault"),
    ):
        with pytest.raises(type(error), match=str(error.args[-1])), open_stored(path):
            raise error


@pytest.mark.parametrize("options", [(), ("--scheduler", "serial")], ids=["one", "many"])
def test_unassigned_needs_a_calibrated_model(options, run, folder, path, tmp_path):
    model = SCTAB.load(folder, adata=False)
    model.annotation = replace(model.annotation, calibration=None)
    model.save(tmp_path / "model")
    line = ("annotate", path, "-m", tmp_path / "model", "-o", tmp_path / "out", *options)
    done = run(*line, "--unassigned", "x")
    assert done.code == 2, done.err
    assert "this one is not calibrated" in done.err
    assert "cure: Leave out --unassigned; or calibrate the model" in done.err
    assert not (tmp_path / "out").exists()
    assert run(*line).code == 0


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "tcp://nohost.invalid:8786", "nonsense"])
def test_a_scheduler_that_is_not_there_is_wrong_usage(address, run, folder, path, tmp_path):
    out = tmp_path / "out"
    done = run("annotate", path, "-m", folder, "-o", out, "--scheduler", address)
    assert done.code == 2, done.err
    assert f"error: There is no Dask scheduler at '{address}'" in done.err
    assert "--scheduler local" in done.err
    assert "`scheduler`" not in done.err


def test_workers_are_those_of_this_machine(run, folder, path, tmp_path):
    line = ("annotate", path, "-m", folder, "-o", tmp_path / "out", "--workers", 2)
    done = run(*line, "--scheduler", "tcp://127.0.0.1:9")
    assert done.code == 2
    assert "--workers does not apply without --scheduler local" in done.err


@pytest.mark.parametrize("options", [(), ("--scheduler", "serial")], ids=["one", "many"])
@pytest.mark.parametrize("what", ["an empty folder", "a damaged file", "no folder"])
def test_a_model_is_opened_alike_for_one_file_and_many(what, options, run, folder, path, tmp_path):
    model = tmp_path / "model"
    if what != "no folder":
        model.mkdir()
    if what == "a damaged file":
        whole = (folder / "model.safetensors").read_bytes()
        (model / "model.safetensors").write_bytes(whole[:-100])
    done = run("annotate", path, "-m", model, "-o", tmp_path / "out", *options)
    assert done.code == 4, done.err
    assert str(model) in done.err
    if what == "an empty folder":
        assert "holds no model: it has no model.safetensors" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", ["genes", "labels"])
@pytest.mark.parametrize("suffix", ["txt", "parquet"])
def test_names_of_a_checkpoint_that_are_missing_are_refused(what, suffix, run, tmp_path):
    checkpoint = tmp_path / "run5.ckpt"
    checkpoint.write_bytes(b"")
    names = {"genes": tmp_path / "genes.txt", "labels": tmp_path / "labels.txt"}
    for file in names.values():
        file.write_text("a\n")
    names[what] = tmp_path / f"missing.{suffix}"
    options = [word for option, file in names.items() for word in (f"--{option}", file)]
    done = run("convert", checkpoint, "-o", tmp_path / "out", *options)
    assert done.code == 3, done.err
    assert f"error: There is no file {names[what]}." in done.err
    assert f"--{what}" in done.err
    names[what].mkdir()
    done = run("convert", checkpoint, "-o", tmp_path / "out", *options)
    assert done.code == 3
    assert "is a folder, not a file" in done.err


def test_a_parquet_file_that_is_none_is_refused(run, tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "run5.ckpt").write_bytes(b"")
    (tmp_path / "var.parquet").write_text("no table")
    names = ("--genes", tmp_path / "var.parquet", "--labels", tmp_path / "var.parquet")
    done = run("convert", tmp_path / "run5.ckpt", "-o", tmp_path / "out", *names)
    assert done.code == 3, done.err
    assert "var.parquet cannot be read" in done.err


def test_files_of_a_corpus_that_are_missing_are_refused(run, path, tmp_path):
    keys = ("-o", tmp_path / "out", "--labels-key", "cell_type")
    done = run("corpus", path, *keys, "--genes", "intersect")
    assert done.code == 3, done.err
    assert "error: There is no file intersect." in done.err
    assert "Pass intersection, union, or a file" in done.err
    done = run("corpus", path, tmp_path / "missing.h5ad", *keys)
    assert done.code == 3, done.err
    assert f"error: There is no file {tmp_path / 'missing.h5ad'}." in done.err
    (tmp_path / "genes.txt").write_bytes(b"\xff\xfe\x00")
    done = run("corpus", path, *keys, "--genes", tmp_path / "genes.txt")
    assert done.code == 3
    assert "Pass a text file" in done.err
