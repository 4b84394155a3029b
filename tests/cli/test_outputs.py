"""Files of an annotation: their layouts, and that they are whole or not there."""

import json
import os
import threading

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from typer.testing import CliRunner

from scvi_sctab.base import publish_files, temporary_folder
from scvi_sctab.cli import app
from scvi_sctab.cli._annotating import Statements
from scvi_sctab.cli._layouts import Request
from scvi_sctab.data import files
from scvi_sctab.data.files import open_stored, write_annotated

pytest.importorskip("pyarrow")

pytestmark = pytest.mark.filterwarnings("ignore:These cells differ")  # another study


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def noise(shape):
    """Counts that resemble no cell, and no single label more than the others."""
    return np.random.default_rng(0).poisson(1.0, shape).astype(np.float32)


def test_the_table_is_what_annotate_returns(run, folder, model, path, query, tmp_path):
    expected = model.annotate(query)
    out = tmp_path / "out"
    options = ("--format", "parquet", "--probabilities", "-p", "lab1_")
    done = run("annotate", path, "-m", folder, "-o", out, *options)
    assert (done.code, done.out) == (0, "")
    assert names(out) == [
        "lab1_annotations.parquet",
        "lab1_probabilities.parquet",
        "lab1_summary.json",
    ]
    frame = pd.read_parquet(out / "lab1_annotations.parquet")
    assert frame.index.name == "barcode"
    pd.testing.assert_frame_equal(frame, expected, check_names=False)
    probabilities = pd.read_parquet(out / "lab1_probabilities.parquet")
    pd.testing.assert_frame_equal(
        probabilities, model.predict(query, soft=True), check_names=False
    )
    summary = json.loads((out / "lab1_summary.json").read_text())
    assert summary["labels"] == expected["label"].value_counts()[lambda n: n > 0].to_dict()
    assert summary["share_novel"] == round(expected["novel"].mean(), 4)
    assert summary["status"] == expected["status"].value_counts().to_dict()
    shown = done.err.split("Of these cells ")[1].split(".\n")[0].split(", ")
    assert shown == [f"{n:,} {name}" for name, n in summary["status"].items() if n]
    assert summary["model_digest"] == model.digest
    assert summary["model"] == "blood"
    assert summary["shift"].keys() == set(model.get_shift(query).index)


def test_text_tables_start_with_the_barcode(run, folder, path, query, tmp_path):
    for name, separator in (("csv", ","), ("tsv", "\t")):
        done = run("annotate", path, "-m", folder, "-o", tmp_path / name, "--format", name)
        assert done.code == 0, done.err
        lines = (tmp_path / name / f"annotations.{name}").read_text().splitlines()
        assert lines[0].split(separator)[:3] == ["barcode", "label", "probability"]
        assert [line.split(separator)[0] for line in lines[1:]] == list(query.obs_names)


def test_options_of_statements_are_those_of_annotate(run, folder, model, path, query, tmp_path):
    given = {"error_rate": 0.3, "false_alarm_rate": 0.2, "unassigned": "none"}
    options = [w for k, v in given.items() for w in (f"--{k.replace('_', '-')}", v)]
    done = run("annotate", path, "-m", folder, "-o", tmp_path, "--overwrite", *options)
    assert done.code == 0, done.err
    expected = model.annotate(query, **given)
    frame = pd.read_csv(tmp_path / "annotations.csv", index_col=0, keep_default_na=False)
    assert "none" in set(frame["label"])
    for name in ("label", "prediction_set", "closest_label"):
        np.testing.assert_array_equal(frame[name], expected[name].astype(str))


def test_votes_are_those_of_refine(run, folder, model, path, query, tmp_path):
    clusters = ("--over-clustering", "cell_type")
    done = run("annotate", path, "-m", folder, "-o", tmp_path, "--majority-voting", *clusters)
    assert done.code == 0, done.err
    frame = pd.read_csv(tmp_path / "annotations.csv", index_col=0)
    expected = model.refine(query, "cell_type")
    np.testing.assert_array_equal(frame["refined_label"], expected["label"])
    assert (frame["refined_label"] != frame["label"]).any()
    assert "cluster" not in frame


def test_the_layout_of_celltypist_is_exact(run, folder, model, path, query, tmp_path):
    """As `AnnotationResult.to_table` of CellTypist 1.7 writes it."""
    done = run("annotate", path, "-m", folder, "-o", tmp_path / "out", "--columns", "celltypist")
    assert done.code == 0, done.err
    out = tmp_path / "out"
    assert names(out) == [
        "decision_matrix.csv",
        "predicted_labels.csv",
        "probability_matrix.csv",
        "summary.json",
    ]
    labels = pd.DataFrame(
        model.predict(query), columns=["predicted_labels"], index=query.obs_names, dtype="category"
    )
    assert (out / "predicted_labels.csv").read_text() == labels.to_csv()
    assert (out / "predicted_labels.csv").read_text().startswith(",predicted_labels\n")
    probabilities = model.predict(query, soft=True)
    assert (out / "probability_matrix.csv").read_text() == probabilities.to_csv()
    decisions = pd.read_csv(out / "decision_matrix.csv", index_col=0)
    assert list(decisions) == list(model.labels)
    assert decisions.shape == probabilities.shape
    computed = model.annotation.probabilities(decisions.to_numpy(np.float32))
    np.testing.assert_allclose(computed, probabilities, atol=1e-5)


def test_the_layout_of_celltypist_with_votes(run, folder, path, query, tmp_path):
    options = ("--columns", "celltypist", "--majority-voting", "--over-clustering", "cell_type")
    done = run("annotate", path, "-m", folder, "-o", tmp_path / "out", "-p", "a_", *options)
    assert done.code == 0, done.err
    frame = pd.read_csv(tmp_path / "out" / "a_predicted_labels.csv", index_col=0)
    assert list(frame) == ["predicted_labels", "over_clustering", "majority_voting"]
    np.testing.assert_array_equal(frame["over_clustering"], query.obs["cell_type"])


def test_the_layout_of_nf_core_is_exact(run, folder, model, path, query, tmp_path):
    """As the modules of nf-core/scdownstream write it."""
    options = ("--columns", "nf-core", "-p", "sample1", "--h5ad")
    done = run("annotate", path, "-m", folder, "-o", tmp_path / "out", *options)
    assert done.code == 0, done.err
    out = tmp_path / "out"
    assert names(out) == [
        "sample1.h5ad",
        "sample1.parquet",
        "sample1_annotation_columns.csv",
        "sample1_summary.json",
    ]
    assert (out / "sample1_annotation_columns.csv").read_bytes() == (
        b"obs_column,aggregatable\n"
        b"annotation:scvi-sctab:blood:per_cell,true\n"
        b"annotation:scvi-sctab:blood:per_cell:confidence,false\n"
    )
    frame = pd.read_parquet(out / "sample1.parquet")
    expected = model.annotate(query)
    expected = expected[["label", "probability"]].set_axis(
        [
            "annotation:scvi-sctab:blood:per_cell",
            "annotation:scvi-sctab:blood:per_cell:confidence",
        ],
        axis=1,
    )
    pd.testing.assert_frame_equal(frame, expected)
    annotated = read_h5ad(out / "sample1.h5ad")
    pd.testing.assert_frame_equal(annotated.obs[list(expected)], expected)
    assert set(query.obs) < set(annotated.obs)


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
@pytest.mark.filterwarnings("ignore:.*:FutureWarning:mudata")
@pytest.mark.parametrize("kind", ["h5ad", "dense", "zarr", "h5mu", "tenx"])
def test_an_annotated_copy_holds_what_the_file_holds(
    kind, run, write, folder, model, query, tmp_path, monkeypatch
):
    monkeypatch.setattr(files._write, "READ_BLOCK_CELLS", 100)
    query.obs["sctab_label"] = "of an earlier run"
    counts, symbols = query.X.toarray(), list(query.var_names)
    path = write(kind, query.copy(), tmp_path)
    done = run("annotate", path, "-m", folder, "-o", tmp_path / "out", "--h5ad")
    assert done.code == 0, done.err
    annotated = read_h5ad(tmp_path / "out" / "annotated.h5ad")
    assert list(annotated.var_names) == symbols
    x = annotated.X if kind == "dense" else annotated.X.toarray()
    np.testing.assert_array_equal(x, counts)
    np.testing.assert_array_equal(annotated.obs["sctab_label"], model.predict(query))
    if kind == "h5ad":
        assert annotated.uns["provenance"] == query.uns["provenance"]
        assert list(annotated.obs["cell_type"]) == list(query.obs["cell_type"])


def test_an_annotated_copy_is_written_a_block_at_a_time(write, query, tmp_path, monkeypatch):
    """No more rows are read at a time than a block has."""
    monkeypatch.setattr(files._write, "READ_BLOCK_CELLS", 50)
    sizes = []
    take_rows = files._write.take_rows

    def count(matrix, rows):
        block = take_rows(matrix, rows)
        sizes.append(block.shape[0])
        return block

    monkeypatch.setattr(files._write, "take_rows", count)
    path = write("tenx", query, tmp_path)
    columns = pd.DataFrame({"label": "a"}, query.obs_names)
    with open_stored(path) as stored:
        write_annotated(stored, columns, tmp_path / "copy.h5ad")
    assert max(sizes) == 50
    assert sum(sizes) == query.n_obs


def test_several_files_have_their_own_names(run, folder, path, query, tmp_path):
    other = tmp_path / "other.h5ad"
    query[:20].copy().write_h5ad(other)
    done = run("annotate", "-", "-m", folder, "-o", tmp_path / "out", stdin=f"{path}\n{other}\n")
    assert done.code == 0, done.err
    assert names(tmp_path / "out") == [
        "cells.annotations.csv",
        "cells.summary.json",
        "other.annotations.csv",
        "other.summary.json",
    ]
    assert len(pd.read_csv(tmp_path / "out" / "other.annotations.csv")) == 20


def test_nothing_is_overwritten_unless_asked(run, folder, path, tmp_path):
    out = tmp_path / "out"
    line = ("annotate", path, "-m", folder, "-o", out)
    assert run(*line).code == 0
    (out / "annotations.csv").write_text("mine")
    (out / "notes.txt").write_text("mine")
    done = run(*line)
    assert done.code == 2
    assert f"{out / 'annotations.csv'} exists and was left as it is" in done.err
    assert "--overwrite" in done.err
    assert (out / "annotations.csv").read_text() == "mine"
    assert run(*line, "--overwrite").code == 0
    assert (out / "annotations.csv").read_text().startswith("barcode,")
    assert (out / "notes.txt").read_text() == "mine"


def test_files_of_two_writers_do_not_mix(tmp_path):
    """Those in the folder are of one writer, whoever was last."""
    out = tmp_path / "out"
    out.mkdir()

    def publish(number):
        for _ in range(20):
            with temporary_folder(out) as aside:
                for name in ("a", "b", "c", "d"):
                    (aside / name).write_text(str(number))
                publish_files(aside, out, overwrite=True)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(out) == ["a", "b", "c", "d"]
    assert len({file.read_text() for file in out.iterdir()}) == 1


def test_of_two_writers_without_overwrite_one_is_refused(tmp_path):
    out = tmp_path / "out"
    outcomes = []

    def publish(number):
        with temporary_folder(out) as aside:
            for name in ("a", "b"):
                (aside / name).write_text(str(number))
            try:
                publish_files(aside, out, overwrite=False)
                outcomes.append(number)
            except FileExistsError:
                pass

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 1
    assert {file.read_text() for file in out.iterdir()} == {str(outcomes[0])}


def test_an_error_while_writing_leaves_nothing(run, folder, path, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_annotated", fail)
    done = run("annotate", path, "-m", folder, "-o", tmp_path / "out", "--h5ad")
    assert done.code == 1
    assert "No space left on device" in done.err
    assert names(tmp_path) == ["cells.h5ad"]


def test_a_shift_is_said_and_changes_the_exit_code_if_strict(run, folder, path, query, tmp_path):
    query.X = noise(query.shape)
    query.write_h5ad(path)
    line = ("annotate", path, "-m", folder, "--overwrite", "-o", tmp_path / "out")
    done = run(*line)
    assert done.code == 0
    assert "warning: " in done.err
    assert "differ from those that the model was calibrated on" in done.err
    assert run(*line, "--strict").code == 5
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["shifted"] is True


def test_cells_like_the_reference_are_no_shift(run, write, folder, model, reference, tmp_path):
    unseen = reference[~model.trained_on(reference)].copy()
    path = write("h5ad", unseen, tmp_path)
    done = run("annotate", path, "-m", folder, "-o", tmp_path / "out", "--strict")
    assert done.code == 0
    assert "warning" not in done.err


def test_events_are_json_lines(run, folder, path, query, tmp_path):
    out = tmp_path / "out"
    done = run("annotate", path, "-m", folder, "-o", out, "--json")
    assert done.code == 0
    assert done.named("progress") == [
        {"event": "progress", "done": 0, "total": 1, "input": str(path)}
    ]
    assert done.events[-1] == {
        "event": "done",
        "files": [str(out / "annotations.csv"), str(out / "summary.json")],
    }
    refused = run("annotate", path, "-m", "nothing", "-o", out, "--json", "--overwrite")
    (error,) = refused.events
    assert (error["event"], error["code"]) == ("error", 4)
    assert set(error) == {"event", "code", "cause", "cure"}


def test_quiet_says_nothing_where_nothing_is_wrong(run, folder, path, tmp_path):
    done = run("annotate", path, "-m", folder, "-o", tmp_path / "out", "--quiet")
    assert (done.code, done.out) == (0, "")
    assert [line for line in done.err.splitlines() if "warning" not in line] == []


@pytest.mark.parametrize("no_color", ["", "1"])
def test_no_color(no_color, path, tmp_path):
    line = ["annotate", str(path), "-m", "nothing", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, line, color=True, env={"NO_COLOR": no_color})  # a terminal
    assert "There is no model 'nothing'" in result.stderr
    assert ("\x1b[" in result.stderr) is (no_color == "")


def test_many_files_by_a_scheduler(run, folder, model, path, query, tmp_path):
    broken = tmp_path / "broken.h5ad"
    broken.write_text("no counts here")
    line = (
        "annotate",
        path,
        broken,
        "-m",
        folder,
        "-o",
        tmp_path / "out",
        "--scheduler",
        "serial",
    )
    done = run(*line)
    assert done.code == 3
    assert "cells.annotations.parquet: done, 528 cells" in done.err
    assert f"{path}: 528 cells, counts in X" in done.err
    assert "error: " in done.err
    assert names(tmp_path / "out") == ["cells.annotations.parquet"]
    frame = pd.read_parquet(tmp_path / "out" / "cells.annotations.parquet")
    np.testing.assert_array_equal(frame["label"], model.predict(query))
    assert "cells.annotations.parquet: skipped" in run(*line).err


@pytest.fixture
def shifted(query, tmp_path):
    """A file of cells that differ from those of the model."""
    query.X = noise(query.shape)
    query.write_h5ad(tmp_path / "shifted.h5ad")
    return tmp_path / "shifted.h5ad"


@pytest.mark.parametrize("order", [1, -1], ids=["refused first", "refused last"])
def test_a_refusal_counts_more_than_a_shift(order, run, folder, shifted, tmp_path):
    bad = tmp_path / "bad.h5ad"
    bad.write_text("no counts here")
    line = ("annotate", *[bad, shifted][::order], "-m", folder, "-o", tmp_path / "out", "--strict")
    done = run(*line)
    assert done.code == 3
    assert "differ from those that the model was calibrated on" in done.err
    assert names(tmp_path / "out") == ["shifted.annotations.csv", "shifted.summary.json"]


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
@pytest.mark.filterwarnings("ignore:.*:FutureWarning:mudata")
@pytest.mark.parametrize("kind", ["h5ad", "zarr", "h5mu"])
@pytest.mark.parametrize("place", ["layers['counts']", "raw.X"])
def test_an_annotated_copy_of_a_file_without_x(
    place, kind, run, write, folder, model, query, tmp_path
):
    expected, counts = model.predict(query), query.X.toarray()
    cells = AnnData(obs=query.obs[[]], var=query.var[[]])
    if place == "raw.X":
        cells.raw = AnnData(query.X, query.obs[[]], query.var[[]])
    else:
        cells.layers["counts"] = query.X
    path = write(kind, cells, tmp_path)
    done = run("annotate", path, "-m", folder, "-o", tmp_path / "out", "--h5ad")
    assert done.code == 0, done.err
    assert f"counts in {place}" in done.err
    annotated = read_h5ad(tmp_path / "out" / "annotated.h5ad")
    np.testing.assert_array_equal(annotated.obs["sctab_label"], expected)
    assert list(annotated.obs_names) == list(query.obs_names)
    if kind != "h5ad":  # which is copied as it is
        np.testing.assert_array_equal(annotated.X.toarray(), counts)
        assert list(annotated.var_names) == list(query.var_names)


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_an_annotated_copy_keeps_strings_with_missing_values(
    kind, run, write, folder, query, tmp_path
):
    site = pd.array([None, *["blood"] * (query.n_obs - 1)], dtype="string")
    cells = AnnData(query.X, query.obs[[]].assign(site=site), query.var[[]])
    cells.var["note"] = pd.array([None, *["a"] * (query.n_vars - 1)], dtype="string")
    cells.strings_to_categoricals = lambda *_: None  # as pandas writers leave them
    with anndata.settings.override(allow_write_nullable_strings=True):
        path = write(kind, cells, tmp_path)
    with open_stored(path) as stored:
        assert stored.obs["site"].dtype == "string"
    done = run("annotate", path, "-m", folder, "-o", tmp_path / "out", "--h5ad")
    assert done.code == 0, done.err
    annotated = read_h5ad(tmp_path / "out" / "annotated.h5ad")
    assert annotated.obs["site"].isna().tolist() == [True] + [False] * (query.n_obs - 1)
    assert set(annotated.obs["site"].dropna()) == {"blood"}
    assert annotated.var["note"].isna().sum() == 1


def test_a_column_that_cannot_be_written_is_refused_before_annotating(
    run, folder, path, tmp_path, monkeypatch
):
    read = files._open.read_stored

    def add_column(*arguments):
        stored = read(*arguments)
        stored.obs["mixed"] = [{"a": 1}] * len(stored.obs)
        return stored

    monkeypatch.setattr(files._open, "read_stored", add_column)
    monkeypatch.setattr(Statements, "annotate", lambda *_: pytest.fail("cells are annotated"))
    done = run("annotate", path, "-m", folder, "-o", tmp_path / "out", "--h5ad")
    assert done.code == 3
    assert "the column 'mixed' of obs cannot be written" in done.err
    assert "leave out --h5ad" in done.err
    assert names(tmp_path) == ["cells.h5ad"]


def test_offsets_of_an_annotated_copy_have_64_bits(write, query, tmp_path):
    path = write("tenx", query, tmp_path)
    with open_stored(path) as stored:
        write_annotated(stored, stored.obs.assign(label="a"), tmp_path / "copy.h5ad")
    with h5py.File(tmp_path / "copy.h5ad") as file:
        assert file["X/indptr"].dtype == np.int64
        assert file["X/indices"].dtype == np.int32


@pytest.mark.parametrize("parents", ["notes.txt", "notes.txt/out", "notes.txt/a/b"])
@pytest.mark.parametrize("options", [(), ("--scheduler", "serial")], ids=["one", "many"])
def test_a_folder_in_a_file_is_wrong_usage(options, parents, run, folder, path, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    done = run("annotate", path, "-m", folder, "-o", tmp_path / parents, *options)
    assert done.code == 2
    assert f"{tmp_path / 'notes.txt'} is a file, not a folder" in done.err
    assert names(tmp_path) == ["cells.h5ad", "notes.txt"]


@pytest.mark.parametrize("command", ["evaluate", "train", "map"])
def test_other_commands_check_parents_before_they_start(
    command, run, folder, path, tmp_path, monkeypatch
):
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    options = {
        "evaluate": ("-m", folder, "--labels-key", "cell_type", "-o", notes / "scores.csv"),
        "train": ("--labels-key", "cell_type", "-o", notes / "model"),
        "map": ("-m", folder, "-o", tmp_path / "out", "--save", notes / "model"),
    }[command]
    monkeypatch.setattr(files, "open_stored", lambda *_: pytest.fail("the cells are read"))
    done = run(command, path, *options)
    assert done.code == 2
    assert f"{notes} is a file, not a folder" in done.err
    assert ("--save" if command == "map" else "--out") in done.err


def test_a_folder_of_somebody_else_is_wrong_usage(run, folder, path, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda _, mode, **__: not mode & os.W_OK)
    done = run("annotate", path, "-m", folder, "-o", tmp_path / "new" / "out")
    assert done.code == 2
    assert f"There is no permission to write to {tmp_path}." in done.err


@pytest.mark.parametrize("prefix", ["sub/x", "/x", "../x", "x/"])
def test_a_prefix_is_a_plain_name(prefix, run, folder, path, tmp_path, monkeypatch):
    monkeypatch.setattr(Statements, "annotate", lambda *_: pytest.fail("cells are annotated"))
    for command in ("annotate", "map"):
        done = run(command, path, "-m", folder, "-o", tmp_path / "out", "--prefix", prefix)
        assert done.code == 2
        assert "is no plain name of a file" in done.err
        assert "Leave folders out of --prefix" in done.err
    assert names(tmp_path) == ["cells.h5ad"]


def test_a_folder_of_the_name_of_a_file_is_wrong_usage(run, folder, path, tmp_path):
    out = tmp_path / "out"
    (out / "summary.json").mkdir(parents=True)
    done = run("annotate", path, "-m", folder, "-o", out, "--overwrite")
    assert done.code == 2
    assert f"{out / 'summary.json'} is no file" in done.err
    assert names(out) == ["summary.json"]


def test_an_error_that_something_exists_is_not_taken_for_the_results(
    run, folder, path, tmp_path, monkeypatch
):
    def fail(*_):
        raise FileExistsError(17, "File exists", "cache")

    monkeypatch.setattr(Request, "write", fail)
    done = run("annotate", path, "-m", folder, "-o", tmp_path / "out")
    assert done.code == 1
    assert "error: File exists: cache." in done.err


@pytest.mark.parametrize("overwrite", [False, True])
def test_all_names_are_checked_before_the_first_file_is_moved(overwrite, tmp_path):
    out = tmp_path / "out"
    (out / "b").mkdir(parents=True)
    (out / "a").write_text("old")
    if not overwrite:
        (out / "a").unlink()
    with temporary_folder(out) as aside:
        for name in ("a", "b", "c"):
            (aside / name).write_text("new")
        error = IsADirectoryError if overwrite else FileExistsError
        with pytest.raises(error, match=f"'{out / 'b'}'"):
            publish_files(aside, out, overwrite)
    assert names(out) == ["a", "b"] if overwrite else ["b"]
    assert not overwrite or (out / "a").read_text() == "old"


def test_a_link_to_nothing_is_not_replaced_unless_asked(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").symlink_to(tmp_path / "unmounted")
    for overwrite in (False, True):
        with temporary_folder(out) as aside:
            (aside / "a").write_text("new")
            if overwrite:
                publish_files(aside, out, overwrite)
            else:
                with pytest.raises(FileExistsError, match="such a file already"):
                    publish_files(aside, out, overwrite)
                assert (out / "a").is_symlink()
    assert (out / "a").read_text() == "new"
