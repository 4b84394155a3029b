"""Models by name: those of the package, and those in folders of the user."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scvi_sctab._constants import ENSEMBLE_FILE, WEIGHTS_FILE
from scvi_sctab.models._card import CARD_FILE
from scvi_sctab.models._fetched import fetched_repositories

if TYPE_CHECKING:
    from scvi_sctab.model import SCTAB, SCTABEnsemble

MODELS_VARIABLE = "SCVI_SCTAB_MODELS"
"""Environment variable with folders of models, separated as in ``PATH``."""
_BUNDLED = Path(__file__).parent


@dataclass(frozen=True)
class ModelRecord:
    """Facts about a model, from its card.

    Attributes
    ----------
    name
        Name, for :func:`load`.
    path
        Folder.
    title, species, tissue
        What it is for; empty without a card.
    n_types, n_genes, n_cells
        Numbers of types, of genes and of training cells; 0 without a card.
    bundled
        Whether it comes with the package.
    """

    name: str
    path: Path
    title: str = ""
    species: str = ""
    tissue: str = ""
    n_types: int = 0
    n_genes: int = 0
    n_cells: int = 0
    bundled: bool = False


def list_models() -> list[ModelRecord]:
    """List the models that can be loaded by name.

    These are the bundled ones, then those in the folders of the environment variable
    ``SCVI_SCTAB_MODELS`` (several separated by ``:``, on Windows by ``;``): each folder within
    that ``model.save`` wrote, under the name of the folder, or a folder that is a model itself; and
    repositories that :func:`pull_from_hub` fetched, under the name ``owner/name``. Of several
    models with a name, the first counts, so that the bundled ones are never replaced.

    Returns
    -------
    A record per model. Nothing but the cards is read.

    Raises
    ------
    ValueError
        If a card is damaged; that of a fetched repository is left out with a warning.

    Examples
    --------
    >>> [record.name for record in list_models() if record.bundled]
    ['pancreas', 'pbmc']
    """
    found: dict[str, ModelRecord] = {}
    for name, folder, bundled in _folders():
        if name in found:
            continue
        try:
            found[name] = _record(name, folder, bundled)
        except (TypeError, ValueError) as error:
            if "/" not in name:  # the name of a folder
                raise
            warnings.warn(
                f"The fetched model {name!r} is left out: {error} Remove {folder}, and fetch it again.",
                stacklevel=2,
            )
    return [*found.values()]


def path(name: str) -> Path:
    """Return the folder of a model.

    Parameters
    ----------
    name
        Name of a model, see :func:`list`; or a folder that ``model.save`` wrote.

    Raises
    ------
    KeyError
        If there is no such model; the message lists those that there are.
    """
    known = {known: folder for known, folder, _ in reversed([*_folders()])}
    if name in known:
        return known[name]
    folder = Path(name)
    if _is_model(folder):
        return folder
    near = get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise KeyError(
        f"There is no model {name!r}: it is neither one of {sorted(known)} nor a folder that "
        f"`model.save` wrote.{hint} Folders of {MODELS_VARIABLE} are searched, too."
    )


def show(name: str) -> dict[str, Any]:
    """Return the card of a model; :func:`render_card` makes a page of it.

    Parameters
    ----------
    name
        As of :func:`path`.

    Raises
    ------
    KeyError
        If there is no such model.
    FileNotFoundError
        If it has no card.
    ValueError
        If the card is damaged.
    """
    folder = path(name)
    card = _read_card(folder)
    if card is None:
        raise FileNotFoundError(
            f"The model in {folder} has no {CARD_FILE}: `scvi_sctab.models.write_card` writes one."
        )
    return card


def load(name: str, accelerator: str = "auto") -> SCTAB | SCTABEnsemble:
    """Load a model, to predict with, to calibrate, or as a reference of a query.

    Parameters
    ----------
    name
        As of :func:`path`.
    accelerator
        Device of the model.

    Returns
    -------
    A trained model without an AnnData.

    Raises
    ------
    KeyError
        If there is no such model.
    ValueError
        If its file is damaged, or of another class.

    Examples
    --------
    >>> model = load("pbmc")  # doctest: +SKIP
    >>> query.obs = query.obs.join(model.annotate(query))  # doctest: +SKIP
    """
    from scvi_sctab.model import load_model

    return load_model(path(name), accelerator)


def _folders() -> Iterator[tuple[str, Path, bool]]:
    """Yield names and folders of models, and whether they are bundled."""
    for folder in _within(_BUNDLED):
        yield folder.name, folder, True
    for entry in os.environ.get(MODELS_VARIABLE, "").split(os.pathsep):
        if not entry:
            continue
        for folder in [Path(entry)] if _is_model(Path(entry)) else _within(Path(entry)):
            yield folder.name, folder, False
    for name, folder in fetched_repositories():
        yield name, folder, False


def _within(folder: Path) -> list[Path]:
    try:
        return sorted(inner for inner in folder.iterdir() if _is_model(inner))
    except OSError:  # a folder that is not there, or that may not be read
        return []


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (WEIGHTS_FILE, ENSEMBLE_FILE))


def _record(name: str, folder: Path, bundled: bool) -> ModelRecord:
    card = _read_card(folder) or {}
    return ModelRecord(
        name,
        folder,
        title=str(card.get("title", "")),
        species=str(card.get("species", "")),
        tissue=str(card.get("tissue", "")),
        n_types=len(card.get("types", ())),
        n_genes=int(card.get("n_genes", 0)),
        n_cells=int(card.get("n_cells", 0)),
        bundled=bundled,
    )


def _read_card(folder: Path) -> dict[str, Any] | None:
    file = folder / CARD_FILE
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}. Write it again, or remove it.") from error
    if not isinstance(card, dict):
        raise ValueError(f"{file} is no card of a model. Write it again, or remove it.")
    return card
