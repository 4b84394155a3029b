"""CellTypist, in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from scvi_sctab.baselines import _celltypist_worker as worker
from scvi_sctab.baselines._template import Baseline
from scvi_sctab.data import normalized_expression, strip_versions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scvi_sctab.data import GeneAlignment

_CURE = (
    "Give CellTypist, which needs scikit-learn<1.8, an environment of its own: `python -m venv "
    "celltypist && celltypist/bin/pip install celltypist==1.7.1 'scikit-learn<1.8'`, then "
    "`baselines.CellTypist(python='celltypist/bin/python')`."
)


class CellTypist(Baseline):
    """CellTypist :cite:p:`DominguezConde22`: logistic regression, one label against the others.

    Trained and applied as in its documentation, on log-normalised expression over all genes of
    the reference and all genes of the query; without majority voting, which has no probabilities.
    Its probability of a label is that of the label against all others, so the probabilities
    of a cell need not sum to one.

    Parameters
    ----------
    seed
        Seed of the first of two passes.
    python
        Interpreter that can import celltypist; this one if not given.
    two_pass
        Whether a first pass chooses 300 genes per label, as in its tutorial of custom models;
        ``celltypist.train`` does one pass over all genes.
    """

    name = "CellTypist"

    def __init__(self, seed: int = 0, *, python: str | None = None, two_pass: bool = False):
        super().__init__(seed)
        self.python = sys.executable if python is None else python
        self.two_pass = self.is_seeded = two_pass
        if two_pass:
            self.name = "CellTypist, two passes"

    def _fit(self, reference: AnnData, labels: NDArray[np.str_]) -> None:
        obs = pd.DataFrame({worker.LABEL: reference.obs[self._labels_key]})
        cells = AnnData(normalized_expression(reference), obs=obs, var=reference.var)
        with TemporaryDirectory() as folder:
            paths = Path(folder) / "reference.h5ad", Path(folder) / "model.pkl"
            cells.write_h5ad(paths[0])
            options = ["--seed", str(self.seed), *["--two-pass"] * self.two_pass]
            self._run(["train", *map(str, paths), *options])
            self._model = paths[1].read_bytes()

    def _predict(self, query: AnnData, alignment: GeneAlignment) -> NDArray[np.floating]:
        names = strip_versions(query.var_names)
        # Genes that only the query has may be duplicated.
        order = np.argsort(names.to_numpy(dtype=str), kind="stable")
        order = order[~names[order].duplicated()]
        cells = AnnData(
            normalized_expression(query)[:, order],
            obs=pd.DataFrame(index=query.obs_names),
            var=pd.DataFrame(index=names[order]),
        )
        with TemporaryDirectory() as folder:
            paths = [Path(folder) / name for name in ("query.h5ad", "model.pkl", "table.npz")]
            cells.write_h5ad(paths[0])
            paths[1].write_bytes(self._model)
            self._run(["annotate", *map(str, paths)])
            table = np.load(paths[2])
        order = np.argsort(table["labels"])
        return table["probabilities"][:, order]

    def _run(self, arguments: Sequence[str]) -> None:
        command = [self.python, worker.__file__, *arguments]
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True)
        except FileNotFoundError:
            raise ImportError(f"There is no interpreter at {self.python!r}. {_CURE}") from None
        if done.returncode == worker.NOT_INSTALLED:
            raise ImportError(f"{self.python!r} cannot import celltypist. {_CURE}")
        if done.returncode:
            raise RuntimeError(f"CellTypist failed: {' '.join(command)}\n{done.stderr[-4000:]}")
