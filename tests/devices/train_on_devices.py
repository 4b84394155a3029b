"""Train on some devices and write what each process has then; Lightning runs this file again."""

import os
import sys
from pathlib import Path

import numpy as np
import scvi
import torch

from scvi_sctab import SCTAB, datasets
from scvi_sctab.data import LabeledDataSplitter


class Ordered(LabeledDataSplitter):
    """The same order of cells, whatever the number of devices."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.order_seed = 7


class Model(SCTAB):
    _data_splitter_cls = Ordered


def cells():
    reference = datasets.pbmc_kang18()
    top = np.argsort(-np.asarray(reference.X.sum(axis=0)).ravel())[:200]
    reference = reference[::4, np.sort(top)].copy()
    common = reference.obs["cell_type"].value_counts().index[:5]
    reference = reference[reference.obs["cell_type"].isin(common)].copy()
    reference.obs["cell_type"] = reference.obs["cell_type"].astype(str)
    return reference


def main(devices, folder):
    scvi.settings.seed = 0
    adata = cells()
    Model.setup_anndata(adata, labels_key="cell_type")
    arguments = {
        "batch_size": 64 // devices,
        "devices": devices,
        "accelerator": "cpu",
        "enable_progress_bar": False,
    }
    if devices > 1:
        arguments["strategy"] = "ddp"
    results = {}

    def keep(model, name):
        weights = model.module.state_dict()
        results.update({f"{name} {key}": value.numpy().copy() for key, value in weights.items()})
        for key, values in (model.history_ or {}).items():
            results[f"{name} history {key}"] = values.to_numpy(dtype=float)

    # The loss of the published recipe, and early stopping. Without batch norm and dropout, a batch of
    # two processes is that of one.
    model = Model(adata, preset="small", encoder="linear")
    keep(model, "before")
    model.train(
        max_epochs=8,
        plan_kwargs={"reduction": "weighted_mean"},
        early_stopping=True,
        early_stopping_patience=1,
        early_stopping_min_delta=0.2,
        **arguments,
    )
    keep(model, "exact")
    results["probabilities"] = model.predict(soft=True).to_numpy()
    # Pretraining and training as they are, for a number of epochs that depends on the devices.
    model = Model(adata, preset="small", n_steps=2, virtual_batch_size=16)
    model.pretrain(max_epochs=1, **arguments)
    keep(model, "pretrained")
    table = model.pretraining_history_["train_loss"]
    results["pretrained history"] = table.to_numpy(dtype=float)
    model.train(max_steps=4, **arguments)
    keep(model, "trained")
    results["default epochs"] = np.array(model.trainer.max_epochs)
    # The last steps again, from the state of a training.
    for name, resume in (("whole", False), ("resumed", True)):
        model = Model(adata, preset="small", n_steps=2, virtual_batch_size=16)
        model.train(
            max_epochs=2,
            checkpoint_dir=folder / "run",
            checkpoint_every_n_steps=4,
            resume=resume,
            **arguments,
        )
        keep(model, name)
    results["random"] = torch.rand(1).numpy()
    model.save(folder / "model", overwrite=True)
    rank = int(os.environ.get("LOCAL_RANK", 0))
    np.savez(folder / f"rank{rank}.npz", **results)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
