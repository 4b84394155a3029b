"""Single precision, independent of torch's defaults in the calling program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def single_precision(device_type: str = "cpu") -> Iterator[None]:
    """Compute in float32: new tensors have this type, and autocast is off.

    The calling program may have set :func:`torch.set_default_dtype`, as packages for Gaussian
    processes do, or entered :class:`torch.autocast`. Both are restored at the end.

    Parameters
    ----------
    device_type
        Device whose autocast is switched off, such as ``"cuda"``.

    Examples
    --------
    >>> torch.set_default_dtype(torch.float64)
    >>> with single_precision():
    ...     torch.zeros(1).dtype
    torch.float32
    >>> torch.zeros(1).dtype
    torch.float64
    >>> torch.set_default_dtype(torch.float32)
    """
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        torch.set_default_dtype(default)
