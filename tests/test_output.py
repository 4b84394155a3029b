"""What a run prints, and where."""

import logging
import subprocess
import sys

import pytest
from lightning.pytorch.utilities import rank_zero

from scvi_sctab._logging import logger, quiet_trainer, shows_progress

SCRIPT = """
import warnings
import numpy as np, pandas as pd, scvi
from anndata import AnnData
from scvi_sctab import SCTAB
from scvi_sctab.pretrain import MaskedAutoencoder

rng = np.random.default_rng(0)
kind = rng.integers(2, size=150)
counts = rng.poisson(1 + 2 * np.kron(np.eye(2), np.ones(10))[kind]).astype("float32")
obs = pd.DataFrame({"cell_type": np.array(["a", "b"])[kind]}, [f"c{i}" for i in range(150)])
cells = AnnData(counts, obs, pd.DataFrame(index=[f"G{i}" for i in range(20)]))
SCTAB.setup_anndata(cells, labels_key="cell_type")
model = SCTAB(cells)
model.train(max_epochs=2, accelerator="cpu")
model.predict()
MaskedAutoencoder.setup_anndata(cells)
MaskedAutoencoder(cells).train(max_epochs=1, accelerator="cpu")
"""


@pytest.mark.slow(
    reason="a process of its own, which imports everything; nothing else sees its stdout"
)
def test_nothing_of_ours_lands_on_stdout_and_no_progress_bar_in_a_file():
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert run.stdout == ""
    assert "preset='auto' took 'small' for 150 labelled cells" in run.stderr
    assert "too few to calibrate on" in run.stderr
    for noise in ("Tip:", "GPU available", "it/s]", "\x1b[", "LeafSpec", "num_workers", "\r"):
        assert noise not in run.stderr, noise


def test_lines_go_to_standard_error_as_it_is_at_the_time(capsys):
    logger.warning("mind the gap")
    captured = capsys.readouterr()
    assert captured.err == "WARNING: mind the gap\n"
    assert captured.out == ""


def test_advertisements_are_quiet_within_a_training_and_heard_after_it(caplog):
    log = logging.getLogger(rank_zero.__name__)
    caplog.set_level(logging.INFO)
    with quiet_trainer():
        rank_zero.rank_zero_info("buy this")
    assert log.getEffectiveLevel() <= logging.INFO
    rank_zero.rank_zero_info("epoch 3 ended")
    assert "buy this" not in caplog.text
    assert "epoch 3 ended" in caplog.text


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_shown_to_a_terminal_only(monkeypatch, is_terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    assert shows_progress() is is_terminal


def test_messages_stay_off_standard_output_whatever_is_imported_first():
    script = (
        "from scvi_sctab._logging import logger\n"
        "import scvi\n"
        "logger.warning('a message')\n"
        "scvi.settings.verbosity = 20\n"
        "logger.warning('another')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == ""
    assert done.stderr.splitlines()[-2:] == ["WARNING: a message", "WARNING: another"]
