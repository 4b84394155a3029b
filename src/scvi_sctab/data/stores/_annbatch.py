"""Import of annbatch, which needs a newer Python than the package."""

from __future__ import annotations

import sys
from typing import Any

from scvi_sctab._optional import import_optional

_PYTHON = (3, 12)
_PIPELINE = "zarrs.ZarrsCodecPipeline"


def import_annbatch(what: str) -> Any:
    """Import annbatch.

    Parameters
    ----------
    what
        Function or class that needs it, for the message.

    Raises
    ------
    ImportError
        If it is not installed, or Python is older than 3.12.

    Notes
    -----
    It sets the codec pipeline of zarr, for the whole process.
    """
    if sys.version_info < _PYTHON:
        version = ".".join(map(str, sys.version_info[:2]))
        raise ImportError(
            f"{what} reads and writes stores by annbatch, which needs Python 3.12 or newer; this "
            f"is Python {version}. Make an environment with a newer Python, and install "
            "`pip install 'scvi-sctab[atlas]'`.",
            name="annbatch",
        )
    module = import_optional("annbatch", "atlas", what)
    # The reader of zarr in Rust is several times as fast for the chunks of a local store.
    import_optional("zarrs", "atlas", what)
    import_optional("zarr", "atlas", what).config.set({"codec_pipeline.path": _PIPELINE})
    return module
