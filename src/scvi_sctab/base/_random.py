"""Random numbers of torch that do not depend on what was drawn before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch on all devices; at the end all of them continue as if nothing had been drawn.

    :func:`torch.random.fork_rng` leaves devices seeded that it is not given, and warns if it is
    given none and there are several.

    Parameters
    ----------
    seed
        The seed.

    Examples
    --------
    >>> with seeded(0):
    ...     first = torch.rand(1)
    >>> with seeded(0):
    ...     torch.equal(torch.rand(1), first)
    True
    """
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        for kind in ("cuda", "mps"):
            module = getattr(torch, kind)
            devices = range(module.device_count() if module.is_available() else 0)
            stack.enter_context(torch.random.fork_rng(devices, device_type=kind))
        torch.manual_seed(seed)
        yield
