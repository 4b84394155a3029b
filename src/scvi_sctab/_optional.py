"""Packages that only some of the code needs."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def import_extra(module: str, extra: str) -> ModuleType:
    """Import a module of an optional dependency, or say how to install it.

    Parameters
    ----------
    module
        Name of the module.
    extra
        Extra of this package that brings it.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        # A package that is there and lacks something of its own has another cure.
        if error.name != package:
            raise
        raise ImportError(
            f'This needs {package}: `pip install "scvi-sctab[{extra}]"`.', name=package
        ) from error
