"""The life cycle of a model on the CPU and on an accelerator: the same results, and the seconds."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scvi
import torch

from scvi_sctab import SCTAB, SCTABEnsemble, datasets
from scvi_sctab.pretrain import BYOL, MaskedAutoencoder
from scvi_sctab.sparse import to_tensor

KEYS = {"labels_key": "cell_type", "donor_key": "donor_id", "batch_key": "donor_id"}


class Place(NamedTuple):
    """A device with the kind of cells that it gets, and the folder of the model that both load."""

    device: str
    dense: bool
    saved: Path
    n_genes: int

    def cells(self, query: bool = False) -> Any:
        """Reference or query, of the genes with most counts in the reference."""
        reference, other = datasets.pbmc_kang18(), datasets.pbmc3k()
        genes = reference.var_names.intersection(other.var_names)
        most = reference[:, genes].to_df().sum().nlargest(self.n_genes).index
        genes = genes[genes.isin(most)]
        cells = (other if query else reference)[:, genes].copy()
        cells.obs["donor_id"] = "pbmc3k" if query else cells.obs["donor_id"]
        cells.X = cells.X.toarray() if self.dense else cells.X.tocsr()
        return cells

    def build(self, cls: Any = SCTAB, keys: dict[str, str] = KEYS, **arguments: Any) -> Any:
        """An untrained model, always with the same weights."""
        scvi.settings.seed = 0
        cells = self.cells()
        cls.setup_anndata(cells, **keys)
        return cls(cells, **arguments)

    def train(self, model: Any, epochs: int | None, **arguments: Any) -> Any:
        """Train a model on the device."""
        model.train(epochs, accelerator=self.device, enable_progress_bar=False, **arguments)
        return model


def step(place: Place, preset: str) -> list[np.ndarray]:
    """Loss and relative gradient of a training step."""
    module, cells = place.build(preset=preset).module.to(place.device).train(), place.cells()
    module.batch_embedding.dropout = 0.0  # it draws cells with an unknown batch
    counts = torch.from_numpy(cells.X) if place.dense else to_tensor(cells.X)
    codes = torch.from_numpy(cells.obs["cell_type"].cat.codes.to_numpy(dtype=np.int64)[:, None])
    batch = {"X": counts, "labels": codes, "conditions": torch.zeros_like(codes)}
    batch = {name: tensor.to(place.device) for name, tensor in batch.items()}
    loss = module(batch, loss_kwargs={"reduction": "mean"})[-1].loss
    loss.backward()
    grad = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
    return [loss.detach().cpu().numpy(), (grad / grad.norm()).cpu().numpy()]


def train(place: Place, cls: Any = SCTAB, **arguments: Any) -> list[np.ndarray]:
    """Macro F1 of held-out cells after some epochs; the first model is saved for both places."""
    model = place.train(place.build(cls, preset="small"), 6, **arguments)
    if not place.saved.exists():
        model.save(place.saved)
    return [np.array(model.evaluate().loc["macro average", "f1"])]


def predict(place: Place) -> list[np.ndarray]:
    """Probabilities, latents and attention of the saved model."""
    query = place.cells(query=True)
    model = SCTAB.load(place.saved, adata=False, accelerator=place.device)
    latents, attention = model.get_latent_representation(query), model.get_attention(query)
    return [model.predict(query, soft=True).to_numpy(), latents, attention.toarray()]


def map_query(place: Place) -> list[np.ndarray]:
    """Stated probabilities after the query was mapped."""
    model = SCTAB.load_query_data(place.cells(True), place.saved, accelerator=place.device)
    return [place.train(model, None).annotate()["probability"].to_numpy()]


def pretrain(place: Place, cls: Any) -> list[np.ndarray]:
    """Loss of the last epoch over that of the first."""
    losses = place.train(place.build(cls, {}), 3).history["train_loss"].to_numpy(dtype=float)
    return [losses[-1] / losses[0]]


# Each step, and the largest difference between the two places that is allowed.
STEPS = {
    "step, small preset": (partial(step, preset="small"), 1e-2),
    "step, paper preset": (partial(step, preset="paper"), 1e-2),
    "train": (train, 0.1),
    "predict": (predict, 1e-3),
    "map a query": (map_query, 0.1),
    "train, bf16-mixed": (partial(train, precision="bf16-mixed"), 0.1),
    "train, 2 workers": (partial(train, datasplitter_kwargs={"num_workers": 2}), 0.1),
    "ensemble": (partial(train, cls=SCTABEnsemble, augment=True), 0.1),
    "masked autoencoder": (partial(pretrain, cls=MaskedAutoencoder), 0.05),
    "BYOL": (partial(pretrain, cls=BYOL), 0.05),
}


def compare(name: str, places: list[Place]) -> bool:
    """Run a step in both places, print a line, and return whether they agree."""
    (function, allowed), results, seconds = STEPS[name], [], []
    try:
        for place in places:
            start = time.perf_counter()
            results.append(function(place))
            seconds.append(f"{time.perf_counter() - start:.1f} s")
        worst = np.max([np.abs(a - b).max() for a, b in zip(*results, strict=True)])
        text = f"{worst:.1e} of {allowed:g}; {' and '.join(seconds)}"
        passed = bool(worst <= allowed)
    except Exception as error:  # noqa: BLE001, the other steps still tell something
        passed, text = False, f"{type(error).__name__}: {error}".splitlines()[0]
    print(f"{name:20} | {'ok' if passed else 'FAILED':6} | {text}", flush=True)
    return passed


def main(arguments: list[str] | None = None) -> int:
    """Compare the steps, all of them even if one fails; return 1 if they differ too much."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cuda", "mps", "cpu"), default="cuda")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--genes", type=int, default=2000)
    given = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    scvi.settings.verbosity = 40
    with tempfile.TemporaryDirectory() as folder:
        cpu = Place("cpu", False, Path(folder) / "model", given.genes)
        other = cpu._replace(device=given.device, dense=given.device == "cpu")
        passed = [compare(name, [cpu, other]) for name in given.only]
    print(f"{sum(passed)} of {len(passed)} steps agree, {given.device} beside the CPU.")
    return int(not all(passed))


if __name__ == "__main__":
    sys.exit(main())
