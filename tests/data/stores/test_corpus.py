"""Preparation of a corpus: its cells, killed runs and bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from tests.data.stores.conftest import needs_annbatch

from scvi_sctab.data.stores import Corpus, CorpusFilter, prepare_corpus

pytestmark = needs_annbatch
# Enough for no cell to be without counts; in an order that no file has.
GENES = [f"gene{i}" for i in (7, 0, *range(59, 20, -1))]
KEYS = {"labels_key": "cell_type", "donor_key": "donor"}


@pytest.fixture
def corpus(files, tmp_path):
    return prepare_corpus(files, tmp_path / "atlas", **KEYS, dataset_cells=300)


def original(studies, corpus, genes):
    """Return the cells of the studies in the order of the corpus, genes by name."""
    cells = corpus.read_lazily()
    rows = []
    for name, source in zip(cells.obs_names, cells.obs["source"], strict=True):
        study = studies[0] if source == "first.h5ad" else studies[1]
        row = study[study.obs_names.get_loc(name.rsplit("-", 1)[0])]
        counts = pd.Series(row.X.toarray().ravel(), index=study.var_names)
        rows.append(counts.reindex(genes).fillna(0).to_numpy())
    return np.array(rows)


@pytest.mark.parametrize("genes", ["intersection", "union", GENES])
def test_every_cell_is_there_once_with_its_counts(files, studies, tmp_path, genes):
    corpus = prepare_corpus(files, tmp_path / "atlas", **KEYS, genes=genes, dataset_cells=300)
    cells = corpus.read_lazily()
    assert cells.n_obs == 1200 == len(corpus)
    assert cells.obs_names.is_unique
    expected = {"intersection": 59, "union": 60}
    assert cells.n_vars == (expected[genes] if isinstance(genes, str) else len(GENES))
    if not isinstance(genes, str):
        assert list(cells.var_names) == genes
    assert len(corpus.manifest.datasets) == 4
    counts = cells.X.compute()
    assert sparse.issparse(counts)
    assert (counts.toarray() == original(studies, corpus, cells.var_names)).all()


def test_labels_and_donors_stay_with_their_cells(corpus, studies):
    obs = corpus.read_lazily().obs
    for name, source, label, donor in obs[["source", "cell_type", "donor"]].itertuples():
        study = studies[0] if source == "first.h5ad" else studies[1]
        row = study.obs.loc[name.rsplit("-", 1)[0]]
        assert donor == row["donor"]
        assert label == (row["cell_type"] if isinstance(row["cell_type"], str) else "unknown")
    assert (obs["cell_type"] == "unknown").sum() == 20


def test_no_donor_is_in_two_parts(corpus):
    obs = corpus.read_lazily().obs
    assert (obs.groupby("donor", observed=True)["split"].nunique() == 1).all()
    counts = obs["split"].value_counts().to_dict()
    assert counts == corpus.manifest.parts


def test_files_are_mixed_in_every_dataset(corpus):
    source = corpus.read_lazily().obs["source"].to_numpy()
    ends = np.cumsum(corpus.manifest.datasets)
    shares = [(part == "first.h5ad").mean() for part in np.split(source, ends[:-1])]
    assert min(shares) > 0
    assert max(shares) < 1


def test_a_corpus_is_a_collection_of_annbatch(corpus):
    from annbatch import DatasetCollection

    collection = DatasetCollection(corpus.collection, mode="r")
    assert not collection.is_empty
    assert len(collection.obs(["cell_type"])) == 1200


def test_cells_can_be_grouped_by_label(files, tmp_path):
    corpus = prepare_corpus(
        files, tmp_path / "atlas", **KEYS, dataset_cells=600, groupby_label=True, shares=None
    )
    labels = corpus.read_lazily().obs["cell_type"].astype(str).to_numpy()
    runs = 1 + (labels[1:] != labels[:-1]).sum()
    assert runs <= 4 * len(corpus.manifest.datasets)
    assert "split" not in corpus.manifest.columns


def test_the_manifest_says_what_was_removed(files, studies, tmp_path):
    counts = pd.concat([study.obs["cell_type"].astype(object) for study in studies]).value_counts()
    filters = CorpusFilter(min_cells=int(counts.iloc[1]))
    corpus = prepare_corpus(files, tmp_path / "atlas", **KEYS, filters=filters)
    (removed,) = corpus.manifest.removed.values()
    assert removed == 1200 - len(corpus) == counts.iloc[2]
    first = corpus.manifest.sources[0]
    assert (first.n_cells, first.n_genes, first.n_genes_found) == (700, 60, 59)
    assert len(first.sha256) == 64


def test_several_columns_make_a_donor(files, tmp_path):
    corpus = prepare_corpus(
        files, tmp_path / "atlas", labels_key="cell_type", donor_key=["assay", "donor"]
    )
    assert set(corpus.read_lazily().obs["assay_donor"]) == {
        f"10x 3' v3_{name}{i}" for name in "ab" for i in range(6)
    }


def test_two_donors_with_one_joint_name_are_refused(studies, tmp_path):
    paths = []
    for name, (study, donor) in {"one": ("a_b", "c"), "two": ("a", "b_c")}.items():
        cells = studies[0].copy()
        cells.obs["study"], cells.obs["donor"] = study, donor
        paths.append(tmp_path / f"{name}.h5ad")
        cells.write_h5ad(paths[-1])
    keys = {"labels_key": "cell_type", "donor_key": ["study", "donor"]}
    with pytest.raises(ValueError, match=r"\('a', 'b_c'\) and \('a_b', 'c'\) of"):
        prepare_corpus(paths, tmp_path / "atlas", **keys)
    assert not (tmp_path / "atlas").exists()
    alone = prepare_corpus(paths[:1], tmp_path / "atlas", **keys, shares=None)
    assert len(alone) == studies[0].n_obs


@pytest.mark.parametrize("kind", ["layer", "dense", "zarr", "dense zarr"])
def test_counts_are_read_from_every_kind_of_file(studies, tmp_path, kind):
    cells = studies[0]
    expected = cells.X.toarray()
    layer = None
    if kind == "layer":
        cells.layers["counts"], layer = cells.X.copy(), "counts"
        cells.X = cells.X.log1p()
    elif "dense" in kind:
        cells.X = cells.X.toarray()
    path = tmp_path / ("cells.zarr" if "zarr" in kind else "cells.h5ad")
    cells.write_zarr(path) if "zarr" in kind else cells.write_h5ad(path)
    corpus = prepare_corpus([path], tmp_path / "atlas", **KEYS, layer=layer, dataset_cells=300)
    read = corpus.read_lazily()
    order = cells.obs_names.get_indexer(read.obs_names)
    assert (read.X.compute().toarray() == expected[order]).all()


def test_a_killed_preparation_goes_on_without_loss_or_duplicates(files, tmp_path):
    script = textwrap.dedent(
        """
        import os, sys, signal
        from scvi_sctab.data.stores import _prepare, prepare_corpus
        read, seen = _prepare._read_rows, []
        def stop(plan, rows):
            seen.append(1)
            if len(seen) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return read(plan, rows)
        _prepare._read_rows = stop
        prepare_corpus(sys.argv[2:], sys.argv[1], labels_key="cell_type", donor_key="donor",
                       dataset_cells=300)
        """
    )
    out = tmp_path / "atlas"
    run = subprocess.run(
        [sys.executable, "-c", script, str(out), *map(str, files)], env=os.environ, check=False
    )
    assert run.returncode == -signal.SIGKILL
    assert not out.exists()
    partial = json.loads((tmp_path / "atlas.partial" / "manifest.json").read_text())
    assert partial["finished"] == 2
    with pytest.raises(FileNotFoundError, match="was stopped.*call `prepare_corpus` again"):
        Corpus.open(out)
    before = (tmp_path / "atlas.partial" / "cells.zarr" / "dataset_0").stat().st_mtime_ns
    resumed = prepare_corpus(files, out, **KEYS, dataset_cells=300)
    assert (out / "cells.zarr" / "dataset_0").stat().st_mtime_ns == before
    whole = prepare_corpus(files, tmp_path / "whole", **KEYS, dataset_cells=300)
    one, other = resumed.read_lazily(), whole.read_lazily()
    assert one.obs.equals(other.obs)
    assert (one.X.compute() != other.X.compute()).nnz == 0


def stopped(corpus, tmp_path, finished=2):
    """Leave what a killed preparation of the corpus leaves."""
    partial = tmp_path / "atlas.partial"
    shutil.move(corpus.path, partial)
    manifest = json.loads((partial / "manifest.json").read_text())
    (partial / "manifest.json").write_text(json.dumps({**manifest, "finished": finished}))
    return partial


def test_a_stopped_corpus_of_other_arguments_is_kept_unless_asked(files, corpus, tmp_path):
    before = corpus.read_lazily().obs
    partial = stopped(corpus, tmp_path)
    other = {**KEYS, "dataset_cells": 300, "seed": 2}
    with pytest.raises(ValueError, match=r"other arguments or files \(seed\).*overwrite=True"):
        prepare_corpus(files, tmp_path / "atlas", **other)
    with pytest.raises(ValueError, match="preparation was stopped"):
        Corpus.open(partial)
    again = prepare_corpus(files, tmp_path / "atlas", **other, overwrite=True)
    assert again.manifest.settings["seed"] == 2
    assert not partial.exists()
    assert not again.read_lazily().obs.equals(before)


def test_a_stopped_corpus_of_another_order_of_genes_is_not_continued(files, tmp_path):
    genes = [f"gene{i}" for i in range(1, 60)]
    corpus = prepare_corpus(files, tmp_path / "atlas", **KEYS, dataset_cells=300, genes=genes)
    stopped(corpus, tmp_path)
    with pytest.raises(ValueError, match="other arguments or files"):
        prepare_corpus(files, tmp_path / "atlas", **KEYS, dataset_cells=300, genes=genes[::-1])


def test_a_stopped_corpus_of_changed_files_is_not_continued(files, studies, corpus, tmp_path):
    stopped(corpus, tmp_path)
    studies[1].write_h5ad(files[1])
    with pytest.raises(ValueError, match=r"other arguments or files \(files\)"):
        prepare_corpus(files, tmp_path / "atlas", **KEYS, dataset_cells=300)


@pytest.mark.parametrize("content", ["mine.txt", "first.h5ad"])
def test_a_folder_that_is_no_corpus_is_never_replaced(files, tmp_path, content):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / content).write_text("mine")
    with pytest.raises(ValueError, match="is no corpus, and is not overwritten"):
        prepare_corpus(files, folder, **KEYS, overwrite=True)
    partial = tmp_path / "other.partial"
    folder.rename(partial)
    with pytest.raises(ValueError, match="is in the way, and is no corpus"):
        prepare_corpus(files, tmp_path / "other", **KEYS, overwrite=True)
    assert (partial / content).read_text() == "mine"


def test_files_within_the_folder_of_the_corpus_are_not_deleted(corpus, files):
    inside = corpus.path / "first.h5ad"
    shutil.copy(files[0], inside)
    with pytest.raises(ValueError, match="lies in the folder of the corpus"):
        prepare_corpus([inside], corpus.path, **KEYS, overwrite=True)
    assert inside.exists()


def test_a_link_to_another_disk_is_followed(files, tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "scratch" / "atlas")
    corpus = prepare_corpus(files, tmp_path / "link", **KEYS)
    assert corpus.path == tmp_path / "scratch" / "atlas"
    assert len(Corpus.open(tmp_path / "link")) == 1200
    prepare_corpus(files, tmp_path / "link", **KEYS, overwrite=True)
    assert sorted(path.name for path in (tmp_path / "scratch").iterdir()) == ["atlas"]


def test_a_folder_beside_the_corpus_is_left_alone_when_it_is_replaced(corpus, files, tmp_path):
    (tmp_path / "atlas.old").mkdir()
    (tmp_path / "atlas.old" / "mine.txt").write_text("mine")
    prepare_corpus(files, corpus.path, **KEYS, overwrite=True)
    assert (tmp_path / "atlas.old" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("is_new_there", [False, True])
def test_a_call_that_was_killed_while_it_replaced_a_corpus_loses_none(
    is_new_there, corpus, files, tmp_path
):
    replaced = tmp_path / ".atlas.replaced"
    shutil.copytree(corpus.path, replaced)
    if not is_new_there:
        shutil.rmtree(corpus.path)
    with pytest.raises(ValueError, match="already exists and was left as it is"):
        prepare_corpus(files, tmp_path / "atlas", **KEYS)
    assert len(Corpus.open(tmp_path / "atlas")) == 1200
    assert not replaced.exists()


def test_two_calls_do_not_write_to_one_folder(files, tmp_path):
    from scvi_sctab.data.stores._prepare import _locked

    with _locked(tmp_path / "atlas"):
        refused(ValueError, "Another call prepares", files, tmp_path)
    assert len(prepare_corpus(files, tmp_path / "atlas", **KEYS)) == 1200
    assert not list(tmp_path.glob(".*.lock"))


def test_cells_without_counts_are_left_out_and_counted(files, studies, tmp_path):
    counts = studies[0].X.toarray()
    counts[:9, :-1] = 0
    studies[0].X = sparse.csr_matrix(counts)
    studies[0].write_h5ad(files[0])
    genes = [f"gene{i}" for i in range(59)]
    corpus = prepare_corpus(files, tmp_path / "atlas", **KEYS, genes=genes, dataset_cells=300)
    n_empty = corpus.manifest.removed["no counts of the genes"]
    assert n_empty == 9
    cells = corpus.read_lazily()
    assert cells.n_obs == 1200 - n_empty == len(corpus)
    counts = cells.X.compute()
    assert counts.sum(axis=1).min() > 0
    assert cells.obs["split"].value_counts().to_dict() == corpus.manifest.parts
    kept = {record.path: record.n_kept for record in corpus.manifest.sources}
    assert list(kept.values()) == [
        (cells.obs["source"] == name).sum() for name in ("first.h5ad", "second.h5ad")
    ]


def test_a_word_for_unlabelled_cells_is_no_type(files, studies, tmp_path):
    studies[0].obs["cell_type"] = (
        studies[0].obs["cell_type"].cat.rename_categories({"monocyte": "unassigned"})
    )
    studies[0].write_h5ad(files[0])
    corpus = prepare_corpus(
        files,
        tmp_path / "atlas",
        **KEYS,
        unlabeled_category="unassigned",
        filters=CorpusFilter(min_cells=200),
    )
    labels = corpus.read_lazily().obs["cell_type"]
    n_words = (studies[0].obs["cell_type"] == "unassigned").sum()
    assert (labels == "unassigned").sum() == n_words + 20
    assert corpus.manifest.removed["at least 200 cells"] == 1200 - len(corpus)


def refused(kind, match, files, tmp_path, **arguments):
    out = tmp_path / "atlas"
    with pytest.raises(kind, match=match):
        prepare_corpus(files, out, **{**KEYS, **arguments})
    assert not out.exists()


def test_a_file_that_lacks_the_label_column_is_named(files, studies, tmp_path):
    del studies[1].obs["cell_type"]
    studies[1].write_h5ad(files[1])
    refused(KeyError, r"second\.h5ad.*cell_type", files, tmp_path)


def test_a_file_of_other_genes_is_named(files, studies, tmp_path):
    studies[1].var_names = [f"ENSG{i}" for i in range(59)]
    studies[1].write_h5ad(files[1])
    refused(ValueError, r"second\.h5ad has no gene in common", files, tmp_path)
    refused(ValueError, r"second\.h5ad has none of the 1 genes", files, tmp_path, genes=["gene1"])


def test_a_file_without_counts_is_named(files, studies, tmp_path):
    studies[1].X = studies[1].X.log1p()
    studies[1].write_h5ad(files[1])
    refused(ValueError, r"second\.h5ad.*not raw counts", files, tmp_path)


def test_counts_by_columns_are_refused(files, studies, tmp_path):
    studies[1].X = studies[1].X.tocsc()
    studies[1].write_h5ad(files[1])
    refused(ValueError, r"second\.h5ad holds `X` by columns.*tocsr", files, tmp_path)


def test_a_value_of_a_layer_is_named_with_its_cell(files, studies, tmp_path):
    for study, path in zip(studies, files, strict=True):
        study.layers["norm"] = study.X.log1p()
        study.write_h5ad(path)
    match = r"first\.h5ad: `layers\['norm'\]`.*in cell 'cell\d+'.*layer=`; the file has \['norm'\]"
    refused(ValueError, match, files, tmp_path, layer="norm")
    assert len(prepare_corpus(files, tmp_path / "atlas", **KEYS, layer="X")) == 1200


@pytest.mark.parametrize("argument", ["donor_key", "batch_key"])
def test_missing_donors_and_batches_are_refused_before_counts_are_read(
    files, studies, tmp_path, argument
):
    column = {"donor_key": "donor", "batch_key": "assay"}[argument]
    studies[1].obs.loc[studies[1].obs_names[:7], column] = None
    studies[1].write_h5ad(files[1])
    match = rf"{argument}='{column}' is missing in cells of {{'second.h5ad': 7}}"
    refused(ValueError, match, files, tmp_path, **{argument: column})


def test_labels_that_cannot_be_learnt_are_refused(files, studies, tmp_path):
    studies[1].obs["cell_type"] = studies[1].obs["cell_type"].cat.add_categories("rare")
    studies[1].obs.loc[studies[1].obs_names[30], "cell_type"] = "rare"
    studies[1].write_h5ad(files[1])
    refused(ValueError, "'rare'.*CorpusFilter", files, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"batch_key": "source"}, "'source' of its own"),
        ({"obs_columns": ["split"]}, "'split' of its own"),
        ({"donor_key": "cell_type"}, "column of labels, and cannot name donors"),
        ({"dataset_cells": 0}, "dataset_cells=0"),
        ({"shares": (0.5, 0.2)}, "sum 1"),
        ({"genes": ["gene1", "gene2"]}, "2 genes, too few"),
    ],
)
def test_arguments_that_make_no_corpus_are_refused(files, tmp_path, arguments, match):
    refused(ValueError, match, files, tmp_path, **arguments)


def test_a_file_of_few_genes_is_named(files, tmp_path):
    genes = ["gene7", *(f"other{i}" for i in range(30))]
    with pytest.warns(UserWarning, match="few of the 31 genes, {'first.h5ad': 1"):
        prepare_corpus(files, tmp_path / "atlas", **KEYS, genes=genes)


def test_a_missing_layer_is_named(files, tmp_path):
    refused(ValueError, r"first\.h5ad has no 'layers/counts'", files, tmp_path, layer="counts")


def test_a_damaged_file_is_named(files, tmp_path):
    content = bytearray(files[1].read_bytes())
    files[1].write_bytes(content[: len(content) // 2])
    refused(ValueError, r"second\.h5ad cannot be read", files, tmp_path)


def test_a_missing_file_is_named(files, tmp_path):
    refused(FileNotFoundError, r"third\.h5ad", [*files, tmp_path / "third.h5ad"], tmp_path)


def test_a_file_that_is_listed_twice_is_refused(files, tmp_path):
    refused(ValueError, "listed more than once", [files[0], files[0]], tmp_path)


def test_no_cells_left_is_an_error(files, tmp_path):
    filters = CorpusFilter(assay_key="assay", assays=("Smart-seq2",))
    refused(ValueError, "No cell is left.*'assays': 1200", files, tmp_path, filters=filters)


def test_an_existing_corpus_is_left_as_it_is(corpus, files):
    with pytest.raises(ValueError, match="already exists and was left as it is"):
        prepare_corpus(files, corpus.path, **KEYS)


def test_a_full_disk_leaves_nothing_half_written(files, tmp_path, monkeypatch):
    import annbatch

    write, calls = annbatch.write_sharded, []

    def full(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return write(*args, **kwargs)

    monkeypatch.setattr(annbatch, "write_sharded", full)
    out = tmp_path / "atlas"
    with pytest.raises(OSError, match="No space left"):
        prepare_corpus(files, out, **KEYS, dataset_cells=300)
    assert not out.exists()
    monkeypatch.setattr(annbatch, "write_sharded", write)
    assert len(prepare_corpus(files, out, **KEYS, dataset_cells=300)) == 1200


def test_a_damaged_manifest_is_named(corpus):
    (corpus.path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json cannot be read, or is damaged"):
        Corpus.open(corpus.path)


def test_a_column_that_the_corpus_lacks_is_named(corpus):
    with pytest.raises(KeyError, match="tissue.*obs_columns="):
        corpus.read_lazily(["tissue"])
