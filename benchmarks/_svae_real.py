"""Sparse shifts of real screens, and the speed of training.

Likelihoods are of held-out cells, a fifth of each perturbation. Seconds are processor time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scvi
from _speed_memory import MIB, measure
from _svae_recovery import ALL_EPOCHS, BATCH_SIZE, LR, OURS, TRAINER, markdown, mean_sd
from _table import Table
from anndata import AnnData, read_h5ad
from scvi.model import SCVI

from scvi_sctab.external.svae import (
    PAPER_DESIGN,
    REALISTIC_DESIGN,
    SpikeSlabVAE,
    simulate_perturbations,
)
from scvi_sctab.metrics import match_latents, target_scores

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
    from pathlib import Path

KEY, CONTROL = "perturbation", "control"
PRIORS = {OURS: "spike_slab", "iVAE": "dense", "VAE": "none"}
METHODS = (OURS, "VAE", "iVAE", "SCVI")
# The receptor of interferon gamma, its kinase and its transcription factor.
PATHWAY = ("IFNGR1", "IFNGR2", "JAK2", "STAT1")
N_SAMPLES, MAX_SCORED = 100, 2000
KEYS = ["screen", "method", "seed"]


@dataclass(frozen=True)
class Screen:
    """A real screen: file, columns and number of latents."""

    file: str
    batch_key: str
    n_latent: int
    size_factor_key: str | None = None
    per_batch: bool = False

    def read(self, folder: Path) -> AnnData:
        """Read cells; a drug that was given to several donors is a perturbation per donor."""
        cells = read_h5ad(folder / self.file)
        if self.per_batch:
            joint = cells.obs[KEY].astype(str) + " " + cells.obs[self.batch_key].astype(str)
            cells.obs[KEY] = np.where(cells.obs[KEY] == CONTROL, CONTROL, joint)
        if self.size_factor_key is not None:
            cells.obs[self.size_factor_key] = cells.obs[self.size_factor_key].astype(float)
        return cells[:, np.asarray(cells.X.sum(axis=0)).ravel() > 0].copy()


SCREENS = {
    "Papalexi 2021": Screen("perturb_papalexi21_thp1_20k_303genes.h5ad", "batch", 10),
    "Zhao 2021": Screen(
        "perturb_zhao21_gbm_panobinostat_5k_300genes.h5ad", "donor_id", 5, per_batch=True
    ),
}


def split(cells: AnnData) -> tuple[AnnData, AnnData]:
    """Hold out a fifth of the cells of each perturbation; the same cells for every seed."""
    rng = np.random.default_rng(0)
    order = rng.permutation(cells.n_obs)
    number = cells.obs[KEY].iloc[order].groupby(cells.obs[KEY], observed=True).cumcount()
    held_out = np.zeros(cells.n_obs, dtype=bool)
    held_out[order] = number.to_numpy() % 5 == 0
    scored = rng.permutation(np.flatnonzero(held_out))[:MAX_SCORED]
    return cells[~held_out].copy(), cells[np.sort(scored)].copy()


def fit_ours(screen: Screen, cells: AnnData, prior: str) -> SpikeSlabVAE:
    """Fit a model of ours, or another prior with as many steps."""
    SpikeSlabVAE.setup_anndata(
        cells, KEY, CONTROL, batch_key=screen.batch_key, size_factor_key=screen.size_factor_key
    )
    model = SpikeSlabVAE(cells, n_latent=screen.n_latent, prior=prior)
    model.train(None if prior == "spike_slab" else epochs(cells), **TRAINER)
    return model


def epochs(cells: AnnData) -> int:
    """Epochs of both stages of our training: 3,200 steps and 2,400, at least 80 and 60 epochs."""
    n_batches = -(-cells.n_obs // BATCH_SIZE)
    return max(ALL_EPOCHS, -(-5600 // n_batches))


def fit_scvi(screen: Screen, cells: AnnData, test: AnnData) -> dict[str, Any]:
    """Fit SCVI with the batch and without perturbations."""
    setup = {"batch_key": screen.batch_key, "size_factor_key": screen.size_factor_key}
    SCVI.setup_anndata(cells, **setup)
    model = SCVI(cells, n_latent=screen.n_latent, n_layers=2, gene_likelihood="nb")
    n = epochs(cells)
    plan = {"lr": LR, "n_epochs_kl_warmup": n}
    model.train(n, batch_size=BATCH_SIZE, train_size=1.0, plan_kwargs=plan, **TRAINER)
    return {"ll": float(model.get_marginal_ll(test.copy(), n_mc_samples=N_SAMPLES))}


def run_screen(name: str, method: str, seed: int, args: Namespace) -> dict[str, Any]:
    """Fit a method and score held-out cells; of our model, keep latents and targets, too."""
    screen = SCREENS[name]
    cells = screen.read(args.data)
    train, test = split(cells)
    scvi.settings.seed = seed
    start = time.process_time()
    if method == "SCVI":
        row = fit_scvi(screen, train, test)
        return row | {"seconds": time.process_time() - start}
    model = fit_ours(screen, train, PRIORS[method])
    row = {"seconds": time.process_time() - start}
    row["ll"] = model.get_marginal_ll(test, n_samples=N_SAMPLES)
    if method == OURS:
        targets = model.get_intervention_targets()
        row |= {
            "mask_rate": float((targets > 0.5).to_numpy().mean()),
            "n_active": int((targets > 0.5).any().sum()),
            "share_of_starts": model.rotation.share_of_starts,
            "threshold": model.rotation.threshold,
            "sparsity": float(model.module.sparsity),
        }
        _keep(args, name, seed, model, cells)
    return row


def _keep(args: Namespace, name: str, seed: int, model: SpikeSlabVAE, cells: AnnData) -> None:
    """Write effects and targets, and latents for the comparison of seeds."""
    effects = model.get_intervention_effects().stack()
    targets = model.get_intervention_targets().stack()
    table = pd.DataFrame({"effect": effects, "inclusion": targets}).reset_index()
    table.columns = ["perturbation", "latent", "effect", "inclusion"]
    rows = table.assign(screen=name, seed=seed).to_dict("records")
    _targets(args).add(rows)
    cache = args.out / "cache"
    cache.mkdir(exist_ok=True)
    np.save(cache / f"svae_{name}_{seed}.npy", model.get_latent_representation(cells))


def _targets(args: Namespace) -> Table:
    keys = ["screen", "seed", "perturbation", "latent"]
    return Table(args.out / "svae_real_targets.csv", keys, merge=True)


def masks_of(args: Namespace, name: str) -> dict[int, pd.DataFrame]:
    """Targets of each seed, ``(n_perturbations, n_latent)``."""
    rows = _targets(args).rows
    rows = rows[rows["screen"] == name] if len(rows) else rows
    return {
        int(seed): part.pivot(index="perturbation", columns="latent", values="inclusion") > 0.5
        for seed, part in rows.groupby("seed")
    }


def compare_seeds(args: Namespace, name: str) -> None:
    """Agreement of targets between seeds, after matching latents over all cells."""
    masks, table = masks_of(args, name), []
    latents = {
        seed: np.load(args.out / "cache" / f"svae_{name}_{seed}.npy")
        for seed in masks
        if (args.out / "cache" / f"svae_{name}_{seed}.npy").exists()
    }
    for one, two in combinations(sorted(latents), 2):
        matching = match_latents(latents[one], latents[two])
        scores = target_scores(masks[one], masks[two].loc[masks[one].index], matching)
        correlation = float(np.abs(matching.correlation).mean())
        table.append({"screen": name, "one": one, "two": two, "f1": scores.f1, "mcc": correlation})
    _stability(args).add(table)


def _stability(args: Namespace) -> Table:
    return Table(args.out / "svae_real_stability.csv", ["screen", "one", "two"], merge=True)


def run_real(args: Namespace) -> None:
    """Run the methods that have no row yet."""
    table = Table(args.out / "svae_real.csv", KEYS, merge=True)
    for name in [n for n in SCREENS if n in (args.cases or SCREENS)]:
        for seed in args.seeds or range(3):
            for method in [m for m in METHODS if m in (args.only or METHODS)]:
                known = (table.rows[KEYS] == [name, method, seed]).all(axis=1).any()
                if known and not args.again:
                    continue
                row = run_screen(name, method, seed, args)
                table.add([{"screen": name, "method": method, "seed": seed, **row}])
                print(f"{name} | {method} | seed {seed}: {row}", flush=True)
        compare_seeds(args, name)


SIZES = {
    "20,000 cells, 100 genes": replace(PAPER_DESIGN, n_perturbations=80),
    "10,000 cells, 1,000 genes": replace(REALISTIC_DESIGN, n_perturbations=40),
}


def run_speed(args: Namespace) -> None:
    """Time epochs of our stages and of SCVI, in turns; and memory by the number of cells."""
    table = Table(args.out / "svae_speed.csv", ["case", "method", "turn"], merge=True)
    n_epochs, n_turns = 2, 5
    for case, design in SIZES.items():
        runs = _trainers(simulate_perturbations(design))
        for turn in range(n_turns + 1):
            for method, train in runs.items():
                start, wall = time.process_time(), time.perf_counter()
                train(n_epochs)
                row = {"case": case, "method": method, "turn": turn}
                row["seconds"] = (time.process_time() - start) / n_epochs
                row["wall"] = (time.perf_counter() - wall) / n_epochs
                # The first turn compiles kernels and builds what later turns find.
                if turn:
                    table.add([row])
                    print(row, flush=True)
    for n_cells in (125, 500):
        found = measure("_svae_real", "train_once", ["_svae_real"], n_cells=n_cells)
        used = found["above"] - found["data"]
        row = {"case": "memory above the cells, MiB", "method": f"{n_cells * 80:,} cells"}
        table.add([row | {"turn": 1, "seconds": used}])
        print(row, f"{used:.0f}", flush=True)


def _trainers(cells: AnnData) -> dict[str, Callable[[int], None]]:
    """Trained models, each with what trains it for further epochs."""
    options = {"batch_size": BATCH_SIZE, "train_size": 1.0, **TRAINER}
    models: dict[str, Any] = {}
    for method, prior in (("sVAE+, fine-tuning", "spike_slab"), ("sVAE+, autoencoder", "none")):
        own = cells.copy()
        SpikeSlabVAE.setup_anndata(own, KEY)
        models[method] = SpikeSlabVAE(own, n_latent=15, prior=prior)
        models[method].train(1, rotate=False, **options)
    own = cells.copy()
    SCVI.setup_anndata(own)
    models["SCVI"] = SCVI(own, n_latent=15, n_layers=2, gene_likelihood="nb")
    return {
        method: lambda n, model=model: model.train(n, **options)
        for method, model in models.items()
    }


def train_once(n_cells: int) -> dict[str, float]:
    """Train for an epoch in this process, and return the size of the cells."""
    design = replace(PAPER_DESIGN, n_perturbations=80, n_genes=500, n_cells=2)
    # Cells are repeated, as the simulator needs more memory than training.
    cells = simulate_perturbations(design)
    repeated = np.tile(np.arange(cells.n_obs), n_cells // 2)
    counts = cells.X[repeated]
    cells = AnnData(counts, cells.obs.iloc[repeated].reset_index(drop=True), cells.var)
    cells.obs_names = [f"cell_{i}" for i in range(cells.n_obs)]
    SpikeSlabVAE.setup_anndata(cells, KEY)
    model = SpikeSlabVAE(cells, n_latent=15)
    model.train(1, finetune_epochs=1, n_starts=2, batch_size=BATCH_SIZE, **TRAINER)
    return {"data": counts.nbytes / MIB}


def run(part: str, args: Namespace) -> None:
    """Run a part."""
    {"real": run_real, "speed": run_speed}[part](args)


def report(args: Namespace) -> str:
    """Tables of both parts."""
    parts = []
    runs = Table(args.out / "svae_real.csv", KEYS, merge=True).rows
    for name, of_screen in runs.groupby("screen", sort=False) if len(runs) else ():
        parts += [_report_screen(args, name, of_screen), ""]
    runs = Table(args.out / "svae_speed.csv", ["case", "method", "turn"], merge=True).rows
    if len(runs):
        parts.append("## Speed\n\nMedians of turns; memory is that of a process of its own.\n")
        rows = {}
        for (case, method), part in runs.groupby(["case", "method"], sort=False):
            peer = runs[(runs["case"] == case) & (runs["method"] == "SCVI")]
            seconds = part["seconds"].median()
            ratio = "-" if peer.empty else f"{seconds / peer['seconds'].median():.2f}"
            rows[f"{case}: {method}"] = {"s per epoch, or MiB": f"{seconds:.3g}", "/ SCVI": ratio}
        parts += [markdown(pd.DataFrame(rows).T, "case"), ""]
    return "\n".join(parts)


def _report_screen(args: Namespace, name: str, runs: pd.DataFrame) -> str:
    """Likelihoods, agreement of seeds, and perturbations that share a latent."""
    rows, wide = {}, runs.pivot(index="seed", columns="method", values="ll")
    for method in [m for m in METHODS if m in wide]:
        part = runs[runs["method"] == method]
        gain = (wide[OURS] - wide[method]).dropna() if OURS in wide else pd.Series(dtype=float)
        rows[method] = {
            "log-likelihood": mean_sd(part["ll"], "{:.2f}"),
            "sVAE+ minus it": "-" if method == OURS else mean_sd(gain, "{:+.2f}"),
            "mask rate": mean_sd(part["mask_rate"]) if "mask_rate" in part else "-",
            "s": f"{part['seconds'].mean():.0f}",
        }
    lines = [f"## {name}\n", markdown(pd.DataFrame(rows).T, "method"), ""]
    pairs = _stability(args).rows
    pairs = pairs[pairs["screen"] == name] if len(pairs) else pairs
    if len(pairs):
        lines.append(
            f"Targets of {len(pairs)} pairs of seeds agree with F1 {mean_sd(pairs['f1'])}, their "
            f"latents with a mean correlation of {mean_sd(pairs['mcc'])}.\n"
        )
    masks = masks_of(args, name)
    if masks:
        lines += [_shared(masks), ""]
    return "\n".join(lines)


def _shared(masks: dict[int, pd.DataFrame]) -> str:
    """Share of seeds in which two perturbations have a target in common."""
    common = []
    for mask in masks.values():
        numbers = mask.to_numpy().astype(int)
        common.append(pd.DataFrame(numbers @ numbers.T > 0, mask.index, mask.index))
    share = sum(frame.astype(float) for frame in common) / len(common)
    upper = share.to_numpy()[np.triu_indices(len(share), k=1)]
    known = [name for name in PATHWAY if name in share.index]
    lines = [
        f"Of all pairs of perturbations, {upper.mean():.0%} have a target in common, mean over "
        f"{len(masks)} seeds."
    ]
    for name in known or share.index:
        row = share.loc[name].drop(name)
        partners = row[row > 0].sort_values(ascending=False, kind="stable")
        shown = ", ".join(f"{other} ({value:.0%})" for other, value in partners.items())
        lines.append(f"- {name} shares a target with {shown or 'none'}.")
    return "\n".join(lines)
