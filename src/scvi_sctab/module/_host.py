"""Base class of modules over that of scvi-tools, with the types that it lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from scvi.module import base
from torch import nn

if TYPE_CHECKING:
    import torch

Method = TypeVar("Method", bound=Callable[..., Any])


# The host's class is a torch module, too; the second base says so, as the host has no types.
class HostModule(base.BaseModuleClass, nn.Module):  # type: ignore[misc]
    """A module of scvi-tools."""

    device: torch.device


def auto_move_data(method: Method) -> Method:
    """Move the arguments of a method to the device of its module, when it is in evaluation.

    Parameters
    ----------
    method
        Method of a :class:`HostModule`.
    """
    return base.auto_move_data(method)
