"""Base of all models of this package: cells, genes, training, queries and files."""

from scvi_sctab.base._arrays import draw_cells, spread_cells
from scvi_sctab.base._cells import CellReader, CellsMixin
from scvi_sctab.base._celltypist import read_celltypist
from scvi_sctab.base._checkpoint import CheckpointMixin, read_digest
from scvi_sctab.base._devices import count_processes, is_other_process, steps_per_epoch
from scvi_sctab.base._digest import hash_json, hash_tensors, read_checked, write_checked
from scvi_sctab.base._docstrings import document_cells
from scvi_sctab.base._encoder import (
    bring_to_encoder,
    network_of_encoder,
    start_from_encoder,
)
from scvi_sctab.base._encoder_model import EncoderModel
from scvi_sctab.base._files import (
    find_leftovers,
    flush,
    move_files,
    publish_files,
    resolve_target,
    temporary_folder,
)
from scvi_sctab.base._fit import (
    all_or_nothing,
    check_epochs,
    check_trainer_arguments,
    fit,
    run,
    watch_validation,
)
from scvi_sctab.base._host import (
    HostModel,
    arguments_of,
    choose_device,
    require_trained,
    seed,
    setup_arguments,
)
from scvi_sctab.base._model import BaseModel
from scvi_sctab.base._published import read_checkpoint, registry_without_cells
from scvi_sctab.base._query_preparation import QueryPreparationMixin
from scvi_sctab.base._random import seeded
from scvi_sctab.base._registered import RegisteredMixin
from scvi_sctab.base._serialization import NotPortableError, decode, encode
from scvi_sctab.base._training_state import Checkpoints
from scvi_sctab.base._unlabeled_model import UnlabeledModel

__all__ = [
    "BaseModel",
    "CellReader",
    "CellsMixin",
    "CheckpointMixin",
    "Checkpoints",
    "EncoderModel",
    "HostModel",
    "NotPortableError",
    "QueryPreparationMixin",
    "RegisteredMixin",
    "UnlabeledModel",
    "all_or_nothing",
    "arguments_of",
    "bring_to_encoder",
    "check_epochs",
    "check_trainer_arguments",
    "choose_device",
    "count_processes",
    "decode",
    "document_cells",
    "draw_cells",
    "encode",
    "find_leftovers",
    "fit",
    "flush",
    "hash_json",
    "hash_tensors",
    "is_other_process",
    "move_files",
    "network_of_encoder",
    "publish_files",
    "read_checked",
    "read_celltypist",
    "read_checkpoint",
    "read_digest",
    "registry_without_cells",
    "require_trained",
    "resolve_target",
    "run",
    "seed",
    "seeded",
    "setup_arguments",
    "start_from_encoder",
    "spread_cells",
    "steps_per_epoch",
    "temporary_folder",
    "watch_validation",
    "write_checked",
]
