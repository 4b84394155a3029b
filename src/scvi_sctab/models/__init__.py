"""Ready-made models, and those in folders of your own.

The names are ``list``, ``load``, ``path``, ``show`` and ``write_card``, and for repositories of
``scvi.hub`` ``pull_from_hub``, ``push_to_hub`` and ``write_repository``. Importing this package and
listing models reads small JSON files only; torch is imported by :func:`load`.
"""

from scvi_sctab.models._card import render_card, write_card
from scvi_sctab.models._hub import pull_from_hub, push_to_hub, write_repository
from scvi_sctab.models._registry import MODELS_VARIABLE, ModelRecord, load, path, show
from scvi_sctab.models._registry import list_models as list

__all__ = [
    "MODELS_VARIABLE",
    "ModelRecord",
    "list",
    "load",
    "path",
    "pull_from_hub",
    "push_to_hub",
    "render_card",
    "show",
    "write_card",
    "write_repository",
]
