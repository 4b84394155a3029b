"""Construction of masks by their names, with gene programmes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from pandas.api.types import is_numeric_dtype

from scvi_sctab._config import MASKS
from scvi_sctab._constants import MIN_PROGRAMMES
from scvi_sctab.data import gene_programmes, list_names, regulators
from scvi_sctab.nn import (
    NoMask,
    ProgrammeMask,
    ProgrammeToGeneMask,
    ProgrammeToProgrammeMask,
    RandomMask,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

MaskName = Literal[
    "random", "gene_programme", "programme_to_programme", "programme_to_gene", "none"
]

_RATES = {"random": MASKS.random_rate, "gene_programme": MASKS.programme_rate}


def build_mask(
    name: MaskName,
    rate: float | None,
    programmes: str | Path | Mapping[str, Sequence[str]] | None,
    adata: AnnData | None,
    gene_names: NDArray[np.str_],
) -> tuple[nn.Module, dict[str, list[str]] | None]:
    """Build a mask, and find the genes of its programmes.

    Parameters
    ----------
    name, rate, programmes
        ``mask``, ``mask_rate`` and ``programmes`` of
        :class:`~scvi_sctab.pretrain.MaskedAutoencoder`.
    adata
        AnnData with the genes and ``varm``; if not given, genes are found by their names only.
    gene_names
        Genes of the model.

    Returns
    -------
    The mask, and the genes of each programme that are the model's.

    Raises
    ------
    ValueError
        If there is no such mask, a rate or programmes are given to a mask without them, or a mask
        needs programmes and none are given.
    """
    if name not in get_args(MaskName):
        raise ValueError(f"mask={name!r} is none of {', '.join(map(repr, get_args(MaskName)))}.")
    if rate is not None and name not in _RATES:
        raise ValueError(f"mask={name!r} has no rate, but mask_rate={rate} was given.")
    if name in ("random", "none"):
        if programmes is not None:
            raise ValueError(f"mask={name!r} hides no programmes, but some were given.")
        if name == "none":
            return NoMask(MASKS.n_targets), None
        return RandomMask(_RATES[name] if rate is None else rate, MASKS.n_targets), None
    if programmes is None:
        raise ValueError(
            f"mask={name!r} needs gene programmes: `programmes=` a GMT file, a mapping from names "
            "to genes, or the key of `adata.varm`."
        )
    if adata is None:
        adata = AnnData(var=pd.DataFrame(index=gene_names))
    found = gene_programmes(programmes, adata)
    members, names = torch.from_numpy(found.members), list(found.names)
    mask: nn.Module
    if name == "gene_programme":
        mask = ProgrammeMask(members, _RATES[name] if rate is None else rate, MASKS.n_targets)
    elif name == "programme_to_programme":
        mask = ProgrammeToProgrammeMask(members)
    else:
        genes = _regulators(names, adata)
        known = np.flatnonzero(genes >= 0)
        if len(known) < MIN_PROGRAMMES:
            raise ValueError(
                f"mask={name!r} asks for the gene that a programme is named by; "
                f"{len(known) or 'none'} of {list_names(names)} is a gene of these cells, at "
                f"least {MIN_PROGRAMMES} are needed."
            )
        members, genes = members[known], genes[known]
        # The name begins with the model's name of the regulator, to find it in a saved model.
        names = [f"{gene_names[gene]}_{names[i]}" for gene, i in zip(genes, known, strict=True)]
        mask = ProgrammeToGeneMask(members, torch.from_numpy(genes))
    resolved = {
        programme: gene_names[row.numpy()].tolist()
        for programme, row in zip(names, members, strict=True)
    }
    return mask, resolved


def with_all_targets(mask: nn.Module) -> nn.Module:
    """Return a mask with all genes as targets, in place of a random choice.

    Parameters
    ----------
    mask
        A mask of :func:`build_mask`; it is not changed.
    """
    asking: Any = copy(mask)
    asking.n_targets = None
    return asking


def _regulators(names: list[str], adata: AnnData) -> NDArray[np.int64]:
    """Find regulators among the names of genes, or in the column of ``var`` with most of them."""
    columns = [adata.var[c] for c in adata.var if not is_numeric_dtype(adata.var[c])]
    found = [regulators(names, genes.astype(str)) for genes in (adata.var_names, *columns)]
    return max(found, key=lambda positions: (positions >= 0).sum())
