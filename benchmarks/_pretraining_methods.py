"""Methods of the label tasks: a representation and a classifier, or a network trained on labels.

To add a method, add a line to `build_arms`; to add a representation, one to `_pretraining_latents`
or `_pretraining_ours`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _peers import Prediction
from _pretraining_latents import Representation, build_latents, log_expression, read_or_fit
from _pretraining_network import dense, fit_classifier, steps_for
from _pretraining_ours import build_ours, build_predictors
from _pretraining_tasks import ALL_LABELS, ONE_DONOR, SIX_DONORS, TASKS, ZERO_SHOT, PretrainingTask
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

LABELLED = (ONE_DONOR, SIX_DONORS, ALL_LABELS)
NEIGHBOURS = 5
Run = Callable[[PretrainingTask, int], Prediction]


class Arm(NamedTuple):
    """One selectable method of the label tasks."""

    run: Run
    tasks: tuple[str, ...] = LABELLED
    seeded: bool = True  # beyond the draw of the labelled cells
    missing: str = ""  # why it cannot run here

    def depends_on_seed(self, task: PretrainingTask) -> bool:
        """Whether runs of several seeds differ."""
        return self.seeded or task.name in (ONE_DONOR, SIX_DONORS)


def read_out(
    task: PretrainingTask, seed: int, representation: Representation, cache: Path
) -> Prediction:
    """5 nearest neighbours in the zero-shot task, else class-balanced logistic regression.

    Neither is told anything but the latents of the labelled cells. The regression is
    scikit-learn's with the regularisation it comes with, on centred latents divided by their
    overall standard deviation, so that neither origin nor unit of a representation matters.
    """
    latents = read_or_fit(task.split(), seed, representation, cache)
    start = time.process_time()
    known, labels = task.labelled(seed), task.train_labels
    if task.name == ZERO_SHOT:
        model, name = KNeighborsClassifier(NEIGHBOURS), "5-NN"
    else:
        model = LogisticRegression(class_weight="balanced", max_iter=2000)
        name = "logistic regression"
    centre = latents.reference.mean(axis=0)
    scale = (latents.reference - centre).std() or 1.0
    model.fit((latents.reference[known] - centre) / scale, labels[known])
    predicted = model.predict((latents.query - centre) / scale).astype(str)
    seconds = latents.seconds + time.process_time() - start
    return Prediction(f"{representation.name} + {name}", predicted, seconds)


def regression_on_genes(task: PretrainingTask, seed: int) -> Prediction:
    """Class-balanced logistic regression on log-normalised genes."""
    start = time.process_time()
    reference, query = log_expression(task)
    known = task.labelled(seed)
    model = LogisticRegression(class_weight="balanced", max_iter=2000)
    labels = model.fit(reference[known], task.train_labels[known]).predict(query)
    seconds = time.process_time() - start
    return Prediction("logistic regression on genes", labels.astype(str), seconds)


def from_scratch(task: PretrainingTask, seed: int) -> Prediction:
    """The published network, trained on the labelled cells alone."""
    import torch

    start = time.process_time()
    reference, query = log_expression(task)
    known = task.labelled(seed)
    types, codes = np.unique(task.train_labels[known], return_inverse=True)
    network = fit_classifier(reference[known], codes, seed, steps_for(int(known.sum()))).eval()
    with torch.no_grad():
        labels = types[network(dense(query)).argmax(1).numpy()]
    return Prediction("network from scratch", labels.astype(str), time.process_time() - start)


def sctab(task: PretrainingTask, seed: int) -> Prediction:
    """SCTAB by default on the labelled and the unlabelled cells of the reference."""
    import scvi

    from scvi_sctab import SCTAB

    scvi.settings.seed = seed
    reference, query = task.partly_labelled(seed), task.unlabelled_query()
    start = time.process_time()
    SCTAB.setup_anndata(reference, labels_key=task.label_key)
    model = SCTAB(reference)
    model.train(enable_progress_bar=False)
    labels = np.asarray(model.predict(query)).astype(str)
    return Prediction("SCTAB", labels, time.process_time() - start)


def build_arms(cache: Path, joint_embedding_python: str) -> dict[str, Arm]:
    """Every arm by its key on the command line, in the order of the table.

    Parameters
    ----------
    cache
        Folder of finished representations.
    joint_embedding_python
        Interpreter of an environment with scvi-tools >= 1.5.
    """
    arms = {
        "genes": Arm(regression_on_genes, seeded=False),
        "scratch": Arm(from_scratch),
        "sctab": Arm(sctab),
    }
    for representation in [*build_latents(joint_embedding_python), *build_ours(cache)]:
        run = partial(read_out, representation=representation, cache=cache)
        arms[representation.key] = Arm(
            run, tuple(TASKS), representation.seeded, representation.missing
        )
    for key, (predict, missing) in build_predictors(cache).items():
        arms[key] = Arm(predict, missing=missing)
    return arms
