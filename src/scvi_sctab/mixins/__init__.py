"""What all models of this package have: cells, genes, queries and files."""

from scvi_sctab.mixins._arguments import check_arguments
from scvi_sctab.mixins._arrays import draw_cells, to_scipy
from scvi_sctab.mixins._cells import CellsMixin
from scvi_sctab.mixins._checkpoint import CheckpointMixin
from scvi_sctab.mixins._encoder import EncoderMixin
from scvi_sctab.mixins._published import read_checkpoint, registry_without_cells
from scvi_sctab.mixins._query_preparation import QueryPreparationMixin
from scvi_sctab.mixins._registered import RegisteredMixin
from scvi_sctab.mixins._running import all_or_nothing, check_epochs, check_trainer_arguments, run
from scvi_sctab.mixins._serialization import NotPortableError, decode, encode

__all__ = [
    "CellsMixin",
    "CheckpointMixin",
    "EncoderMixin",
    "NotPortableError",
    "QueryPreparationMixin",
    "RegisteredMixin",
    "all_or_nothing",
    "check_arguments",
    "check_epochs",
    "check_trainer_arguments",
    "decode",
    "draw_cells",
    "encode",
    "read_checkpoint",
    "registry_without_cells",
    "run",
    "to_scipy",
]
