"""What is refused has an exit code, a line of cause, a line of cure, and leaves nothing."""

import re
import sys

import h5py
import numpy as np
import pandas as pd
import pytest
from mudata import MuData
from typer.testing import CliRunner

from scvi_sctab.cli import app
from scvi_sctab.data.files import RefusedInputError, read_gene_table


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
        done = run("annotate", path, "-m", model, "-o", tmp_path / "out")
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
