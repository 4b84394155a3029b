"""Import of published checkpoints: files without their code, and registries without cells."""

from __future__ import annotations

from collections.abc import Sequence
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse
from torch.optim import AdamW
from torch.optim.lr_scheduler import StepLR

from scvi_sctab.data import check_genes, make_manager

if TYPE_CHECKING:
    from pathlib import Path

    from scvi.data.fields import AnnDataField


def read_checkpoint(path: Path) -> Any:
    """Read a checkpoint as data only; large buffers are mapped into memory.

    Parameters
    ----------
    path
        A file of torch or Lightning.

    Returns
    -------
    The saved object, with tensors on the CPU.

    Raises
    ------
    ValueError
        If the file is damaged, or has more than tensors and settings.
    """
    try:
        # Settings refer to these classes by name; they are not used.
        with torch.serialization.safe_globals([AdamW, StepLR, torch.nn.SELU]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UnpicklingError as error:
        raise ValueError(
            f"{path} cannot be read without running code from it, which is refused: {error}"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path} is not a checkpoint or is damaged: {error}") from error


def registry_without_cells(
    model_name: str,
    fields: Sequence[AnnDataField],
    setup_args: dict[str, Any],
    var_names: Sequence[str],
    obs: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Build the registry of a reference with these genes and columns, without its cells.

    Parameters
    ----------
    model_name, fields, setup_args
        Name of the model's class, the fields to register, and the arguments of set-up.
    var_names
        Genes.
    obs
        Columns that ``fields`` read.

    Raises
    ------
    ValueError
        If genes are duplicated or too few.
    """
    obs = pd.DataFrame(index=["cell"]) if obs is None else obs
    genes = check_genes(list(var_names))
    adata = AnnData(
        sparse.csr_matrix((len(obs), len(genes)), dtype=np.float32),
        obs=obs,
        var=pd.DataFrame(index=genes),
    )
    return make_manager(model_name, adata, fields, setup_args).registry
