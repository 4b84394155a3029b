"""What the README says is true."""

import re
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest

from scvi_sctab import SCTAB

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def code_blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.filterwarnings("ignore:These cells differ")  # another study
def test_the_lines_run(tmp_path, monkeypatch):
    """Runs them as they stand, but for one epoch."""
    (ten_lines,) = code_blocks("python")
    monkeypatch.chdir(tmp_path)
    train = partialmethod(SCTAB.train, max_epochs=1, enable_progress_bar=False)
    monkeypatch.setattr(SCTAB, "train", train)
    namespace = {}
    exec(ten_lines, namespace)
    columns = {"sctab_label", "sctab_probability", "sctab_prediction_set", "sctab_status"}
    assert columns <= set(namespace["query"].obs)
    (line,) = re.findall(r"`(SCTAB\.load\(.*?\)\.predict\(query\))`", README)
    loaded = eval(line, namespace)
    np.testing.assert_array_equal(loaded, namespace["query"].obs["sctab_label"])


def test_it_is_read_in_three_minutes():
    assert len(README.splitlines()) <= 120


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
    named = set(re.findall(r"\b(?:SCTAB|model)\.([a-z_]+)\b", README))
    assert {"train", "annotate", "from_sctab_checkpoint", "from_celltypist"} <= named
    assert [name for name in named if not hasattr(SCTAB, name)] == []
