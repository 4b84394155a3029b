"""Machine and versions that a number was measured with."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_PACKAGES = ("scvi-sctab", "scvi-tools", "torch", "scikit-learn", "anndata")


@cache
def describe_versions() -> str:
    """Name the versions of Python and of the packages that numbers depend on.

    Examples
    --------
    >>> describe_versions()
    'Python 3..., scvi-sctab ..., scvi-tools ..., torch ..., ...'
    """
    found = [f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def describe_machine() -> str:
    """Name the processor, the number of its cores and of threads, and the GPU if there is one.

    Examples
    --------
    >>> describe_machine()
    '... CPUs, ... threads...'
    """
    name, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.exists():
        models = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads{gpu}"
