"""Random draws that some devices do not support."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

# MPS has no gamma, Poisson and binomial distribution.
_SAMPLING_DEVICES = {"cpu", "cuda", "meta"}


def sample(
    function: Callable[..., Tensor], *parameters: Tensor, generator: Generator | None = None
) -> Tensor:
    """Draw from a distribution on the device of its parameters, or on the CPU if it cannot.

    Parameters
    ----------
    function
        Function of torch that draws, such as :func:`torch.poisson`.
    *parameters
        Parameters of the distribution.
    generator
        Source of randomness on their device; torch's own if not given.

    Examples
    --------
    >>> sample(torch.poisson, torch.zeros(3))
    tensor([0., 0., 0.])
    """
    device = parameters[0].device
    if device.type in _SAMPLING_DEVICES:
        return function(*parameters, generator=generator)
    # The draws on the CPU follow the seed of the device.
    seed = torch.randint(2**31 - 1, (), generator=generator, device=device)
    source = Generator().manual_seed(int(seed))
    return function(*(each.cpu() for each in parameters), generator=source).to(device)
