"""Recovery of the latents and targets of simulated screens by sVAE+ (`SpikeSlabVAE`) and others.

All methods see the counts and the perturbations of all cells. Latents are matched to the true ones by
absolute correlation; the seed is that of the simulation and of the model. Writes
``results/svae_recovery.csv``, a row per run and after each, and ``results/svae.md``.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scvi
import torch
from _arguments import measured, new_parser, report
from scvi.model import SCVI
from sklearn.decomposition import PCA

from scvi_sctab import benchmark
from scvi_sctab.benchmark import Method, Task
from scvi_sctab.external.svae import (
    PAPER_DESIGN,
    REALISTIC_DESIGN,
    SpikeSlabVAE,
    rotate_scvi,
    simulate_perturbations,
    sparse_rotation,
)
from scvi_sctab.metrics import match_latents, target_scores

if TYPE_CHECKING:
    from anndata import AnnData

KEY, CONTROL, N_LATENT = "perturbation", "control", 15
# Epochs of our autoencoder and of all our stages, for the others.
EPOCHS, ALL_EPOCHS, LR, BATCH_SIZE = 80, 140, 3e-3, 512
TRAINER = {"accelerator": "cpu", "enable_progress_bar": False}
OURS, PCA_ROTATION = "sVAE+", "PCA + rotation"
PAPER = replace(PAPER_DESIGN, n_perturbations=80)
REALISTIC = replace(REALISTIC_DESIGN, n_perturbations=80)
HARD: dict[str, dict[str, Any]] = {
    "20 perturbations": {"n_perturbations": 20},
    "shifts of absolute N(3, 2)": {"shift": 3.0, "shift_sd": 2.0},
    "shifts of absolute 5 + t(2)": {"shift_tail": 2.0, "shift_sd": 1.0},
    "shift 1": {"shift": 1.0, "shift_sd": 0.1},
    "50 cells per perturbation": {"n_cells": 50},
    "10 latents for 15": {},
    "unequal cells, 1,000 controls": {"n_cells_spread": 0.7, "n_control_cells": 1000},
    "three batches": {"n_batches": 3, "batch_sd": 0.3},
    "off-target background 0.5": {"background_sd": 0.5},
    "anisotropic residuals": {"anisotropy": 0.5},
    "correlated targets": {"partner_rate": 0.8},
    "depth 1,000, overdispersed": {
        "normalization": "cell",
        "depth": 1000.0,
        "overdispersion": 0.2,
    },
}
Found = tuple[np.ndarray, pd.DataFrame | None]
"""Latents of cells, and targets of perturbations if the method has them."""


def control_of(screen: AnnData) -> str | None:
    """Name of unperturbed cells, if there are some."""
    return CONTROL if CONTROL in set(screen.obs[KEY]) else None


def batch_of(screen: AnnData) -> str | None:
    """Column of batches, if there are several."""
    return "batch" if screen.obs["batch"].nunique() > 1 else None


def ours(screen: AnnData, n: int, prior: str = "spike_slab", **training: Any) -> Found:
    """Our model by default or with another prior; targets of iVAE are its two largest shifts."""
    SpikeSlabVAE.setup_anndata(screen, KEY, control_of(screen), batch_key=batch_of(screen))
    model = SpikeSlabVAE(screen, n_latent=n, prior=prior)
    model.train(**training, **TRAINER)
    if prior == "dense":
        ranks = (
            model.get_intervention_effects().abs().rank(axis=1, ascending=False, method="first")
        )
        return model.get_latent_representation(), ranks <= 2
    return model.get_latent_representation(), model.get_intervention_targets() > 0.5


def permuted(screen: AnnData, n: int) -> Found:
    """Our model on perturbations in random order among cells; no target is true."""
    screen, order = screen.copy(), np.random.default_rng(0).permutation(screen.n_obs)
    screen.obs[KEY] = screen.obs[KEY].to_numpy()[order]
    return ours(screen, n)


def autoencoder(screen: AnnData, n: int, rotate: bool) -> Found:
    """The first stage of our model, and its latents after the rotation."""
    if "posterior" not in screen.uns:  # shared by the two methods
        SpikeSlabVAE.setup_anndata(screen, KEY, control_of(screen), batch_key=batch_of(screen))
        model = SpikeSlabVAE(screen, n_latent=n, prior="none")
        model.train(EPOCHS, **TRAINER)
        with torch.inference_mode():
            found = model.module.inference(torch.from_numpy(screen.X))["qz"]
        screen.uns["posterior"] = found.loc.numpy(), found.variance.numpy()
    latents, variances = screen.uns["posterior"]
    if not rotate:
        return latents, None
    rotation = sparse_rotation(latents, screen.obs[KEY], control_of(screen), variances=variances)
    return rotation.transform(latents), rotation.targets


def scvi_rotated(screen: AnnData, n: int) -> Found:
    """Rotate the latents of SCVI."""
    SCVI.setup_anndata(screen, batch_key=batch_of(screen))
    model = SCVI(screen, n_latent=n, n_layers=2, gene_likelihood="nb")
    plan = {"lr": LR, "n_epochs_kl_warmup": EPOCHS}
    model.train(EPOCHS, batch_size=BATCH_SIZE, train_size=1.0, plan_kwargs=plan, **TRAINER)
    targets = rotate_scvi(model, KEY, control_of(screen)).targets
    return model.get_latent_representation(), targets


def pca_rotated(screen: AnnData, n: int) -> Found:
    """Rotate principal components of log-normalised counts."""
    sizes = screen.X.sum(axis=1, keepdims=True)
    scaled = np.log1p(screen.X / sizes * np.median(sizes))
    latents = PCA(n, random_state=0).fit_transform(scaled)
    rotation = sparse_rotation(latents, screen.obs[KEY], control_of(screen))
    return rotation.transform(latents), rotation.targets


METHODS: dict[str, Callable[[AnnData, int], Found]] = {
    OURS: ours,
    "VAE + rotation": partial(autoencoder, rotate=True),
    "SCVI + rotation": scvi_rotated,
    PCA_ROTATION: pca_rotated,
    "VAE": partial(autoencoder, rotate=False),
    "iVAE": partial(ours, prior="dense", max_epochs=ALL_EPOCHS),
    "sVAE": partial(ours, prior="l1", max_epochs=ALL_EPOCHS),
    "sVAE+, permuted labels": permuted,
    "published sVAE+, 600 epochs": partial(ours, max_epochs=600, rotate=False, batch_size=256),
}
SIMULATOR, REAL = "published simulator", "realistic simulator"
DESIGNS = {SIMULATOR: PAPER, REAL: REALISTIC,
           **{name: replace(PAPER, **changes) for name, changes in HARD.items()}}  # fmt: skip
# Methods and number of seeds of each kind of case.
PLAN = ((SIMULATOR, METHODS, 5), (REAL, (OURS, PCA_ROTATION), 2), (HARD, (OURS, PCA_ROTATION), 1))


def score(
    task: Task, screen: AnnData, seeded: tuple[Callable[[AnnData, int], Found], int]
) -> dict:
    """Compare latents and targets with the truth; seconds are those of the processor."""
    (method, scvi.settings.seed), start = seeded, time.process_time()
    latents, targets = method(screen, 10 if task.name.startswith("10 latents") else N_LATENT)
    row = {"seconds": time.process_time() - start}
    truth = screen.uns["targets"].drop(index=CONTROL, errors="ignore")
    matching = match_latents(screen.obsm["latent"], latents)
    row |= {"mcc": float(np.abs(matching.correlation).sum() / matching.n_first)}
    if targets is None:
        return row
    targets = targets.loc[truth.index]
    scores = target_scores(truth, targets, matching)
    row |= {"precision": scores.precision, "recall": scores.recall, "f1": scores.f1}
    return row | {"mask_rate": float(targets.to_numpy().mean())}


def tables(runs: pd.DataFrame) -> Iterator[str | pd.DataFrame]:
    """Mean ± sd over seeds by case, and differences to our model, paired by seed."""
    shown = {"mcc": "MCC", "f1": "F1", "mask_rate": "mask rate", "seconds": "s"}
    for case in (SIMULATOR, REAL):
        of_case = runs[runs["task"] == case]
        if len(of_case):
            yield f"## {case.capitalize()}"
            yield benchmark.method_table(of_case, shown, form={"seconds": ".0f"})
            # What was run for one seed is paired with nothing.
            several = of_case[of_case.groupby("method")["seed"].transform("nunique") > 1]
            for metric in ("mcc", "f1") if len(several) else ():
                yield benchmark.difference_table(several, metric, OURS).drop(columns="least")
    hard = runs[runs["task"].isin(HARD)].assign(family="hard")
    for metric in ("mcc", "f1") if len(hard) else ():
        table = benchmark.task_table(hard, metric)
        yield table.reindex([case for case in HARD if case in table.index])


def main() -> None:
    """Run what has no row, and write the tables."""
    args = new_parser(__doc__, seeds=range(5)).parse_args()
    for cases, methods, n_seeds in PLAN:
        tasks = [
            Task(name, lambda seed, name=name: simulate_perturbations(DESIGNS[name], seed=seed),
                 is_seeded=True)
            for name in DESIGNS if name in cases
        ]  # fmt: skip
        chosen = [Method(name, lambda seed, name=name: (METHODS[name], seed)) for name in methods]
        few = Namespace(**{**vars(args), "seeds": args.seeds[:n_seeds]})
        measured("svae_recovery", few, tasks, chosen, score)
    everything = [Method(name, lambda seed: None) for name in METHODS]
    rows = measured(
        "svae_recovery", Namespace(**{**vars(args), "report_only": True}), [], everything
    )
    report("svae", args, *tables(rows))


if __name__ == "__main__":
    main()
