"""Check of the package on a GPU: the same numbers as on the CPU, and what it costs.

Takes less than four minutes on a GPU. It prints a line per check and goes on after a failure; it
exits with 1 if a check fails. On the CPU it compares dense with sparse cells, on fewer of them.

    .venv/bin/python benchmarks/gpu_check.py
    .venv/bin/python benchmarks/gpu_check.py --device cpu
"""

from __future__ import annotations

import argparse
import copy
import gc
import logging
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Without it cuBLAS is not deterministic.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import numpy as np
import torch

if TYPE_CHECKING:
    from anndata import AnnData

CHECKS: dict[str, Callable[[Setting], str]] = {}
LIGHT: list[str] = []
_ACCELERATORS = {"cuda": "gpu", "cpu": "cpu", "mps": "mps"}
QUIET = {"enable_progress_bar": False}


def check(name: str, light: bool = False) -> Callable[[Any], Any]:
    """Register a check, which returns a number to print and raises an error if it fails."""

    def register(function: Callable[[Setting], str]) -> Callable[[Setting], str]:
        CHECKS[name] = function
        if light:
            LIGHT.append(name)
        return function

    return register


def require(condition: Any, message: str) -> None:
    """Let a check fail."""
    if not condition:
        raise AssertionError(message)


@dataclass
class Setting:
    """Device, cells, and a model trained on them.

    Attributes
    ----------
    device
        Device to check.
    folder
        Folder for saved models.
    """

    device: torch.device
    folder: Path

    @property
    def is_gpu(self) -> bool:
        """Whether all cells are used."""
        return self.device.type != "cpu"

    @property
    def place(self) -> dict[str, Any]:
        """Arguments of ``train`` and ``load``."""
        return {"accelerator": _ACCELERATORS[self.device.type]}

    @cached_property
    def cells(self) -> tuple[AnnData, AnnData]:
        """Reference and query, of the same genes."""
        from scvi_sctab import datasets

        reference, query = datasets.pbmc_kang18(), datasets.pbmc3k()
        genes = reference.var_names.intersection(query.var_names)
        if not self.is_gpu:
            total = np.asarray(reference[:, genes].X.sum(axis=0)).ravel()
            genes = genes[np.sort(np.argsort(-total)[:400])]
            reference, query = reference[::2], query[::8]
        reference, query = reference[:, genes].copy(), query[:, genes].copy()
        counts = reference.obs["cell_type"].value_counts()
        rare = counts.index[counts < 10]
        reference = reference[~reference.obs["cell_type"].isin(rare)].copy()
        reference.obs["cell_type"] = reference.obs["cell_type"].cat.remove_unused_categories()
        query.obs["donor_id"] = "pbmc3k"
        return reference, query

    def model(self, preset: str = "small", cls: Any = None, **arguments: Any) -> Any:
        """Build an untrained model, always with the same weights."""
        import scvi

        from scvi_sctab import SCTAB

        scvi.settings.seed = 0
        cells = self.cells[0].copy()
        cls = SCTAB if cls is None else cls
        cls.setup_anndata(
            cells, labels_key="cell_type", donor_key="donor_id", batch_key="donor_id"
        )
        return cls(cells, preset, **arguments)

    @cached_property
    def trained(self) -> Any:
        """Model trained on the device."""
        model = self.model()
        model.train(max_epochs=8, **self.place, **QUIET)
        return model

    @cached_property
    def saved(self) -> Path:
        """Folder of the trained model."""
        self.trained.save(self.folder / "model", overwrite=True)
        return self.folder / "model"

    def batch(self, n_cells: int, sparse_cells: bool) -> dict[str, torch.Tensor]:
        """Return cells of the reference on the CPU, sparse or dense."""
        from scvi_sctab.sparse import to_tensor

        rows = self.cells[0][:n_cells]
        counts = rows.X.tocsr().astype(np.float32)
        labels = rows.obs["cell_type"].cat.codes.to_numpy().astype(np.int64)
        return {
            "X": to_tensor(counts) if sparse_cells else torch.from_numpy(counts.toarray()),
            "labels": torch.from_numpy(labels[:, None].copy()),
            "conditions": torch.zeros(len(rows), 1, dtype=torch.int64),
        }

    def batch_on_device(self, n_cells: int) -> dict[str, torch.Tensor]:
        """Return cells on the device, dense where it has no sparse tensors, and on the CPU."""
        batch = self.batch(n_cells, sparse_cells=self.device.type == "cuda")
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.is_gpu:
            getattr(torch, self.device.type).synchronize()

    def milliseconds(self, function: Callable[[], Any], n: int = 5) -> float:
        """Return the median time of a function."""
        times = []
        for _ in range(n + 2):
            self.synchronize()
            start = time.perf_counter()
            function()
            self.synchronize()
            times.append(time.perf_counter() - start)
        return float(np.median(times[2:]) * 1e3)


def worst(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference."""
    return float((found.detach().cpu().double() - expected.detach().cpu().double()).abs().max())


@check("device", light=True)
def check_device(setting: Setting) -> str:
    """Name the device."""
    name = "CPU"
    if setting.device.type == "cuda":
        properties = torch.cuda.get_device_properties(setting.device)
        name = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return f"torch {torch.__version__}, {name}"


@check("entmax against the CPU", light=True)
def check_entmax(setting: Setting) -> str:
    """Compare probabilities and gradients, also of scores with a large support."""
    from scvi_sctab.nn import entmax15, sparsemax

    # On the CPU the operations for GPUs are compared with the kernels.
    from scvi_sctab.nn._entmax import _project, _project_backward_once

    generator = torch.Generator().manual_seed(0)
    shape = (2048, 19_331) if setting.is_gpu else (64, 2_000)
    normal = torch.randn(shape, generator=generator)
    largest, milliseconds = 0.0, 0.0
    for scale in (0.0, 1e-3, 0.1, 1.0, 30.0):
        for power, function in ((1, sparsemax), (2, entmax15)):
            scores = (normal * scale).requires_grad_()
            expected = function(scores)
            (expected * normal).sum().backward()
            on_device, grad = scores.detach().to(setting.device), normal.to(setting.device)
            output = _project(on_device, power)
            gradient = _project_backward_once(grad, output, power)
            # With a constant row every probability has the rounding error of the threshold.
            largest = max(largest, worst(output, expected))
            if scale:
                largest = max(largest, worst(gradient, scores.grad) / max(scale, 1))
            if scale == power == 1:
                milliseconds = setting.milliseconds(lambda x=on_device, p=power: _project(x, p), 3)
    require(largest < 1e-4, f"differs by {largest:.1e}")
    return f"{largest:.1e} at most, {milliseconds:.1f} ms for {shape[0]} x {shape[1]}"


@check("ghost batch norm against the loop", light=True)
def check_ghost(setting: Setting) -> str:
    """Compare virtual batches at once with the loop over them."""
    from scvi_sctab.nn import GhostBatchNorm

    loop = GhostBatchNorm(384, 256, 0.02).to(setting.device)
    at_once = copy.deepcopy(loop)
    x = torch.randn(2048, 384, generator=torch.Generator().manual_seed(0)).to(setting.device)
    parts = loop.parts(x)
    expected = torch.cat([loop.bn(part) for part in parts])
    found = at_once._at_once(parts)
    differences = [worst(found, expected)]
    differences += [
        worst(a.float(), b.float())
        for a, b in zip(at_once.bn.buffers(), loop.bn.buffers(), strict=True)
    ]
    require(max(differences) < 1e-5, f"differs by {max(differences):.1e}")
    slow = setting.milliseconds(lambda: torch.cat([loop.bn(part) for part in parts]))
    fast = setting.milliseconds(lambda: at_once._at_once(parts))
    return f"{max(differences):.1e}, {fast:.2f} ms (loop {slow:.2f} ms)"


@check("sparse cells against dense ones", light=True)
def check_cells(setting: Setting) -> str:
    """Normalise cells on the device, and take their nonzeros back."""
    from scvi_sctab.nn import normalize_counts
    from scvi_sctab.sparse import to_scipy

    expected = normalize_counts(setting.batch(256, sparse_cells=True)["X"]).to_dense()
    found = normalize_counts(setting.batch_on_device(256)["X"])
    difference = worst(found, expected)
    require(difference < 1e-5, f"differs by {difference:.1e}")
    returned = to_scipy(found)
    require(np.allclose(returned.toarray(), expected.numpy(), atol=1e-5), "nonzeros differ")
    return f"{difference:.1e}, {setting.milliseconds(lambda: to_scipy(found)):.1f} ms to scipy"


def make_plan(setting: Setting, preset: str, *, augment: bool = False) -> Any:
    """Build the plan of a preset, for the labels of the reference."""
    from scvi_sctab._config import PRESETS
    from scvi_sctab.nn import CSR
    from scvi_sctab.train import ClassifierTrainingPlan

    module = setting.model(preset).module
    vectors = None
    if augment:
        drawn = torch.rand(100, setting.cells[0].n_vars)
        vectors = CSR.from_dense(drawn.where(drawn < 0.01, 0))
    plan = ClassifierTrainingPlan(
        module,
        class_weights=torch.ones(module.n_labels),
        augmentation_vectors=vectors,
        **PRESETS[preset].plan.to_kwargs(),
    )
    plan._scheduler = lambda optimizer: None  # type: ignore[method-assign, assignment]
    return plan


def compare_step(setting: Setting, preset: str) -> str:
    """Compare loss and gradients of a step on the device with those on the CPU."""
    n_cells = 1024 if setting.is_gpu else 256
    plan = make_plan(setting, preset)
    # Cells with an unknown batch are drawn anew.
    plan.module.batch_embedding.dropout = 0.0
    other = copy.deepcopy(plan).to(setting.device)
    expected = plan._loss(setting.batch(n_cells, sparse_cells=True), training=True).loss
    found = other._loss(setting.batch_on_device(n_cells), training=True).loss
    for loss in (expected, found):
        loss.backward()
    difference = abs(float(found.detach()) - float(expected.detach())) / float(expected.detach())
    require(difference < 1e-3, f"the losses differ by {difference:.1e}")
    grads = [p.grad for p in plan.module.parameters() if p.grad is not None]
    others = [p.grad.cpu() for p in other.module.parameters() if p.grad is not None]
    total = sum(float(grad.norm()) ** 2 for grad in grads) ** 0.5
    error = sum(float((a - b).norm()) ** 2 for a, b in zip(grads, others, strict=True)) ** 0.5
    require(error / total < 1e-2, f"the gradients differ by {error / total:.1e}")
    return f"loss {difference:.1e}, gradient {error / total:.1e}"


@check("step of the small preset", light=True)
def check_small(setting: Setting) -> str:
    """Compare a step of the small preset."""
    return compare_step(setting, "small")


@check("step of the paper preset", light=True)
def check_paper(setting: Setting) -> str:
    """Compare a step of the paper preset."""
    return compare_step(setting, "paper")


@check("training")
def check_training(setting: Setting) -> str:
    """Train, and count right labels of held-out cells."""
    scores = setting.trained.history["validation_f1_macro"]
    best = float(scores.iloc[:, 0].max())
    require(best > 0.3, f"macro F1 of {best:.2f} on held-out cells")
    return f"macro F1 {best:.2f}"


@check("workers and pinned memory")
def check_workers(setting: Setting) -> str:
    """Train with cells from other processes in page-locked memory."""
    losses = []
    for loader in ({}, {"num_workers": 2, "pin_memory": setting.device.type == "cuda"}):
        model = setting.model()
        model.train(max_epochs=2, datasplitter_kwargs=loader, **setting.place, **QUIET)
        losses.append(float(model.history["train_loss"].iloc[-1, 0]))
    require(abs(losses[0] - losses[1]) < 0.05 * losses[0], f"losses {losses}")
    return f"losses {losses[0]:.3f} and {losses[1]:.3f}"


@check("bf16-mixed")
def check_half(setting: Setting) -> str:
    """Train in mixed precision; other half precision is refused."""
    model = setting.model()
    model.train(max_epochs=4, precision="bf16-mixed", **setting.place, **QUIET)
    loss = float(model.history["train_loss"].iloc[-1, 0])
    require(np.isfinite(loss), f"the loss is {loss}")
    types = {t.dtype for t in model.module.state_dict().values() if t.is_floating_point()}
    require(types == {torch.float32}, f"weights are {types}")
    for precision in ("16-mixed", "bf16-true"):
        try:
            model.train(max_epochs=1, precision=precision, **setting.place, **QUIET)
        except TypeError:
            continue
        raise AssertionError(f"{precision} was not refused")
    return f"loss {loss:.3f}"


@check("deterministic")
def check_deterministic(setting: Setting) -> str:
    """Train twice with the same seed."""
    states = []
    try:
        for _ in range(2):
            model = setting.model()
            model.train(max_epochs=2, deterministic="warn", **setting.place, **QUIET)
            states.append(model.module.state_dict())
    finally:
        torch.use_deterministic_algorithms(False)
    difference = max(worst(states[0][name].float(), states[1][name].float()) for name in states[0])
    require(difference == 0, f"weights differ by {difference:.1e}")
    return "equal weights"


@check("predict")
def check_predict(setting: Setting) -> str:
    """Compare probabilities with those of the same model on the CPU."""
    from scvi_sctab import SCTAB

    query = setting.cells[1]
    start = time.perf_counter()
    found = setting.trained.predict(query, soft=True)
    rate = len(found) / (time.perf_counter() - start)
    on_cpu = SCTAB.load(setting.saved, adata=False, accelerator="cpu")
    expected = on_cpu.predict(query, soft=True)
    difference = float(np.abs(found.to_numpy() - expected.to_numpy()).max())
    require(difference < 1e-3, f"probabilities differ by {difference:.1e}")
    return f"{difference:.1e}, {rate:,.0f} cells/s"


@check("save and load across devices")
def check_files(setting: Setting) -> str:
    """Load to the CPU and back."""
    from scvi_sctab import SCTAB

    model = SCTAB.load(setting.saved, adata=False, accelerator="cpu")
    require(model.device.type == "cpu", f"loaded to {model.device}")
    model.save(setting.folder / "on_cpu", overwrite=True)
    again = SCTAB.load(setting.folder / "on_cpu", adata=False, **setting.place)
    require(again.device.type == setting.device.type, f"loaded to {again.device}")
    state = setting.trained.module.state_dict()
    difference = max(
        worst(value.float(), state[name].float())
        for name, value in again.module.state_dict().items()
    )
    require(difference == 0, f"weights differ by {difference:.1e}")
    return "equal weights"


@check("map a query")
def check_mapping(setting: Setting) -> str:
    """Map a query from a saved reference, and adapt to it."""
    from scvi_sctab import SCTAB

    model = SCTAB.load_query_data(setting.cells[1].copy(), setting.saved, **setting.place)
    require(model.device.type == setting.device.type, f"on {model.device}")
    model.train(**setting.place, **QUIET)
    model.train(max_epochs=1, **setting.place, **QUIET)
    table = model.annotate()
    require(table["probability"].between(0, 1).all(), "probabilities outside of [0, 1]")
    return f"{table['label'].nunique()} labels"


@check("calibrate")
def check_calibration(setting: Setting) -> str:
    """Calibrate on the held-out cells."""
    setting.trained.calibrate()
    report = setting.trained.evaluate()
    return f"{len(report)} rows of scores"


@check("explain")
def check_explanations(setting: Setting) -> str:
    """Compare attention with the CPU; rank genes, delete them, and attribute labels to them."""
    from scvi_sctab import SCTAB

    query = setting.cells[1][:200].copy()
    model = setting.trained
    attention = model.get_attention(query)
    on_cpu = SCTAB.load(setting.saved, adata=False, accelerator="cpu")
    difference = abs(attention - on_cpu.get_attention(query)).max()
    require(difference < 1e-3, f"attention differs by {difference:.1e}")
    n_markers = len(model.get_markers(query, n_genes=3))
    model.deletion_test({"attention": attention}, query, n_genes=(5,))
    try:
        model.get_attributions(query[:20].copy(), n_steps=4)
    except ImportError:
        return f"attention {difference:.1e}, {n_markers} markers, no captum"
    return f"attention {difference:.1e}, {n_markers} markers"


@check("pretrain: masked autoencoder")
def check_autoencoder(setting: Setting) -> str:
    """Train a masked autoencoder, and a classifier on its encoder."""
    from scvi_sctab import SCTAB
    from scvi_sctab.pretrain import MaskedAutoencoder

    cells = setting.cells[0].copy()
    MaskedAutoencoder.setup_anndata(cells)
    model = MaskedAutoencoder(cells)
    model.train(max_epochs=2, **setting.place, **QUIET)
    SCTAB.setup_anndata(cells, labels_key="cell_type")
    classifier = SCTAB.from_pretrained(model, labels_key="cell_type", adata=cells)
    classifier.train(max_epochs=1, **setting.place, **QUIET)
    losses = model.history["train_loss"].iloc[:, 0]
    return f"loss {losses.iloc[0]:.3f} to {losses.iloc[-1]:.3f}"


@check("pretrain: target of BYOL")
def check_byol(setting: Setting) -> str:
    """Train BYOL; its target follows the encoder, on the device."""
    from scvi_sctab.pretrain import BYOL

    cells = setting.cells[0].copy()
    BYOL.setup_anndata(cells)
    model = BYOL(cells, noise=0.1)
    before = {name: t.detach().cpu().clone() for name, t in model.module.state_dict().items()}
    model.train(max_epochs=2, **setting.place, **QUIET)
    moved = [
        name
        for name, tensor in model.module.state_dict().items()
        if "target" in name and not torch.equal(tensor.cpu(), before[name])
    ]
    require(moved, "the target has not moved")
    devices = {tensor.device.type for tensor in model.module.state_dict().values()}
    require(devices == {setting.device.type}, f"on {devices}")
    return f"{len(moved)} tensors of the target moved"


@check("proteins")
def check_proteins(setting: Setting) -> str:
    """Predict made-up proteins: counts of five genes."""
    import pandas as pd

    from scvi_sctab.external import ProteinPredictor

    cells = setting.cells[0].copy()
    top = np.argsort(-np.asarray(cells.X.sum(axis=0)).ravel())[:5]
    counts = pd.DataFrame(cells.X[:, top].toarray(), cells.obs_names, [f"P{i}" for i in range(5)])
    cells.obsm["protein"] = counts
    ProteinPredictor.setup_anndata(cells, "protein")
    model = ProteinPredictor(cells)
    model.train(max_epochs=3, **setting.place, **QUIET)
    predicted = model.predict_protein()
    r = np.mean([np.corrcoef(predicted[c], np.log1p(counts[c]))[0, 1] for c in counts])
    require(r > 0.2, f"correlation of {r:.2f}")
    return f"correlation {r:.2f}"


@check("ensemble, and memory after it")
def check_ensemble(setting: Setting) -> str:
    """Train an ensemble with augmentation; afterwards its weights alone are on the device."""
    from scvi_sctab import SCTABEnsemble

    torch.manual_seed(5)
    before = torch.rand(1, device=setting.device)
    # cuBLAS keeps memory of its own from the first product on.
    (torch.rand(8, 8, device=setting.device) @ torch.rand(8, 8, device=setting.device)).sum()
    gc.collect()
    held = torch.cuda.memory_allocated() if setting.device.type == "cuda" else 0
    torch.manual_seed(5)
    ensemble = setting.model(cls=SCTABEnsemble, n_members=2)
    torch.manual_seed(5)
    ensemble.train(max_epochs=2, augment=True, **setting.place, **QUIET)
    require(
        setting.device.type == "cpu" or torch.equal(torch.rand(1, device=setting.device), before),
        "the random state of the device has changed",
    )
    gc.collect()
    size = sum(
        tensor.numel() * tensor.element_size()
        for member in ensemble.members
        for tensor in member.module.state_dict().values()
    )
    if setting.device.type != "cuda":
        return f"weights of {size / 2**20:.0f} MiB"
    extra = torch.cuda.memory_allocated() - held - size
    require(extra < 32 * 2**20, f"{extra / 2**20:.0f} MiB beside the weights")
    return f"weights of {size / 2**20:.0f} MiB, {extra / 2**20:.0f} MiB beside them"


@check("ten steps")
def check_profile(setting: Setting) -> str:
    """Profile steps of the paper preset: waits, copies, launches, memory and speed."""
    n_cells = 2048 if setting.is_gpu else 256
    plan = make_plan(setting, "paper", augment=True).to(setting.device)
    optimizers, _ = plan.configure_optimizers()
    batch = setting.batch_on_device(n_cells)
    n_cells = len(batch["labels"])

    def step() -> None:
        loss = plan._loss(batch, training=True).loss
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plan._deep_parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()

    step()
    rate = n_cells / setting.milliseconds(step, 8 if setting.is_gpu else 2) * 1e3
    if setting.device.type != "cuda":
        return f"{rate:,.0f} cells/s"
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(10):
            step()
        torch.cuda.synchronize()
    peak = (torch.cuda.max_memory_allocated() - held) / 2**20
    calls = {event.key: event.count for event in profiler.key_averages()}

    def count(*words: str) -> float:
        return sum(n for key, n in calls.items() if any(word in key for word in words)) / 10

    waits = count("cudaStreamSynchronize", "cudaEventSynchronize")
    copies = count("Memcpy HtoD", "Memcpy DtoH")
    launches = count("cudaLaunchKernel", "cuLaunchKernel")
    # One is that of 1.5-entmax.
    require(waits <= 3, f"the program waits {waits:.1f} times a step")
    return (
        f"{rate:,.0f} cells/s; a step: {waits:.1f} waits, {copies:.1f} copies, "
        f"{launches:,.0f} launches, {peak:,.0f} MiB at the peak"
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings and log lines, which would break up the table."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def run(setting: Setting, names: list[str]) -> list[str]:
    """Run checks and print a line for each.

    Returns
    -------
    Names of the checks that failed.
    """
    failed = []
    width = max(map(len, names))
    for name in names:
        start = time.perf_counter()
        try:
            with quiet():
                result, number = "ok", CHECKS[name](setting)
        # Whatever fails, the other checks still tell something.
        except Exception as error:  # noqa: BLE001
            result, number = "FAILED", f"{type(error).__name__}: {error}".splitlines()[0]
            failed.append(name)
            traceback.print_exc(limit=-3)
        seconds = time.perf_counter() - start
        print(f"{name:{width}} | {result:6} | {number} ({seconds:.1f} s)", flush=True)
    return failed


def main() -> None:
    """Run the checks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=[*_ACCELERATORS], default=default)
    parser.add_argument("--only", nargs="+", metavar="CHECK", help="words in names of checks")
    parser.add_argument("--light", action="store_true", help="without training")
    arguments = parser.parse_args()
    names = LIGHT if arguments.light else [*CHECKS]
    if arguments.only:
        names = [name for name in names if any(word in name for word in arguments.only)]
    if not names:
        parser.error(f"no such check; there are: {', '.join(CHECKS)}")
    with tempfile.TemporaryDirectory() as folder:
        failed = run(Setting(torch.device(arguments.device), Path(folder)), names)
    print(f"{len(names) - len(failed)} of {len(names)} checks passed.")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
