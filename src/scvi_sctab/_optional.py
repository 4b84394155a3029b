"""Import of packages that belong to an extra."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def import_optional(module: str, extra: str, what: str) -> Any:
    """Import a package of an extra.

    Parameters
    ----------
    module
        Name of the package in an ``import``.
    extra
        Extra of scvi-sctab that installs it.
    what
        Function or class that needs it, for the message.

    Raises
    ------
    ImportError
        If it is not installed; the message names the extra.

    Examples
    --------
    >>> import_optional("no_such_package", "benchmark", "XGBoost()")
    Traceback (most recent call last):
    ImportError: XGBoost() needs 'no_such_package': `pip install 'scvi-sctab[benchmark]'`.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise ImportError(
            f"{what} needs {module!r}: `pip install 'scvi-sctab[{extra}]'`.", name=module
        ) from None
