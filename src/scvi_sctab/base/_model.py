"""Base of every model of this package."""

from __future__ import annotations

from scvi_sctab.base._cells import CellsMixin
from scvi_sctab.base._checkpoint import CheckpointMixin
from scvi_sctab.base._query_preparation import QueryPreparationMixin
from scvi_sctab.base._registered import RegisteredMixin


class BaseModel(QueryPreparationMixin, CheckpointMixin, RegisteredMixin, CellsMixin):
    """Model of scvi-tools that matches genes by name, and whose files execute no code."""
