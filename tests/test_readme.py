"""What the README says is true."""

import re
from functools import partial, partialmethod
from pathlib import Path

import numpy as np
import pytest

from scvi_sctab import SCTAB, annotate_files
from scvi_sctab.external import SpikeSlabVAE
from scvi_sctab.pretrain import MaskedAutoencoder

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def code_blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.filterwarnings("ignore:These cells differ")  # another study
@pytest.mark.filterwarnings("ignore:Only .* of")  # an epoch finds no modules
def test_the_lines_run(tmp_path, monkeypatch):
    """Runs them as they stand, but for one epoch."""
    ten_lines, query_lines, pretraining_lines, screen_lines, statement_lines = code_blocks(
        "python"
    )
    monkeypatch.chdir(tmp_path)
    train = SCTAB.train

    pretrain_briefly = partialmethod(
        MaskedAutoencoder.train, max_epochs=1, enable_progress_bar=False
    )

    train_screen_briefly = partialmethod(
        SpikeSlabVAE.train, max_epochs=1, finetune_epochs=1, enable_progress_bar=False
    )

    def train_briefly(self):
        epochs = {} if self.query_record else {"max_epochs": 1}
        train(self, **epochs, enable_progress_bar=False)

    monkeypatch.setattr(SCTAB, "train", train_briefly)
    monkeypatch.setattr(MaskedAutoencoder, "train", pretrain_briefly)
    monkeypatch.setattr(SpikeSlabVAE, "train", train_screen_briefly)
    namespace = {}
    exec(ten_lines, namespace)
    columns = {"sctab_label", "sctab_probability", "sctab_uncertainty", "sctab_runner_up"}
    assert columns <= set(namespace["query"].obs)
    loaded = SCTAB.load("reference_model").predict(namespace["query"])
    np.testing.assert_array_equal(loaded, namespace["query"].obs["sctab_label"])
    for name in ("lab1.h5ad", "lab2.h5ad"):
        namespace["query"].write_h5ad(name)
    # Workers would import the package anew.
    namespace["annotate_files"] = partial(annotate_files, scheduler="serial")
    (line,) = re.findall(r"`(annotate_files\(.*?\))`", README)
    assert list(eval(line, namespace)["status"]) == ["done", "done"]
    exec(query_lines, namespace)
    assert "sctab_reference_probability" in namespace["query"].obs
    assert namespace["query_model"].surgery_report().trained
    exec(pretraining_lines, namespace)
    assert not any(p.requires_grad for p in namespace["few_model"].module.encoder.parameters())
    exec(screen_lines, namespace)
    assert len(namespace["screen_model"].perturbations) == 25
    exec(statement_lines, namespace)
    assert namespace["annotation"]["term"].notna().all()
    assert "prediction_set" in namespace["annotation"]


@pytest.mark.parametrize(
    "command", sorted(set(re.findall(r"make ([a-z-]+)", README)) - {"sure"}), ids=str
)
def test_each_make_target_named_exists(command):
    assert re.search(rf"^{command}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_each_file_linked_exists():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_each_method_named_exists():
    named = set(re.findall(r"\b(?:SCTAB|model)\.([a-z_]+)\(", README))
    assert {"train", "annotate", "from_sctab_checkpoint", "load_query_data"} <= named
    assert [name for name in named if not hasattr(SCTAB, name)] == []
