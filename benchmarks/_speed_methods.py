"""Jobs of the speed benchmark and the methods that do them, each a `Run` of the same cells."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from _timing import Row, Run, alternate, measure, rows
from anndata import AnnData, read_h5ad
from scipy import sparse
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from scvi_sctab import SCTAB, baselines, datasets
from scvi_sctab._config import PRESETS
from scvi_sctab.data import normalized_expression
from scvi_sctab.model._published import make_registry
from scvi_sctab.nn import normalize_counts
from scvi_sctab.sparse import to_tensor
from scvi_sctab.train import GeneAdamW

if TYPE_CHECKING:
    from argparse import Namespace

CELLS = "hao21_pbmc_1000_unlabelled.h5ad"
N_GENES, N_LABELS = 19_331, 164
"""Genes and cell types of the published scTab."""
GENES = [f"GENE{i:05d}" for i in range(N_GENES)]
TYPES = [f"type {i:03d}" for i in range(N_LABELS)]
BATCH, STEPS = 2048, 30
OURS, PEER, FUSED = "SCTAB", "pytorch-tabnet 4.0", "pytorch-tabnet 4.0, fused AdamW"
PAPER, SMALL = "SCTAB, published network", "SCTAB, small preset"
Jobs = dict[str, Callable[[], None]]


def load_cells(folder: str | Path, n_cells: int) -> AnnData:
    """1,000 PBMCs over and over, their genes spread over the columns of scTab, random labels."""
    counts = sparse.csr_matrix(read_h5ad(Path(folder) / CELLS).X, dtype=np.float32)
    columns = np.linspace(0, N_GENES - 1, counts.shape[1]).round().astype(np.int32)
    parts = (counts.data, columns[counts.indices], counts.indptr)
    counts = sparse.csr_matrix(parts, shape=(counts.shape[0], N_GENES))
    labels = np.random.default_rng(0).permutation(np.arange(n_cells) % N_LABELS)
    obs = pd.DataFrame({"cell_type": pd.Categorical.from_codes(labels, TYPES)})
    obs.index = [f"cell{i}" for i in range(n_cells)]
    chosen = counts[np.arange(n_cells) % counts.shape[0]]
    return AnnData(chosen, obs=obs, var=pd.DataFrame(index=GENES))


def codes_of(cells: AnnData) -> Tensor:
    """Codes of the labels."""
    return torch.from_numpy(cells.obs["cell_type"].cat.codes.to_numpy(dtype=np.int64))


def untrained(preset: str) -> SCTAB:
    """A model with random weights over the genes and types of scTab."""
    torch.manual_seed(0)
    model = SCTAB(registry=make_registry(SCTAB, GENES, TYPES), preset=preset)
    model.is_trained_ = True
    return model


def jobs(network: nn.Module, infer: Callable[[], object], loss: Callable[[], Tensor],
         optimizer: Callable[..., torch.optim.Optimizer]) -> Jobs:  # fmt: skip
    """Inference and training step of a network."""
    updates = optimizer(network.parameters(), lr=5e-3, weight_decay=0.05)

    def inference() -> None:
        network.eval()
        with torch.no_grad():
            infer()

    def step() -> None:
        network.train()
        updates.zero_grad()
        loss().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        updates.step()

    return {"inference": inference, "training step": step}


def our_jobs(cells: AnnData, network: nn.Module | None = None, steps: int = 0) -> Jobs:
    """Of our network, the published one if not given, after some steps; from raw counts."""
    network = untrained("paper").module if network is None else network
    batch = {"X": to_tensor(cells.X), "labels": codes_of(cells)[:, None]}
    infer = lambda: network({"X": batch["X"]}, compute_loss=False)  # noqa: E731
    loss = lambda: network(batch, loss_kwargs={"reduction": "mean"})[-1].loss  # noqa: E731
    found = jobs(network, infer, loss, GeneAdamW)
    for _ in range(steps):
        found["training step"]()
    return found


def peer_jobs(cells: AnnData, fused: bool = False, weights: nn.Module | None = None) -> Jobs:
    """Of pytorch-tabnet, with our weights if given; from dense log-normalised cells."""
    from pytorch_tabnet.tab_network import TabNet

    names = ("n_d", "n_a", "n_steps", "gamma", "n_independent", "n_shared", "epsilon",
             "virtual_batch_size", "momentum", "mask_type")  # fmt: skip
    settings = {name: getattr(PRESETS["paper"].network, name) for name in names}
    network, labels = TabNet(N_GENES, N_LABELS, **settings), codes_of(cells)
    if weights is not None:
        state = {f"tabnet.{name}": value for name, value in weights.state_dict().items()}
        missing, unexpected = network.load_state_dict(state, strict=False)
        if unexpected or any("initial_bn" not in name for name in missing):  # one of them is idle
            raise RuntimeError(f"the networks differ: {missing=}, {unexpected=}.")
    x = normalize_counts(to_tensor(cells.X).to_dense())

    def loss() -> Tensor:
        logits, mask_loss = network(x)
        return cross_entropy(logits, labels) - 1e-5 * mask_loss

    return jobs(network, lambda: network(x), loss, partial(torch.optim.AdamW, fused=fused))


def run_twice(method: str, job: str, data: str, n_cells: int) -> None:
    """A batch, twice; in a process of its own."""
    of_method = (our_jobs if method == OURS else peer_jobs)(load_cells(data, n_cells))
    of_method[job](), of_method[job]()


def network(args: Namespace) -> list[Row]:
    """One batch through the published network: ours, and that of pytorch-tabnet."""
    n_cells, steps = (256, 2) if args.quick else (BATCH, STEPS)
    cells, ours = load_cells(args.data, n_cells), untrained("paper").module
    of_method = {OURS: our_jobs(cells, ours, steps)}
    if installed({PEER: ("pytorch_tabnet",)}):
        of_method |= {name: peer_jobs(cells, name == FUSED, ours) for name in (PEER, FUSED)}
    found: list[Row] = []
    for job in ("inference", "training step"):
        methods = [m for m in of_method if job != "inference" or m != FUSED]  # has no optimiser
        seconds = alternate([Run(m, of_method[m][job]) for m in methods], args.turns)
        found += rows(f"after {steps} steps, {job}", "time per batch", "s", seconds)
        given = {"job": job, "data": args.data, "n_cells": n_cells}
        peaks = {m: [measure(run_twice, [], method=m, **given)["above"]]
                 for m in methods if m != FUSED}  # fmt: skip
        found += rows(f"batch of {n_cells:,}, {job}", "peak memory", "MiB", peaks)
    return found


def installed(needs: dict[str, tuple[str, ...]]) -> list[str]:
    """Methods whose packages are there; the others are named loudly."""
    absent = {m: [name for name in names if not find_spec(name)] for m, names in needs.items()}
    for method, names in absent.items():
        if names:
            print(f"!!! SKIPPED: {method}: {', '.join(names)} not installed", flush=True)
    return [method for method, names in absent.items() if not names]


def random_regression() -> Any:
    """Logistic regression of all types with random coefficients."""
    from sklearn.linear_model import LogisticRegression

    rng, model = np.random.default_rng(0), LogisticRegression()
    model.classes_, model.n_features_in_ = np.array(TYPES), N_GENES
    model.coef_ = rng.normal(0, 0.1, (N_LABELS, N_GENES))
    model.intercept_ = rng.normal(0, 0.1, N_LABELS)
    return model


def normalise(cells: AnnData) -> AnnData:
    """What CellTypist asks its users for."""
    import scanpy as sc

    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    return cells


def sctab(cells: AnnData, steps: int, preset: str) -> Run:
    """``SCTAB.predict`` from raw counts, after some steps, since masks of random weights are narrow."""
    model = untrained(preset)
    our_jobs(cells[:BATCH].copy(), model.module, steps)
    return Run({"paper": PAPER, "small": SMALL}[preset], lambda: model.predict(cells))


def celltypist(cells: AnnData, steps: int, from_counts: bool) -> Run:
    """``celltypist.annotate`` of normalised cells, or from counts with the normalisation."""
    import celltypist
    from celltypist.models import Model
    from sklearn.preprocessing import StandardScaler

    celltypist.logger.set_level(logging.ERROR)
    classifier, normalised = random_regression(), normalise(cells.copy())
    classifier.multi_class, classifier.features = "ovr", np.array(GENES)
    scaler = StandardScaler().fit(normalised.X[:1000].toarray())
    model = Model(classifier, scaler, dict.fromkeys(("date", "details", "source", "version"), ""))
    if from_counts:
        run = lambda own: celltypist.annotate(normalise(own), model=model)  # noqa: E731
        return Run("CellTypist, from counts", run, cells.copy)
    return Run("CellTypist", lambda: celltypist.annotate(normalised, model=model))


def regression(cells: AnnData, steps: int) -> Run:
    """``predict_proba`` of scikit-learn on log-normalised cells."""
    x, model = normalized_expression(cells), random_regression()
    return Run("logistic regression", lambda: model.predict_proba(x))


def scanvi(cells: AnnData, steps: int) -> Run:
    """SCANVI from raw counts, all genes; 2 layers, 30 latent dimensions."""
    from scvi.model import SCANVI

    SCANVI.setup_anndata(cells, labels_key="cell_type", unlabeled_category="Unknown")
    model = SCANVI(cells, n_layers=2, n_latent=30, gene_likelihood="nb")
    model.is_trained_ = True
    model.module.eval()
    return Run("scANVI", lambda: model.predict(cells))


PREDICTORS: dict[str, tuple[Callable[..., Run], tuple[str, ...]]] = {
    PAPER: (partial(sctab, preset="paper"), ()),
    SMALL: (partial(sctab, preset="small"), ()),
    "CellTypist": (partial(celltypist, from_counts=False), ("celltypist", "scanpy")),
    "CellTypist, from counts": (partial(celltypist, from_counts=True), ("celltypist", "scanpy")),
    "logistic regression": (regression, ()),
    "scANVI": (scanvi, ()),
}


def predict_once(method: str, data: str, n_cells: int) -> None:
    """Predict with random weights; in a process of its own."""
    run = PREDICTORS[method][0](load_cells(data, n_cells), 0)
    run.call(*(() if run.prepare is None else (run.prepare(),)))


def predict(args: Namespace) -> list[Row]:
    """From cells to labels, by our ``predict`` and by the functions of other methods."""
    n_cells, steps = (500, 2) if args.quick else (10_000, STEPS)
    case = f"{n_cells:,} cells, {N_GENES:,} genes, {N_LABELS} types"
    methods = installed({method: needs for method, (_, needs) in PREDICTORS.items()})
    runs = [PREDICTORS[m][0](load_cells(args.data, n_cells), steps) for m in methods]
    seconds = alternate(runs, args.turns)
    speed = {m: [n_cells / s for s in values] for m, values in seconds.items()}
    given = {"data": args.data, "n_cells": n_cells}
    peaks = {m: [measure(predict_once, [*PREDICTORS[m][1]], method=m, **given)["above"]]
             for m in methods}  # fmt: skip
    found = rows(case, "time", "s", seconds) + rows(case, "cells per second", "cells/s", speed)
    return found + rows(case, "peak memory", "MiB", peaks)


def two_pass(cells: AnnData) -> Run:
    """CellTypist's training with feature selection; cells are normalised before."""
    import celltypist

    celltypist.logger.set_level(logging.ERROR)
    normalised = normalise(cells.copy())
    options = {"labels": "cell_type", "feature_selection": True, "n_jobs": 2}
    return Run("CellTypist, two-pass", lambda: celltypist.train(normalised, **options))


def train(args: Namespace) -> list[Row]:
    """Training on the bundled eight donors by the documented recipes, normalisation included."""
    cells = datasets.pbmc_kang18()

    def fit(name: str, make: Callable[[int], baselines.Baseline]) -> Run:
        return Run(name, lambda own: make(0).fit(own, "cell_type", "donor_id"), cells.copy)

    def trainers(epochs: int | None) -> list[Run]:
        few = {} if epochs is None else {"max_epochs": epochs}
        small = partial(baselines.SCTABPredictor, preset="small", train_kwargs=few)
        two_stages = partial(baselines.ScANVI, **few, label_epochs=epochs or 20)
        needs = {"scANVI": ("scanpy",), "CellTypist, two-pass": ("celltypist", "scanpy")}
        there = installed(needs)
        return [
            fit(SMALL, small),
            *(fit(name, two_stages) for name in there if name == "scANVI"),
            *(two_pass(cells) for name in there if name != "scANVI"),
            fit("logistic regression", baselines.LogisticRegression),
        ]

    alternate(trainers(2), 1, warm_up=False)  # compiles kernels, fills caches
    seconds = alternate(trainers(2 if args.quick else None), 1, warm_up=False)
    sizes = *cells.shape, cells.obs["cell_type"].nunique()
    case = "{:,} cells, {:,} genes, {} types".format(*sizes)
    return rows(case, "time of training", "s", seconds)
