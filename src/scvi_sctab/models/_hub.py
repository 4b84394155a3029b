"""Models as repositories of ``scvi.hub``: written, sent and fetched."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from errno import EEXIST
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scvi_sctab._constants import ENSEMBLE_FILE, PICKLE_FILE, WEIGHTS_FILE
from scvi_sctab._optional import import_optional
from scvi_sctab.models._card import CARD_FILE, render_card
from scvi_sctab.models._fetched import METADATA_FILE, PARENT_MODULE, is_repository, model_files
from scvi_sctab.models._registry import path, show

_README = "README.md"
# A pickle is neither sent nor fetched.
_PATTERNS = (
    WEIGHTS_FILE,
    ENSEMBLE_FILE,
    f"member*/{WEIGHTS_FILE}",
    CARD_FILE,
    _README,
    METADATA_FILE,
)
_PLACE = "OWNER/NAME"
_TAGS = ("biology", "genomics", "single-cell", "cell-type-annotation")


def write_repository(
    name: str, folder: str | os.PathLike[str], licence: str, repository: str = _PLACE
) -> Path:
    """Write the files of a model's repository on the hub: model, metadata and model card.

    ``scvi.hub.HubModel(folder)`` reads them.

    Parameters
    ----------
    name
        Name of a model, see :func:`list`, or its folder; it has a card, see :func:`write_card`.
    folder
        Folder to write, which must not exist.
    licence
        Licence of the weights, as the hub names it, such as ``"mit"``.
    repository
        ``"owner/name"`` on the hub, for the lines of the model card that fetch the model.

    Returns
    -------
    The folder. It is complete or is not written.

    Raises
    ------
    FileExistsError
        If there is such a folder.
    FileNotFoundError
        If the model has no card.
    KeyError
        If there is no such model.
    ValueError
        If the model's file is damaged.
    """
    from scvi_sctab.base import move_files, temporary_folder

    source, target, card = path(name), Path(folder), show(name)
    if os.path.lexists(target):
        raise FileExistsError(EEXIST, "There is such a folder already", str(target))
    is_ensemble = (source / ENSEMBLE_FILE).is_file()
    metadata = {
        "scvi_version": version("scvi-tools"),
        "anndata_version": version("anndata"),
        "model_cls_name": "SCTABEnsemble" if is_ensemble else "SCTAB",
        "training_data_url": None,
        "model_parent_module": PARENT_MODULE,
    }
    page = _readme(card, metadata, licence, repository)
    with temporary_folder(target) as aside:
        for file in (*model_files(source), CARD_FILE):
            (aside / file).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / file, aside / file)
        (aside / METADATA_FILE).write_text(json.dumps(metadata, indent=4) + "\n")
        (aside / _README).write_text(page, encoding="utf-8")
        move_files(aside, target)
    return target


def push_to_hub(
    name: str, repository: str, licence: str, private: bool = True, **kwargs: Any
) -> str:
    """Send a model with its card to a repository on the Hugging Face Hub, which is created.

    Sent are the files of :func:`write_repository`: weights, names of genes, labels and batches,
    the calibration with logits of held-out cells, mean expression of labels, hashes of the training
    cells, and the card; no expression of single cells. Files of an earlier model in the repository
    are removed.

    The helper of ``scvi.hub`` writes a card of the host's facts; this one has what the model's card
    says: types with Cell Ontology terms, training data, scores on held-out cells, and limits. Needs
    the extra ``hub``.

    Parameters
    ----------
    name, licence
        As of :func:`write_repository`.
    repository
        ``"owner/name"`` on the hub.
    private
        Whether only its owner sees a repository that is created; one that there is stays as it is.
    **kwargs
        Arguments of ``huggingface_hub.HfApi``, such as ``token``.

    Returns
    -------
    Address of the upload.

    Raises
    ------
    ImportError
        If the extra is not installed.
    FileNotFoundError
        If the model has no card.
    KeyError
        If there is no such model.
    """
    hub = import_optional("huggingface_hub", "hub", "push_to_hub")
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_repository(name, Path(temporary) / "model", licence, repository)
        api = hub.HfApi(**kwargs)
        api.create_repo(repository, private=private, exist_ok=True)
        sent = api.upload_folder(
            repo_id=repository,
            folder_path=str(folder),
            # `scvi.hub` would load a pickle that stays.
            delete_patterns=[*_PATTERNS, PICKLE_FILE],
        )
    return str(sent)


def pull_from_hub(repository: str, revision: str | None = None) -> Path:
    """Fetch a model from a repository on the Hugging Face Hub, unless it was fetched before.

    From then on :func:`list` has it, and :func:`load` takes its name, ``"owner/name"``. Weights are
    read without running code; a pickle is not fetched. Needs the extra ``hub``.

    Parameters
    ----------
    repository
        ``"owner/name"`` on the hub.
    revision
        Branch, tag or commit; the newest commit of the branch ``main`` if not given. :func:`list` and
        :func:`load` by ``"owner/name"`` take that of ``main``: of another revision, load the folder
        that is returned.

    Returns
    -------
    The model's folder, in the cache of the hub.

    Raises
    ------
    ImportError
        If the extra is not installed.
    ValueError
        If the repository holds no model of this package.
    """
    hub = import_optional("huggingface_hub", "hub", "pull_from_hub")
    fetched = hub.snapshot_download(repository, revision=revision, allow_patterns=[*_PATTERNS])
    folder = Path(fetched)
    if not is_repository(folder):
        raise ValueError(
            f"{repository} holds no model of scvi-sctab with a {METADATA_FILE} and a {WEIGHTS_FILE}, "
            "of each member if it is an ensemble. "
            "Load models of other packages by `scvi.hub.HubModel.pull_from_huggingface_hub`."
        )
    return folder


def _readme(card: dict[str, Any], metadata: dict[str, Any], licence: str, repository: str) -> str:
    """Return the page of the hub: a header that its search reads, and the model's card."""
    tags = [
        *_TAGS,
        f"model_cls_name:{metadata['model_cls_name']}",
        f"scvi_version:{metadata['scvi_version']}",
        f"anndata_version:{metadata['anndata_version']}",
        "modality:rna",
        *([f"tissue:{card['tissue']}"] if card.get("tissue") else []),
        "annotated:True",
    ]
    header = ["---", f"license: {json.dumps(licence)}", "library_name: scvi-tools", "tags:"]
    header += [f"- {json.dumps(tag)}" for tag in tags] + ["---"]
    use = (
        "```python\n"
        "from scvi_sctab import models  # pip install 'scvi-sctab[hub]'\n\n"
        f"models.pull_from_hub({json.dumps(repository)})\n"
        f"model = models.load({json.dumps(repository)})\n"
        "model.annotate(query)  # raw counts\n"
        "```"
    )
    return "\n".join(header) + f"\n\n{render_card(card)}\n### Use\n\n{use}\n"
