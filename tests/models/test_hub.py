"""Repositories of the hub: files that scvi.hub reads, sent and fetched without a network."""

import errno
import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from scvi_sctab import SCTABEnsemble, models
from scvi_sctab.models._fetched import is_repository
from scvi_sctab.models._recipes import RECIPES

REPOSITORY = "lab/blood"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub, and no folders of the user."""
    monkeypatch.delenv(models.MODELS_VARIABLE, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fetch(cache, folder, repository=REPOSITORY, commit="0123abc"):
    """Lay a repository out as the hub's cache does."""
    entry = cache / f"models--{repository.replace('/', '--')}"
    (entry / "refs").mkdir(parents=True)
    (entry / "refs" / "main").write_text(commit)
    return Path(shutil.copytree(folder, entry / "snapshots" / commit))


def test_a_repository_has_the_model_its_metadata_and_a_card_with_scores_and_limits(tmp_path):
    folder = models.write_repository("pancreas", tmp_path / "out", "mit")
    names = {file.name for file in folder.iterdir()}
    assert names == {
        "README.md",
        "_scvi_required_metadata.json",
        "card.json",
        "model.safetensors",
    }
    _, header, page = (folder / "README.md").read_text().split("---\n", maxsplit=2)
    facts = yaml.safe_load(header)
    assert facts["license"] == "mit"
    assert facts["library_name"] == "scvi-tools"
    assert "model_cls_name:SCTAB" in facts["tags"]
    assert "tissue:islets of Langerhans" in facts["tags"]
    assert models.render_card(models.show("pancreas")) in page
    with pytest.raises(FileExistsError, match="out"):
        models.write_repository("pancreas", tmp_path / "out", "mit")


def test_a_licence_is_a_text_of_the_header(tmp_path):
    folder = models.write_repository("pancreas", tmp_path / "out", "no: # sale")
    facts = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert facts["license"] == "no: # sale"


def test_a_repository_is_complete_or_not_there(tmp_path, monkeypatch):
    def fill(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(shutil, "copyfile", fill)
        with pytest.raises(OSError, match="No space"):
            models.write_repository("pancreas", tmp_path / "out", "mit")
    assert [*tmp_path.iterdir()] == []
    assert is_repository(models.write_repository("pancreas", tmp_path / "out", "mit"))


@pytest.fixture
def ensemble(model, tmp_path):
    """The folder of a saved ensemble with a card."""
    several = SCTABEnsemble.from_members([model, model])
    several.save(tmp_path / "several")
    models.write_card(several, tmp_path / "several", {"title": "Several"})
    return tmp_path / "several"


def test_a_repository_of_an_ensemble_has_the_networks_of_its_members(ensemble, cache, tmp_path):
    (ensemble / "member9").mkdir()  # of a save that was killed
    (ensemble / "member9" / "model.safetensors").touch()
    folder = models.write_repository(str(ensemble), tmp_path / "out", "mit")
    networks = sorted(folder.glob("member*/model.safetensors"))
    assert len(networks) == 2
    assert "model_cls_name:SCTABEnsemble" in (folder / "README.md").read_text()
    fetched = fetch(cache, folder)
    assert models.list()[-1].name == REPOSITORY
    expected = models.load(str(ensemble), accelerator="cpu").digest
    assert models.load(REPOSITORY, accelerator="cpu").digest == expected
    (fetched / networks[0].relative_to(folder)).unlink()
    assert not is_repository(fetched)


@pytest.mark.parametrize("content", [b"", b"\xff" * 9, b"\2" + 7 * b"\0" + b"{}"])
def test_a_damaged_ensemble_is_no_repository(ensemble, tmp_path, content):
    folder = models.write_repository(str(ensemble), tmp_path / "out", "mit")
    (folder / "ensemble.safetensors").write_bytes(content)
    assert not is_repository(folder)


def test_the_host_reads_the_repository_and_loads_the_model(tmp_path, cells):
    pytest.importorskip("huggingface_hub")
    from scvi.hub import HubModel

    folder = models.write_repository("pancreas", tmp_path / "out", "mit")
    hub = HubModel(str(folder))
    assert hub.model_card.data.license == "mit"
    assert hub.metadata.model_cls_name == "SCTAB"
    hub.load_model(adata=cells, accelerator="cpu")
    expected = models.load("pancreas", accelerator="cpu")
    assert hub.model.digest == expected.digest
    assert hub.model.predict(cells).tolist() == expected.predict(cells).tolist()


@pytest.fixture(scope="module")
def cells():
    return RECIPES["pancreas"].read()[:40].copy()


def test_a_model_is_sent_as_a_folder_to_a_repository_that_is_created(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    calls = []

    class Api:
        def __init__(self, **arguments):
            calls.append(("api", arguments))

        def create_repo(self, repository, private, exist_ok):
            calls.append(("create", repository, private, exist_ok))

        def upload_folder(self, repo_id, folder_path, delete_patterns):
            calls.append(("delete", sorted(delete_patterns)))
            shutil.copytree(folder_path, tmp_path / "remote")
            return f"https://hub/{repo_id}"

    monkeypatch.setattr(hub, "HfApi", Api)
    address = models.push_to_hub("pancreas", REPOSITORY, "mit", token="secret")
    assert address == "https://hub/lab/blood"
    assert calls[:2] == [("api", {"token": "secret"}), ("create", REPOSITORY, True, True)]
    assert {"model.safetensors", "member*/model.safetensors", "model.pt"} < {*calls[2][1]}
    written = models.write_repository("pancreas", tmp_path / "out", "mit", REPOSITORY)
    assert 'models.pull_from_hub("lab/blood")' in (written / "README.md").read_text()
    for file in written.iterdir():
        assert (tmp_path / "remote" / file.name).read_bytes() == file.read_bytes()


def test_a_fetched_repository_joins_the_list_and_is_loaded_by_its_name(
    cache, tmp_path, monkeypatch
):
    hub = pytest.importorskip("huggingface_hub")
    folder = models.write_repository("pancreas", tmp_path / "out", "mit")
    asked = []

    def snapshot_download(repository, revision, allow_patterns):
        asked.append((repository, revision, sorted(allow_patterns)))
        return str(fetch(cache, folder, repository))

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    fetched = models.pull_from_hub(REPOSITORY)
    ((repository, revision, patterns),) = asked
    assert (repository, revision) == (REPOSITORY, None)
    assert "model.pt" not in patterns
    assert "member*/model.safetensors" in patterns
    record = models.list()[-1]
    assert (record.name, record.path, record.bundled) == (REPOSITORY, fetched, False)
    assert record.title == "Pancreatic islets"
    expected = models.load("pancreas", accelerator="cpu").digest
    assert models.load(REPOSITORY, accelerator="cpu").digest == expected
    assert models.show(REPOSITORY)["digest"] == expected


def test_the_cache_may_hold_other_things(cache, tmp_path, monkeypatch):
    folder = models.write_repository("pancreas", tmp_path / "out", "mit")
    other = fetch(cache, folder, "lab/other")
    metadata = json.loads((other / "_scvi_required_metadata.json").read_text())
    metadata["model_parent_module"] = "scvi.model"
    (other / "_scvi_required_metadata.json").write_text(json.dumps(metadata))
    (fetch(cache, folder, "lab/damaged") / "_scvi_required_metadata.json").write_text("[")
    (fetch(cache, folder, "lab/empty") / "model.safetensors").unlink()
    shutil.rmtree(fetch(cache, folder, "lab/commit").parents[1] / "refs")
    assert {record.name for record in models.list()} == {"pancreas", "pbmc"}
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "snapshot_download", lambda *args, **kwargs: str(other))
    with pytest.raises(ValueError, match=r"lab/other holds no model of scvi-sctab"):
        models.pull_from_hub("lab/other")


@pytest.mark.parametrize("card", ["[", "[]", '{"types": 3}'])
def test_a_fetched_model_with_a_damaged_card_is_left_out(card, cache, tmp_path):
    folder = models.write_repository("pancreas", tmp_path / "out", "mit")
    (fetch(cache, folder) / "card.json").write_text(card)
    with pytest.warns(UserWarning, match="The fetched model 'lab/blood' is left out"):
        assert {record.name for record in models.list()} == {"pancreas", "pbmc"}


@pytest.mark.parametrize("variable", ["HF_HOME", "XDG_CACHE_HOME", "HOME"])
def test_the_cache_is_found_as_the_hub_finds_it(variable, tmp_path, monkeypatch):
    folder = models.write_repository("pancreas", tmp_path / "out", "mit")
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "own"))
    below = {
        "HF_HOME": "hub",
        "XDG_CACHE_HOME": "huggingface/hub",
        "HOME": ".cache/huggingface/hub",
    }
    fetch(tmp_path / "own" / below[variable], folder)
    assert models.list()[-1].name == REPOSITORY


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'scvi-sctab\[hub\]'"):
        models.push_to_hub("pancreas", REPOSITORY, "mit")
    with pytest.raises(ImportError, match=r"pip install 'scvi-sctab\[hub\]'"):
        models.pull_from_hub(REPOSITORY)


def test_a_model_without_a_card_is_not_sent(model, tmp_path):
    model.save(tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match="write_card"):
        models.write_repository(str(tmp_path / "mine"), tmp_path / "out", "mit")
    assert not (tmp_path / "out").exists()
