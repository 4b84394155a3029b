"""Base of every model of this package."""

from __future__ import annotations

from scvi_sctab.base._cells import CellsMixin
from scvi_sctab.base._checkpoint import CheckpointMixin
from scvi_sctab.base._query_preparation import QueryPreparationMixin


class BaseModel(QueryPreparationMixin, CheckpointMixin, CellsMixin):
    """Model of scvi-tools that reads cells by name of gene, and whose files execute nothing."""
