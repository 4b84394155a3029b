"""Training of the imputer with a bulk prior, and its state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scvi import REGISTRY_KEYS

from scvi_sctab._config import BULK_AUTOENCODER, BULK_PLAN, IMPUTER
from scvi_sctab._constants import CONDITIONS_KEY, MEASURED_KEY
from scvi_sctab._logging import logger
from scvi_sctab._messages import warn
from scvi_sctab.base import (
    BaseModel,
    all_or_nothing,
    fit,
    seed,
    steps_per_epoch,
    watch_validation,
)
from scvi_sctab.data import CellDataset, CellSplitter, get_column, read_counts
from scvi_sctab.external.scdtl._bulk import BulkProfiles
from scvi_sctab.external.scdtl._factor import GenePrior
from scvi_sctab.external.scdtl._gain import choose_use, describe_gain, gain_table
from scvi_sctab.external.scdtl._imputer_cells import (
    DescribedCells,
    describe_by_factors,
    describe_by_network,
    run_network,
)
from scvi_sctab.external.scdtl._imputer_fit import (
    FittedImputer,
    ImputerTask,
    fit_final,
    level_of_others,
    trial_shares,
)
from scvi_sctab.external.scdtl._module import decorrelate
from scvi_sctab.external.scdtl._trials import BulkOfGenes, BulkUse, best_own_shape, score_shares
from scvi_sctab.nn import single_precision
from scvi_sctab.sparse import CSR, to_scipy
from scvi_sctab.train import SelfSupervisedTrainingPlan, SinglePrecisionRunner

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from scvi_sctab.data import CellSelection
    from scvi_sctab.external.scdtl._trials import Trial

    Floats = NDArray[np.float64]

# Cells whose shares are dense at a time.
_BATCH_SIZE = 512


class ImputerTraining(BaseModel):
    """Training of a model on molecules that are not held out, and its state.

    Genes are in alphabetical order wherever something is fitted or drawn, so that the result does
    not depend on their order in the cells.
    """

    _train_runner_cls = SinglePrecisionRunner
    _bulk: BulkProfiles | None = None
    _fit: FittedImputer
    _gain: pd.DataFrame | None = None

    @property
    def bulk_(self) -> dict[str, Any] | None:
        """Profiles of bulk that the model keeps."""
        return None if self._bulk is None else asdict(self._bulk)

    @bulk_.setter
    def bulk_(self, state: dict[str, Any] | None) -> None:
        self._bulk = None if state is None else BulkProfiles(**state)

    @property
    def fit_(self) -> dict[str, Any] | None:
        """Result of the training, apart from the weights of the network."""
        return self._fit.to_dict() if hasattr(self, "_fit") else None

    @fit_.setter
    def fit_(self, state: dict[str, Any] | None) -> None:
        if state is not None:
            self._fit = FittedImputer(**state)

    @property
    def gain_(self) -> pd.DataFrame | None:
        """Gain of bulk on held-out molecules."""
        return self._gain

    @gain_.setter
    def gain_(self, table: pd.DataFrame | None) -> None:
        self._gain = table

    @property
    def other_genes(self) -> list[str]:
        """Genes that only bulk has and that the model completes."""
        return self._genes_of_bulk_only(self._fit.use if hasattr(self, "_fit") else "full")

    def _genes_of_bulk_only(self, use: str) -> list[str]:
        if self._bulk is None or self._arguments()["genes"] == "sc" or use == "none":
            return []
        own = {*self.gene_names.tolist()}
        return [gene for gene in self._bulk.genes if gene not in own]

    @property
    def _order(self) -> NDArray[np.intp]:
        """Positions of the genes in alphabetical order."""
        return np.argsort(self.gene_names, kind="stable")

    def train(
        self,
        max_steps: int = IMPUTER.max_steps,
        *,
        early_stopping: bool = True,
        holdout_fraction: float = IMPUTER.holdout_fraction,
        batch_size: int = IMPUTER.batch_size,
        compare_bulk: bool = True,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train, and measure what bulk gains on molecules that are held out.

        Counts are read into memory. Number and start of factors, use of bulk and method are chosen
        by the held-out molecules; the factors are then fitted to all of them. If the model is
        trained already, training starts from new weights: other molecules may be held out.

        Parameters
        ----------
        max_steps
            Largest number of steps of the autoencoder.
        early_stopping
            Whether to stop when the loss on held-out molecules no longer decreases.
        holdout_fraction
            Share of the molecules of each cell to hold out.
        batch_size
            Cells per step.
        compare_bulk
            Whether to measure the gain of bulk; ``bulk_use="auto"`` always does.
        accelerator, devices
            Device of the autoencoder; a GPU if there is one.
        plan_kwargs
            Further arguments of :class:`~scvi_sctab.train.SelfSupervisedTrainingPlan`.
        **trainer_kwargs
            Further arguments of :class:`~scvi.train.Trainer`.

        Raises
        ------
        ValueError
            If the model has no AnnData, its counts are not raw, there are fewer than two cells, or
            an argument is out of range.

        Warns
        -----
        UserWarning
            If ``bulk_use="auto"`` does not use the contrasts of bulk.
        """
        self._check_arguments(None, trainer_kwargs, "train")
        if max_steps < 1:
            raise ValueError(f"{max_steps=}: train for at least one step.")
        if batch_size < 2:
            raise ValueError(f"{batch_size=}: a step needs two cells at least.")
        if not 0 < holdout_fraction < 1:
            raise ValueError(f"{holdout_fraction=} is not in (0, 1).")
        self._check_own_cells()
        task = self._task(holdout_fraction)
        method = self._arguments()["method"]
        with all_or_nothing(self):
            use, trials = self._choose_use(task, compare_bulk)
            self._finish_factors(task, use, trials[use])
            if method != "factor":
                before, likelihood = self._fit, trials[use].log_likelihood
                trainer_kwargs |= {"accelerator": accelerator, "devices": devices}
                found = self._train_network(
                    task,
                    use,
                    trials[use],
                    max_steps,
                    batch_size,
                    early_stopping,
                    plan_kwargs or {},
                    trainer_kwargs,
                )
                if method == "auto" and found < likelihood:
                    self._fit = before
                logger.info(
                    f"Log-likelihood per held-out molecule: factors {likelihood:.4f}, autoencoder "
                    f"{found:.4f}; method {self._fit.method!r}."
                )
            self.train_indices_ = np.arange(self.adata.n_obs)
            self.validation_indices_ = self.test_indices_ = np.arange(0)
            self.is_trained_ = True
            self.module.eval()

    def _task(self, holdout_fraction: float) -> ImputerTask:
        """Read the cells, and hold out a share of their molecules."""
        blocks = [block[:, self._order] for block in read_counts(self.adata, self.layer)]
        counts = sparse.vstack(blocks, format="csr")
        counts.sort_indices()
        if counts.shape[0] < 2:
            raise ValueError("One cell is not enough to learn from; give two at least.")
        bulk = None
        if self._bulk is not None:
            bulk = BulkOfGenes(*self._bulk.at(self.gene_names[self._order]))
        n_batches = sum(len(condition.categories) for condition in self.conditions)
        codes = self._batches(self._conditions_of(self.adata))
        return ImputerTask.build(counts, codes, n_batches, bulk, holdout_fraction, seed())

    @staticmethod
    def _batches(codes: NDArray[np.int64]) -> NDArray[np.int64]:
        return codes[:, 0] if codes.shape[1] else np.full(len(codes), -1, dtype=np.int64)

    def _choose_use(
        self, task: ImputerTask, compare_bulk: bool
    ) -> tuple[BulkUse, dict[str, Trial]]:
        """Compare uses of bulk on held-out molecules, and choose one."""
        asked: Literal["auto", "full", "level", "none"] = self._arguments()["bulk_use"]
        has_contrasts = task.bulk is not None and task.bulk.contrasts.shape[1] > 0
        if task.bulk is None:
            asked = "none"
        elif asked == "full" and not has_contrasts:
            asked = "level"
        uses: list[BulkUse] = [] if asked == "auto" else [asked]
        if task.bulk is not None and (compare_bulk or asked == "auto"):
            uses = ["none", "level", *(["full", "shuffled"] if has_contrasts else [])]  # type: ignore[list-item]
        trials = task.compare(uses)
        if len(uses) == 1:
            self._gain = None
            return uses[0], trials
        scores = {use: trial.scores for use, trial in trials.items()}
        self._gain = gain_table({**scores, "gene mean": task.score_gene_mean()})
        logger.info(describe_gain(self._gain))
        if asked != "auto":
            return asked, trials
        use, reason = choose_use(scores)
        if reason:
            warn(f"{reason} The model uses {use!r}; `bulk_use='full'` insists on them.")
        return use, trials  # type: ignore[return-value]

    def _finish_factors(self, task: ImputerTask, use: BulkUse, trial: Trial) -> None:
        """Fit the factors to all molecules."""
        prior, factors = fit_final(task, use, trial)
        own_shape = best_own_shape(task.part.counts, task.held_out, trial_shares(task, trial))
        rest = self._other_profiles(use)[0]
        self._fit = FittedImputer(
            use,
            "factor",
            own_shape,
            np.zeros((0, 0)),
            prior.level,
            level_of_others(task, rest, use),
            **asdict(factors),
            library_scale=self._library_scale(task.cells.counts),
        )

    def _library_scale(self, counts: sparse.csr_matrix) -> float:
        """Compute the number of molecules per unit of the size factors, if there are any."""
        key = self.registry["setup_args"]["size_factor_key"]
        if key is None:
            return 1.0
        return float(counts.sum() / read_size_factors(self.adata.obs, key).sum())

    def _other_profiles(self, use: str) -> tuple[Floats, Floats]:
        """Look up mean and contrasts of the genes in bulk only."""
        if self._bulk is None:
            return np.zeros(0), np.zeros((0, 0))
        return self._bulk.at(self._genes_of_bulk_only(use))

    def _train_network(
        self,
        task: ImputerTask,
        use: BulkUse,
        trial: Trial,
        max_steps: int,
        batch_size: int,
        early_stopping: bool,
        plan_kwargs: dict[str, Any],
        trainer_kwargs: dict[str, Any],
    ) -> float:
        """Train the autoencoder, and return the log-likelihood per held-out molecule."""
        if self.is_trained_:
            # These weights have learnt from molecules that are held out now.
            with single_precision():
                self.module = self.module.untrained()
            self.history_ = None
        part, n_cells = task.part, task.part.counts.shape[0]
        prior = task.prior(use, of_part=True)
        contrasts = np.zeros((len(prior.level), self.module.contrasts.shape[1]))
        rotation = np.zeros((0, 0))
        if use == "full":
            rotation = decorrelate(prior.level, prior.features)
            contrasts = prior.features @ rotation
        library = np.asarray(part.counts.sum(axis=1), dtype=float).ravel()
        self.module.set_prior(prior.level, contrasts, library, trial.factors.shifts)
        both = sparse.hstack([part.counts, task.held_out], format="csr", dtype=np.float32)
        cells = CellDataset(both, np.zeros(n_cells, np.int64), part.batches[:, None])
        # An epoch is long enough to be worth a validation; a cell comes more than once in it.
        n_repeats = ceil(BULK_AUTOENCODER.steps_per_epoch * batch_size / n_cells)
        every = np.arange(n_cells)
        parts = [np.tile(every, n_repeats), every, every[:0]]
        splitter = CellSplitter(cells, parts, batch_size=batch_size)
        plan = SelfSupervisedTrainingPlan(
            self.module, **{**BULK_PLAN.to_kwargs(), "lr_decay_every": max_steps, **plan_kwargs}
        )
        trainer_kwargs = watch_validation(
            trainer_kwargs,
            "validation_loss",
            "min",
            early_stopping=early_stopping,
            patience=BULK_AUTOENCODER.patience,
        )
        n_epochs = ceil(max_steps / steps_per_epoch(splitter, trainer_kwargs))
        # Epochs of equal length, so that the last one is validated, too.
        trainer_kwargs = {"limit_train_batches": max_steps // n_epochs, **trainer_kwargs}
        fit(self, plan, splitter, n_epochs, **trainer_kwargs)

        def shares(rows: slice) -> Floats:
            output = run_network(self.module, part.counts[rows], part.batches[rows])
            return output["log_shares"].double().exp().cpu().numpy()

        own_shape = best_own_shape(part.counts, task.held_out, shares)
        self._fit = replace(
            self._fit, method="autoencoder", own_shape=own_shape, rotation=rotation
        )
        scores = score_shares(part.counts, task.held_out, task.ratio, shares, task.strata)
        return float(scores.per_molecule["all"])

    def _describe(
        self, cells: CellSelection, batch_size: int | None, *, with_batch: bool = True
    ) -> Iterator[DescribedCells]:
        """Describe cells, some at a time."""
        self._require_trained()
        order, fitted = self._order, self._fit
        other_contrasts = self._other_profiles(fitted.use)[1]
        contrasts = np.zeros((len(order), 0))
        if self._bulk is not None:
            contrasts = self._bulk.at(self.gene_names[order])[1]

        def describe(tensors: dict[str, Tensor]) -> DescribedCells:
            counts = _as_scipy(tensors[REGISTRY_KEYS.X_KEY])[:, order]
            batches = self._batches(tensors[CONDITIONS_KEY].cpu().numpy())
            measured = None
            if MEASURED_KEY in tensors:
                measured = tensors[MEASURED_KEY].cpu().numpy()[order]
            if fitted.method == "factor":
                prior = GenePrior(fitted.level, contrasts)
                return describe_by_factors(
                    fitted, prior, other_contrasts, counts, batches, measured, with_batch
                )
            return describe_by_network(
                fitted, self.module, other_contrasts, counts, batches, measured, with_batch
            )

        size = _BATCH_SIZE if batch_size is None else batch_size
        yield from self._map_cells(describe, cells, size)

    def _impute(
        self,
        cells: CellSelection,
        columns: NDArray[np.intp],
        library_size: float | Literal["observed"],
        observed: str,
        batch_size: int | None,
        *,
        with_batch: bool = True,
    ) -> pd.DataFrame:
        """Impute genes by their position among all that can be imputed."""
        self._require_trained()
        sizes = self._library_sizes(cells, library_size)
        n_genes = len(self.gene_names)
        of_cells, of_bulk = columns[columns < n_genes], columns[columns >= n_genes] - n_genes
        # Positions of the genes of the cells in alphabetical order.
        place = np.argsort(self._order)[of_cells]
        names = pd.Index([*self.gene_names, *self.other_genes])
        values = np.empty((len(cells), len(columns)), dtype=np.float32)
        start = 0
        for part in self._describe(cells, batch_size, with_batch=with_batch):
            rows = slice(start, start + part.counts.shape[0])
            library = part.library if sizes is None else sizes[rows]
            values[rows, columns < n_genes] = (
                part.impute(observed, self._fit.own_shape)[:, place] * library
            )
            values[rows, columns >= n_genes] = part.others[:, of_bulk] * library
            start = rows.stop
        return pd.DataFrame(values, cells.names, names[columns])

    def _library_sizes(
        self, cells: CellSelection, library_size: float | Literal["observed"]
    ) -> Floats | None:
        """Return the sizes of libraries, ``(n_cells, 1)``; ``None`` if they follow from counts."""
        key = self.registry["setup_args"]["size_factor_key"]
        if library_size != "observed":
            return np.full((len(cells), 1), library_size, dtype=float)
        if key is None:
            return None
        factors = read_size_factors(cells.adata.obs.iloc[cells.positions], key)
        return self._fit.library_scale * factors[:, None]


def read_size_factors(obs: pd.DataFrame, key: str) -> Floats:
    """Read the size factors of cells, ``(n_cells,)``.

    Parameters
    ----------
    obs
        Table of the cells.
    key
        Name of the column.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If a value is missing or not positive.
    """
    # `get_column` refuses missing values with a cure for categories.
    column = obs[key] if key in obs else get_column(obs, key, "size_factor_key")
    values: Floats = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
    wrong = ~(np.isfinite(values) & (values > 0))
    if wrong.any():
        cell = int(wrong.argmax())
        raise ValueError(
            f"adata.obs[{key!r}] of cell {str(obs.index[cell])!r} is {column.iloc[cell]}; a size "
            "factor is a positive number."
        )
    return values


def _as_scipy(counts: Tensor) -> sparse.csr_matrix:
    """Convert counts of a minibatch, dense or CSR, on any device."""
    if counts.layout is torch.strided:
        return to_scipy(counts)
    return CSR.from_torch(counts.cpu()).to_scipy()
