"""Predictions of simulated perturbations: unseen ones with few cells, and unseen pairs.

Expression is relative to the library size. Errors are of the mean over held-out cells of a
perturbation, and correlations are of log2 fold changes relative to the unperturbed cells.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scvi
from _svae_recovery import (
    ALL_EPOCHS,
    BATCH_SIZE,
    CONTROL,
    KEY,
    LR,
    N_LATENT,
    OURS,
    TRAINER,
    markdown,
    mean_sd,
)
from _table import Table
from scvi.model import SCVI

from scvi_sctab.external.svae import PAPER_DESIGN, SpikeSlabVAE, simulate_perturbations

if TYPE_CHECKING:
    from argparse import Namespace

    from anndata import AnnData

KEYS = ["method", "n", "seed"]
SEEDS = {"unseen": range(2), "combinations": range(3)}
LIBRARY = 1e4
N_SEEN, N_UNSEEN, N_TRAIN, N_SCORED, N_SAMPLES = 80, 20, 250, 50, 100
# Proportions of cells with library sizes; twice the cells, half of which are held out.
SCREEN = replace(
    PAPER_DESIGN, normalization="cell", library_spread=0.4, n_cells=500, n_control_cells=500
)
PAIRS = replace(SCREEN, n_perturbations=N_SEEN, n_cells=250, n_combinations=40)
NUMBERS = (10, 50, 250)
PRIORS = {OURS: "spike_slab", "iVAE": "dense", "VAE": "none"}


def mean_expression(cells: AnnData) -> np.ndarray:
    """Mean proportions of genes, per 10,000 counts."""
    return (cells.X / cells.X.sum(axis=1, keepdims=True)).mean(axis=0) * LIBRARY


def errors(predicted: np.ndarray, cells: AnnData, controls: np.ndarray) -> dict[str, float]:
    """Compare predicted mean expression with that of cells."""
    true = mean_expression(cells)
    change, of_truth = np.log2(predicted / controls), np.log2(true / controls)
    return {
        "error": float(np.sqrt(((change - of_truth) ** 2).mean())),
        "correlation": float(np.corrcoef(change, of_truth)[0, 1]),
    }


def average(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each score over perturbations."""
    return pd.DataFrame(rows).mean().to_dict()


@dataclass(frozen=True)
class Unseen:
    """Cells to train on, cells of unseen perturbations, and how many cells of each to adapt to."""

    train: AnnData
    unseen: AnnData

    @classmethod
    def draw(cls, seed: int) -> Unseen:
        """Simulate a screen; the last perturbations are unseen."""
        screen = simulate_perturbations(SCREEN, seed=seed)
        names = screen.uns["effects"].index
        number = screen.obs.groupby(KEY, observed=True).cumcount().to_numpy()
        seen = screen.obs[KEY].isin([*names[:N_SEEN], CONTROL]).to_numpy()
        train, unseen = screen[seen & (number < N_TRAIN)].copy(), screen[~seen].copy()
        for cells in (train, unseen):
            cells.obs[KEY] = cells.obs[KEY].cat.remove_unused_categories()
        return cls(train, unseen)

    def part(self, low: int, high: int) -> AnnData:
        """Cells ``low`` to ``high`` of each unseen perturbation."""
        number = self.unseen.obs.groupby(KEY, observed=True).cumcount()
        return self.unseen[((number >= low) & (number < high)).to_numpy()].copy()

    def adapted(self, n: int) -> AnnData:
        """Cells to adapt to."""
        return self.part(0, n)

    @property
    def scored(self) -> AnnData:
        """Held-out cells whose likelihood counts."""
        return self.part(N_TRAIN, N_TRAIN + N_SCORED)

    def score(self, predict: Callable[[str], np.ndarray]) -> dict[str, float]:
        """Errors of predicted means, over the held-out cells of each unseen perturbation."""
        controls = mean_expression(self.train[(self.train.obs[KEY] == CONTROL).to_numpy()])
        held_out = self.part(N_TRAIN, SCREEN.n_cells)
        return average(
            [
                errors(predict(name), held_out[(held_out.obs[KEY] == name).to_numpy()], controls)
                for name in held_out.obs[KEY].cat.categories
            ]
        )


def as_controls(cells: AnnData) -> AnnData:
    """Cells that a model without shifts reads: it does not know the perturbations."""
    cells = cells.copy()
    cells.obs[KEY] = pd.Categorical([CONTROL] * cells.n_obs)
    return cells


def fit(cells: AnnData, prior: str, separator: str | None = None) -> SpikeSlabVAE:
    """Fit a model of ours, or another prior with as many epochs."""
    SpikeSlabVAE.setup_anndata(cells, KEY, CONTROL, separator=separator)
    model = SpikeSlabVAE(cells, n_latent=N_LATENT, prior=prior)
    model.train(None if prior == "spike_slab" else ALL_EPOCHS, **TRAINER)
    return model


def unseen_by_prior(prior: str, task: Unseen) -> Iterator[dict[str, Any]]:
    """Adapt to more and more cells."""
    model = fit(task.train, prior)
    for n in NUMBERS:
        if prior == "none":
            cells = as_controls(task.adapted(n))
            expression = model.get_normalized_expression(cells, library_size=LIBRARY)
            names = task.adapted(n).obs[KEY].to_numpy()
            means = expression.groupby(names).mean()
            row = task.score(lambda name, means=means: means.loc[name].to_numpy())
            scored = as_controls(task.scored)
            row["ll"] = model.get_marginal_ll(scored, n_samples=N_SAMPLES)
        else:
            adapted = model.adapt(task.adapted(n), train_size=1.0)
            controls = task.train[(task.train.obs[KEY] == CONTROL).to_numpy()].copy()
            means = {
                name: adapted.predict_perturbation(name, controls)["mean"].to_numpy()
                for name in task.unseen.obs[KEY].cat.categories
            }
            row = task.score(means.__getitem__)
            row["ll"] = adapted.get_marginal_ll(task.scored, n_samples=N_SAMPLES)
        yield {"n": n, **row}


def unseen_by_scvi(task: Unseen) -> Iterator[dict[str, Any]]:
    """Condition SCVI on the perturbation as if it were a batch, and map new ones onto it."""
    SCVI.setup_anndata(task.train, batch_key=KEY)
    reference = SCVI(task.train, n_latent=N_LATENT, n_layers=2, gene_likelihood="nb")
    plan = {"lr": LR, "n_epochs_kl_warmup": ALL_EPOCHS}
    options = {"batch_size": BATCH_SIZE, "train_size": 1.0, **TRAINER}
    reference.train(ALL_EPOCHS, plan_kwargs=plan, **options)
    for n in NUMBERS:
        cells = task.adapted(n)
        model = SCVI.load_query_data(cells, reference)
        model.train(100, plan_kwargs={"weight_decay": 0.0}, **options)
        expression = model.get_normalized_expression(library_size=LIBRARY)
        means = expression.groupby(cells.obs[KEY].to_numpy()).mean()
        row = task.score(lambda name, means=means: means.loc[name].to_numpy())
        scored = task.scored
        lls = model.get_marginal_ll(scored, n_mc_samples=N_SAMPLES, n_mc_samples_per_pass=10)
        yield {"n": n, **row, "ll": float(lls)}


def unseen_by_means(task: Unseen) -> Iterator[dict[str, Any]]:
    """Take the mean of the cells to adapt to."""
    for n in NUMBERS:
        cells = task.adapted(n)
        means = {
            name: mean_expression(cells[(cells.obs[KEY] == name).to_numpy()])
            for name in cells.obs[KEY].cat.categories
        }
        yield {"n": n, **task.score(means.__getitem__), "ll": np.nan}


def run_unseen(method: str, seed: int) -> Iterator[dict[str, Any]]:
    """Rows of one method."""
    task = Unseen.draw(seed)
    if method in PRIORS:
        return unseen_by_prior(PRIORS[method], task)
    return {"conditional SCVI": unseen_by_scvi, "mean of the cells": unseen_by_means}[method](task)


def run_pairs(method: str, seed: int) -> Iterator[dict[str, Any]]:
    """Predict the mean of unseen pairs from singles and unperturbed cells."""
    screen = simulate_perturbations(PAIRS, seed=seed)
    joint = screen.obs[KEY].str.contains("+", regex=False).to_numpy()
    singles, pairs = screen[~joint].copy(), screen[joint].copy()
    means = {
        name: mean_expression(singles[(singles.obs[KEY] == name).to_numpy()])
        for name in singles.obs[KEY].unique()
    }
    controls = means[CONTROL]
    model = fit(singles, PRIORS[method], "+") if method in PRIORS else None

    def predict(name: str) -> np.ndarray:
        left, right = (means[part] for part in name.split("+"))
        if method == "sum of log fold changes":
            return left * right / controls
        if method == "sum of differences":
            return np.maximum(left + right - controls, 1e-2)
        return model.predict_perturbation(name)["mean"].to_numpy()

    rows = [
        errors(predict(name), pairs[(pairs.obs[KEY] == name).to_numpy()], controls)
        for name in pairs.obs[KEY].unique()
    ]
    yield {"n": len(rows), **average(rows)}


UNSEEN = (OURS, "VAE", "iVAE", "conditional SCVI", "mean of the cells")
COMBINATIONS = (OURS, "iVAE", "sum of log fold changes", "sum of differences")
PARTS = {"unseen": (UNSEEN, run_unseen), "combinations": (COMBINATIONS, run_pairs)}


def table_of(part: str, args: Namespace) -> Table:
    """Rows of a part."""
    return Table(args.out / f"svae_{part}.csv", KEYS, merge=True)


def run(part: str, args: Namespace) -> None:
    """Run the methods that have no row yet."""
    table = table_of(part, args)
    methods, function = PARTS[part]
    for seed in args.seeds or SEEDS[part]:
        for method in [m for m in methods if m in (args.only or methods)]:
            known = (table.rows[["method", "seed"]] == [method, seed]).all(axis=1).any()
            if known and not args.again:
                continue
            scvi.settings.seed = seed
            start = time.process_time()
            rows = [{"method": method, "seed": seed, **row} for row in function(method, seed)]
            seconds = time.process_time() - start
            table.add([row | {"seconds": seconds} for row in rows])
            print(f"{part} | {method} | seed {seed}: {seconds:.0f} s", flush=True)
            for row in rows:
                print("   ", {k: v for k, v in row.items() if k not in ("method", "seed")})


def report(args: Namespace) -> str:
    """Tables of both parts."""
    parts = []
    runs = table_of("unseen", args).rows
    if len(runs):
        parts.append(
            f"## Unseen perturbations\n\n{N_UNSEEN} of {N_SEEN + N_UNSEEN} perturbations are held "
            "out. Log-likelihood of held-out cells (nats per cell), error of log2 fold changes "
            "(root mean square) and their correlation; mean over perturbations, then mean ± sd "
            f"over {runs['seed'].nunique()} seeds.\n"
        )
        for n, of_n in runs.groupby("n"):
            parts += [_scores(of_n, UNSEEN, f"{n:.0f} cells per perturbation"), ""]
    runs = table_of("combinations", args).rows
    if len(runs):
        parts.append(
            f"## Unseen pairs\n\n{PAIRS.n_combinations} pairs of {N_SEEN} perturbations, predicted "
            f"from singles; mean ± sd over {runs['seed'].nunique()} seeds.\n"
        )
        parts += [_scores(runs, COMBINATIONS, "method"), ""]
    return "\n".join(parts)


def _scores(runs: pd.DataFrame, methods: tuple[str, ...], index: str) -> str:
    rows = {}
    for method in methods:
        part = runs[runs["method"] == method]
        if len(part):
            rows[method] = {
                "error": mean_sd(part["error"]),
                "correlation": mean_sd(part["correlation"]),
            }
            if "ll" in part:
                rows[method] = {"log-likelihood": mean_sd(part["ll"], "{:.2f}"), **rows[method]}
    return markdown(pd.DataFrame(rows).T, index)
