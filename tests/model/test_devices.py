"""Training and prediction on devices other than the CPU, on tensors without data."""

import sys

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from scvi import REGISTRY_KEYS
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from scvi_sctab import SCTAB, SCTABEnsemble
from scvi_sctab._config import PRESETS
from scvi_sctab._constants import CONDITIONS_KEY
from scvi_sctab.base import _checkpoint
from scvi_sctab.module import CellTypeClassifier
from scvi_sctab.nn import CSR, TabNetEncoder, single_precision
from scvi_sctab.sparse import to_tensor
from scvi_sctab.train import ClassifierTrainingPlan

N_GENES, N_LABELS, N_CELLS = 40, 5, 32
SMALL = {"n_d": 6, "n_a": 4, "n_independent": 1, "n_shared": 1, "virtual_batch_size": 8}


def make_plan(preset, n_steps=1):
    module = CellTypeClassifier(
        TabNetEncoder(N_GENES, n_steps=n_steps, **SMALL),
        N_GENES,
        N_LABELS,
        linear_skip=preset == "small",
        n_categories=[3],
    )
    return ClassifierTrainingPlan(
        module,
        class_weights=torch.ones(N_LABELS),
        augmentation_vectors=CSR.from_dense(torch.rand(4, N_GENES)),
        **PRESETS[preset].plan.to_kwargs(),
    )


def batch_on(device):
    return {
        REGISTRY_KEYS.X_KEY: torch.ones(N_CELLS, N_GENES, device=device),
        REGISTRY_KEYS.LABELS_KEY: torch.zeros(N_CELLS, 1, dtype=torch.int64, device=device),
        CONDITIONS_KEY: torch.zeros(N_CELLS, 1, dtype=torch.int64, device=device),
    }


@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("preset", ["small", "paper"])
def test_a_training_step_runs_on_another_device_alone(preset, n_steps, monkeypatch):
    plan = make_plan(preset, n_steps).to("meta")
    # The number of nonzeros, which makes sparse vectors dense, is data.
    plan.augmentation._dense = torch.rand(4, N_GENES, device="meta")
    monkeypatch.setattr(plan, "_scheduler", lambda optimizer: None)
    optimizers, _ = plan.configure_optimizers()
    monkeypatch.setattr(plan, "optimizers", lambda: optimizers)
    monkeypatch.setattr(plan, "manual_backward", lambda loss: loss.backward())
    loss = plan._loss(batch_on("meta"), training=True).loss
    plan._take_step(loss)
    assert loss.device.type == "meta"
    assert {p.grad.device.type for p in plan.module.parameters()} == {"meta"}


class Indexing(TorchFunctionMode):
    """Index by operators, since torch without CUDA refuses to index tensors of CUDA."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not torch.Tensor.__getitem__:
            return func(*args, **(kwargs or {}))
        x, key = args
        for dim, part in enumerate(key if isinstance(key, tuple) else (key,)):
            if part is None:
                x = x.unsqueeze(dim)
            elif isinstance(part, slice):
                x = torch.ops.aten.slice.Tensor(x, dim, part.start, part.stop)
            else:
                x = torch.ops.aten.index.Tensor(x, [None] * dim + [part])
        return x


def to_fake_cuda(module):
    """Replace parameters and buffers, shared ones once."""
    moved = {}
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                if id(tensor) not in moved:
                    empty = torch.empty_strided(
                        tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda"
                    )
                    is_parameter = isinstance(tensor, torch.nn.Parameter)
                    moved[id(tensor)] = torch.nn.Parameter(empty) if is_parameter else empty
                tensors[name] = moved[id(tensor)]


@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("preset", ["small", "paper"])
def test_prediction_runs_on_cuda_alone(preset, n_steps):
    module = make_plan(preset, n_steps).module.eval()
    with FakeTensorMode(), Indexing():
        to_fake_cuda(module)
        with torch.inference_mode(), single_precision("cuda"):
            _, outputs = module(batch_on("cuda"), compute_loss=False)
        assert outputs["logits"].shape == (N_CELLS, N_LABELS)
        assert outputs["logits"].device.type == "cuda"


@pytest.mark.parametrize("preset", ["small", "paper"])
def test_sparse_cells_on_the_cpu_are_moved_in_evaluation_and_refused_in_training(preset):
    module = make_plan(preset).module.to("meta")
    counts = to_tensor(csr_matrix(np.ones((N_CELLS, N_GENES), np.float32)))
    batch = {**batch_on("meta"), REGISTRY_KEYS.X_KEY: counts}
    with pytest.raises(RuntimeError, match=r"weights are on meta. Move the minibatch"):
        module(batch)
    _, outputs = module.eval()(batch, compute_loss=False)
    assert outputs["logits"].device.type == "meta"


@pytest.fixture
def chosen(monkeypatch):
    """Devices that are asked for."""
    asked = []

    def choose(accelerator, device):
        asked.append((accelerator, device))
        return torch.device("cpu")

    for place in (_checkpoint, sys.modules[SCTAB.__module__]):
        monkeypatch.setattr(place, "choose_device", choose)
    return asked


@pytest.mark.parametrize("is_ensemble", [False, True])
def test_a_reference_is_loaded_to_the_device_of_the_query(
    reference, is_ensemble, chosen, tmp_path
):
    cells = reference.copy()
    SCTAB.setup_anndata(cells, labels_key="cell_type", batch_key="donor_id")
    cls = SCTABEnsemble if is_ensemble else SCTAB
    model = SCTABEnsemble(cells, n_members=2, n_d=4, n_a=4) if is_ensemble else SCTAB(cells)
    model.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu")
    model.save(tmp_path / "model")
    query = reference[:60].copy()
    query.obs["donor_id"] = "new"
    cls.load_query_data(query, tmp_path / "model", accelerator="cpu", device=1)
    assert chosen
    assert set(chosen) == {("cpu", 1)}
