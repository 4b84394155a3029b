"""Preparation of a corpus: its cells, killed runs and bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from tests.data.stores.conftest import needs_annbatch

from scvi_sctab.data.stores import Corpus, CorpusFilter, prepare_corpus

pytestmark = needs_annbatch
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


@pytest.mark.parametrize("genes", ["intersection", "union", ["gene7", "gene0", "gene59"]])
def test_every_cell_is_there_once_with_its_counts(files, studies, tmp_path, genes):
    corpus = prepare_corpus(files, tmp_path / "atlas", **KEYS, genes=genes, dataset_cells=300)
    cells = corpus.read_lazily()
    assert cells.n_obs == 1200 == len(corpus)
    assert cells.obs_names.is_unique
    expected = {"intersection": 59, "union": 60}
    assert cells.n_vars == (expected[genes] if isinstance(genes, str) else 3)
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


def test_the_manifest_says_what_was_removed(files, tmp_path):
    filters = CorpusFilter(min_cells=400)
    corpus = prepare_corpus(files, tmp_path / "atlas", **KEYS, filters=filters)
    removed = corpus.manifest.removed["at least 400 cells"]
    assert removed == 1200 - len(corpus) > 0
    first = corpus.manifest.sources[0]
    assert (first.n_cells, first.n_genes, first.n_genes_found) == (700, 60, 59)
    assert len(first.sha256) == 64


def test_several_columns_make_a_donor(files, tmp_path):
    corpus = prepare_corpus(
        files, tmp_path / "atlas", labels_key="cell_type", donor_key=["assay", "donor"]
    )
    assert set(corpus.read_lazily().obs["donor"]) == {
        f"10x 3' v3_{name}{i}" for name in "ab" for i in range(6)
    }


@pytest.mark.parametrize("kind", ["layer", "dense", "csc", "zarr"])
def test_counts_are_read_from_every_kind_of_file(studies, tmp_path, kind):
    cells = studies[0]
    expected = cells.X.toarray()
    layer = None
    if kind == "layer":
        cells.layers["counts"], layer = cells.X.copy(), "counts"
        cells.X = cells.X.log1p()
    elif kind == "dense":
        cells.X = cells.X.toarray()
    elif kind == "csc":
        cells.X = cells.X.tocsc()
    path = tmp_path / ("cells.zarr" if kind == "zarr" else "cells.h5ad")
    cells.write_zarr(path) if kind == "zarr" else cells.write_h5ad(path)
    with pytest.warns(UserWarning, match="by columns") if kind == "csc" else nullcontext():
        corpus = prepare_corpus([path], tmp_path / "atlas", **KEYS, layer=layer)
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


def test_a_partial_corpus_of_other_arguments_is_not_gone_on_with(files, tmp_path):
    corpus = prepare_corpus(files, tmp_path / "atlas", **KEYS, dataset_cells=300)
    before = corpus.read_lazily().obs
    partial = tmp_path / "atlas.partial"
    shutil.copytree(corpus.path, partial)
    again = prepare_corpus(
        files, tmp_path / "atlas", **KEYS, dataset_cells=300, seed=2, overwrite=True
    )
    assert again.manifest.settings["seed"] == 2
    assert not partial.exists()
    assert not again.read_lazily().obs.equals(before)


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
    with pytest.raises(ValueError, match="manifest.json is damaged"):
        Corpus.open(corpus.path)


def test_a_column_that_the_corpus_lacks_is_named(corpus):
    with pytest.raises(KeyError, match="tissue.*obs_columns="):
        corpus.read_lazily(["tissue"])
