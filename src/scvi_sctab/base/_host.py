"""All that the package uses of scvi-tools beyond its public interface."""

from __future__ import annotations

from scvi import settings


def seed() -> int:
    """Return the seed of scvi-tools, ``scvi.settings.seed``; 0 if none is set."""
    return 0 if settings.seed is None else int(settings.seed)
