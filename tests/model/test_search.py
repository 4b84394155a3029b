"""Loggers, callbacks and searches of scvi-tools reach the trainer, beside ours."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from scvi.train import Trainer

from scvi_sctab import SCTAB
from scvi_sctab.train import RestoreBestWeights

PAGE = Path(__file__).parents[2] / "docs" / "hyperparameters.md"
METRIC = "validation_f1_macro"
SETUP = {"labels_key": "cell_type", "donor_key": "donor_id"}


class Report(Callback):
    """Read the metric as the callback of Ray Tune does."""

    def __init__(self):
        self.values = []

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.values.append(trainer.callback_metrics[METRIC].item())


def run_trial(cells, folder, model_params, train_params):
    """Call a model as a trial of `scvi.autotune` does."""
    SCTAB.setup_anndata(cells, **SETUP)
    setup = SCTAB._get_most_recent_anndata_manager(cells).registry
    report = Report()
    getattr(SCTAB, setup["setup_method_name"])(cells, **setup["setup_args"])
    model = SCTAB(cells, **model_params)
    model.train(
        accelerator="auto",
        devices="auto",
        check_val_every_n_epoch=1,
        enable_progress_bar=False,
        logger=TensorBoardLogger(str(folder)),
        callbacks=[report],
        **train_params,
    )
    return model, report


def test_a_trial_reports_the_metric_at_each_epoch(reference, tmp_path):
    pytest.importorskip("tensorboard")
    train_params = {"max_epochs": 4, "plan_kwargs": {"lr": 3e-3}}
    model, report = run_trial(reference, tmp_path, {"n_steps": 1}, train_params)
    assert model.network_config.n_steps == 1
    assert len(report.values) == 4
    logged = model.history[METRIC][METRIC].to_numpy(dtype=float)
    np.testing.assert_allclose(report.values, logged, rtol=1e-6)
    ours = [call for call in model.trainer.callbacks if isinstance(call, RestoreBestWeights)]
    assert ours[0].best_score == max(report.values[ours[0].from_epoch :])
    assert model.calibration is not None


@pytest.mark.parametrize("several", [False, True], ids=["one", "list"])
def test_metrics_arrive_at_a_logger_and_in_the_history(several, reference, tmp_path):
    SCTAB.setup_anndata(reference, **SETUP)
    model, logger = SCTAB(reference), CSVLogger(tmp_path)
    kwargs = {"max_epochs": 3, "check_val_every_n_epoch": 1, "enable_progress_bar": False}
    model.train(logger=[logger] if several else logger, **kwargs)
    file = pd.read_csv(Path(logger.log_dir) / "metrics.csv")
    for name in (METRIC, "validation_loss", "train_loss"):
        rows = file[["epoch", name]].dropna()
        assert list(rows["epoch"]) == [0, 1, 2]
        logged = model.history[name][name].to_numpy(dtype=float)
        np.testing.assert_allclose(rows[name], logged, rtol=1e-5)
    model.train(logger=CSVLogger(tmp_path), **kwargs)
    assert len(model.history[METRIC]) == 6
    model.save(tmp_path / "model")
    assert len(SCTAB.load(tmp_path / "model").history[METRIC]) == 6


def test_without_a_logger_there_is_no_history(reference):
    SCTAB.setup_anndata(reference, **SETUP)
    model = SCTAB(reference)
    model.train(max_epochs=1, logger=False, enable_progress_bar=False)
    assert model.is_trained
    assert isinstance(model.trainer, Trainer)


@pytest.mark.slow(reason="Ray starts a process per trial, which imports the package anew")
@pytest.mark.filterwarnings("default")  # of Ray and its parts
def test_the_search_of_the_page_runs(reference, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    for module in ("hyperopt", "scib_metrics"):
        pytest.importorskip(module)
    monkeypatch.setattr("scvi.settings.logging_dir", str(tmp_path))
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    for given, brief in (("num_samples=20", "num_samples=2"), ("EPOCHS = 30", "EPOCHS = 2")):
        assert given in block
        block = block.replace(given, brief)
    namespace = {"reference": reference}
    try:
        exec(block, namespace)
    finally:
        ray.shutdown()
    results = namespace["experiment"].result_grid
    assert len(results) == 2
    for result in results:
        assert result.error is None
        assert list(result.metrics_dataframe["training_iteration"]) == [1, 2]
        assert result.metrics_dataframe[METRIC].between(0, 1).all()
    assert namespace["model"].is_trained
    assert (
        namespace["model"].network_config.n_steps == namespace["best"]["model_params"]["n_steps"]
    )
