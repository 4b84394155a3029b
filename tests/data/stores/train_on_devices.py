"""Train from a corpus on some devices, and write weights and history of each process."""

import os
import sys
from pathlib import Path

import numpy as np
import scvi

from scvi_sctab import SCTAB
from scvi_sctab.data import LabeledDataSplitter
from scvi_sctab.data.stores import AtlasDataModule


class Ordered(LabeledDataSplitter):
    """The same order of cells, whatever the number of devices."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.order_seed = 7


class Model(SCTAB):
    _data_splitter_cls = Ordered


def main(devices, corpus, folder):
    scvi.settings.seed = 0
    atlas = AtlasDataModule(corpus)
    # Without batch norm, a batch of two processes is that of one.
    model = Model(registry=atlas.registry, preset="small", encoder="linear")
    several = {"strategy": "ddp"} if devices > 1 else {}
    model.train(
        datamodule=atlas,
        max_epochs=4,
        batch_size=64 // devices,
        devices=devices,
        accelerator="cpu",
        enable_progress_bar=False,
        plan_kwargs={"reduction": "weighted_mean"},
        **several,
    )
    results = {name: tensor.numpy() for name, tensor in model.module.state_dict().items()}
    for name, values in model.history_.items():
        results[f"history {name}"] = values.to_numpy(dtype=float)
    np.savez(folder / f"{devices}-{os.environ.get('LOCAL_RANK', 0)}.npz", **results)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
